"""Averaged weights, the epochs that the select patients choose, and training again on all of them."""

from pathlib import Path
from typing import Any, cast

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from mil import checkpoint
from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.errors import ConfigError, SplitError
from mil.study.pipeline import read_study, split_study
from mil.training import refit, train_network
from mil.training.epoch_choice import CarriedOver, MovingAverage
from mil.training.refit import CrossFit, inner_split
from mil.training.train import train
from tests.training.test_fit import settings_of
from tests.training.test_whole import silent_trainer


class Walk(LightningModule):
    """A module whose weight takes a step of one at each batch, and which remembers what is validated."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.validated: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return -self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(float(self.weight.detach()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def walked(*callbacks: lightning.Callback, epochs: int = 3) -> Walk:
    batches = DataLoader(cast("torch.utils.data.Dataset[Tensor]", [torch.zeros(1)] * 4))
    module = Walk()
    silent_trainer(*callbacks, max_epochs=epochs).fit(module, batches, batches)
    return module


def test_what_is_validated_is_the_mean_of_all_steps_with_weights_that_fall_exponentially() -> None:
    average = MovingAverage(epochs=2)  # of four steps: a decay of 7/8
    module = walked(average)
    for epoch in range(3):
        steps = np.arange(1, 4 * epoch + 5)
        shares = (7 / 8) ** (steps[-1] - steps)
        expected = float((shares * steps).sum() / shares.sum())
        assert module.validated[4 * epoch : 4 * epoch + 4] == pytest.approx([expected] * 4, rel=1e-6)
    assert float(module.weight.detach()) == 12.0, "training goes on from the weights of the last step"
    average.swap(module)
    assert float(module.weight.detach()) == pytest.approx(expected, rel=1e-6)


def test_without_an_average_the_last_step_is_validated() -> None:
    average = MovingAverage(epochs=0)
    module = walked(average)
    average.swap(module)
    assert (module.validated[-1], float(module.weight.detach())) == (12.0, 12.0)


@pytest.mark.parametrize("average", [0.0, 2.0])
def test_epochs_carried_over_are_averaged_and_the_last_of_them_ends_the_training(average: float) -> None:
    validated = walked(MovingAverage(average), epochs=3).validated[3::4]  # what an epoch's end is worth
    carried = CarriedOver([3, 1])
    module = walked(carried, MovingAverage(average), epochs=5)
    assert float(module.weight.detach()) == 12.0, "three epochs of four steps"
    assert carried.weights["weight"].item() == pytest.approx((validated[0] + validated[2]) / 2)
    resumed = CarriedOver([3, 1])
    resumed.load_state_dict(carried.state_dict())
    assert resumed.weights == carried.weights


def test_scores_of_the_parts_are_shifted_where_scores_have_no_zero() -> None:
    final = {"a": torch.tensor([3.0]), "b": torch.tensor([5.0]), "c": torch.tensor([0.0])}
    cross = CrossFit([2], [(["a", "b"], torch.tensor([[0.0], [1.0]])), (["c"], torch.tensor([[7.0]]))])
    assert cross.logits(["c", "b"], final, Cox("time", "event")).tolist() == [[0.0], [4.5]]
    assert cross.logits(["c", "b"], final, Binary("label")).tolist() == [[7.0], [1.0]]


REFIT = (
    "selection.refit=2",
    "trainer.max_epochs=6",
    "selection.best_epochs=3",
    "trainer.precision=32-true",
    "optimizer.lr=0.05",
)


def _refitted(folder: Path, *words: str) -> pd.DataFrame:
    settings = settings_of(*REFIT, *words)
    study = read_study(settings)
    train(settings, study, split_study(settings, study), folder)
    return pd.read_csv(folder / "predictions.csv", dtype={"patient": str})


def test_all_patients_train_for_as_many_epochs_as_the_parts_find_and_an_interrupted_run_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: dict[str, refit.Part] = {}
    traced = refit._traced

    def watched(config: Any, fold: Any, *rest: Any) -> refit.Part:
        part = traced(config, fold, *rest)
        parts[fold.folder.name] = part
        return part

    monkeypatch.setattr(refit, "_traced", watched)
    table = _refitted(tmp_path / "run")
    loaded = checkpoint.load(tmp_path / "run" / "checkpoint")
    sizes = torch.tensor([len(part.bags) for part in parts.values()], dtype=torch.float64)
    losses = (sizes @ torch.stack([part.losses for part in parts.values()])) / sizes.sum()
    training = loaded.manifest.training
    best = losses.argsort()[:3]
    assert training.best_epochs == (best + 1).tolist()
    assert training.refitted
    # the select patients' scores are those of the parts' networks, which were trained without them
    select = table[table["role"] == "select"].set_index("patient")
    logits = {
        bag: row for part in parts.values() for bag, row in zip(part.bags, part.logits[best].mean(0), strict=True)
    }
    expected = torch.stack([logits[patient] for patient in select.index])
    torch.testing.assert_close(loaded.endpoint.recode(select).float(), expected, rtol=0, atol=1e-4)
    both = set(table.loc[table["role"] != "report", "patient"])
    assert set().union(*(part.bags for part in parts.values())) == both

    monkeypatch.setattr(refit, "_traced", traced)
    trained = train_network.train_network
    calls: list[str] = []

    def stopped(config: Any, fold: Any, *rest: Any) -> Any:
        calls.append(fold.folder.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(config, fold, *rest)

    monkeypatch.setattr(refit, "train_network", stopped)
    with pytest.raises(KeyboardInterrupt):
        _refitted(tmp_path / "again")
    pd.testing.assert_frame_equal(_refitted(tmp_path / "again"), table)
    assert calls == ["part_0", "part_1", "part_1"], "the part that was finished is not trained again"
    assert not (tmp_path / "again" / "state").exists()


def test_parts_are_stratified_and_refused_where_a_class_is_too_small() -> None:
    settings = settings_of("selection.refit=3")
    study = read_study(settings)
    split = split_study(settings, study)
    inner = inner_split(settings, study, split, 0)
    both = {*split.patients(0, "train"), *split.patients(0, "select")}
    assert inner.folds == [0, 1, 2]
    assert sorted(patient for fold in inner.folds for patient in inner.patients(fold, "select")) == sorted(both)
    with pytest.raises(SplitError, match=r"selection\.refit=50: fold 0: class 1 has \d+ patients"):
        inner_split(settings.replaced({"selection.refit": 50}), study, split, 0)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("selection.moving_average=-1", "selection.moving_average=-1, expected a number of at least 0"),
        ("selection.best_epochs=0", "selection.best_epochs=0, expected a whole number of at least 1"),
        ("selection.refit=1", "selection.refit=1, expected a whole number of at least 2"),
    ],
)
def test_options_out_of_their_range_are_named(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(word)

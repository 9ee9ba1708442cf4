"""Averaged weights, the epoch that the select patients choose, and training again on all of them."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from mil import checkpoint
from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.errors import ConfigError, SplitError
from mil.study.pipeline import read_study, split_study
from mil.training import refit, train_network
from mil.training.epoch_choice import PARTS, Average, Chosen, Until, difference_error
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
    average = Average(epochs=2)  # of four steps: a decay of 7/8
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
    average = Average(epochs=0)
    module = walked(average)
    average.swap(module)
    assert (module.validated[-1], float(module.weight.detach())) == (12.0, 12.0)


def test_training_until_an_epoch_follows_the_schedule_of_all() -> None:
    assert float(walked(Until(2), epochs=5).weight.detach()) == 8.0


def _chosen(tolerance: float, epochs: list[Tensor], target: Tensor, endpoint: Any) -> Chosen:
    judge = Chosen(tolerance, [f"p{row}" for row in range(len(target))])
    for number, logits in enumerate(epochs):
        loss = endpoint.loss(logits, target)
        trainer = SimpleNamespace(callback_metrics={"select_loss": loss}, current_epoch=number)
        module = SimpleNamespace(
            validated=(logits, target),
            endpoint=endpoint,
            state_dict=partial(dict, epoch=torch.tensor(number)),
        )
        judge.on_validation_end(cast(Trainer, trainer), cast(LightningModule, module))
    return judge


def test_the_latest_epoch_counts_that_is_not_clearly_worse_than_the_best() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(40).remainder(2).float()
    signal = (2 * target - 1).unsqueeze(1)
    change = 0.3 * torch.randn(40, 1, generator=generator).sign()  # for the better as often as for the worse
    endpoint = Binary("label")
    epochs = [0.2 * signal, signal, (1 + change) * signal, -signal]
    losses = [float(endpoint.loss(logits, target)) for logits in epochs]
    assert losses[1] < losses[2] < losses[0] < losses[3]
    assert _chosen(0.0, epochs, target, endpoint).number == 2
    near = _chosen(2.0, epochs, target, endpoint)
    assert near.number == 3
    assert near.weights["epoch"] == 2
    resumed = Chosen(2.0, near.patients)
    resumed.load_state_dict(near.state_dict())
    assert resumed.number == 3
    assert resumed.lowest == pytest.approx(losses[1])
    assert resumed.logits is epochs[1]


def test_error_of_the_difference_of_two_mean_losses_is_that_of_a_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.arange(2000).remainder(2).float()
    first, second = torch.randn(2, 2000, 1, generator=generator, dtype=torch.float64)
    endpoint = Binary("label")
    bags = [f"p{row}" for row in range(2000)]
    rows = [[row] for row in range(2000)]
    each = torch.stack(
        [endpoint.loss(first[row], target[row]) - endpoint.loss(second[row], target[row]) for row in rows]
    )
    error = difference_error(endpoint, first, second, target, bags)
    # nine degrees of freedom: within a factor of 1.6 with a probability of 0.95
    assert error == pytest.approx(float(each.std()) / 2000**0.5, rel=0.6)
    doubled = [f"p{row // 2}" for row in range(2000)]  # two bags of one patient are left out together
    assert difference_error(endpoint, first, second, target, doubled) != error


@pytest.mark.parametrize("patients", [1, 3, PARTS + 1])
def test_error_is_defined_for_few_patients_and_for_a_loss_over_patients_at_risk(patients: int) -> None:
    target = torch.stack([torch.arange(1.0, patients + 1), torch.ones(patients)], 1)
    bags = [f"p{row}" for row in range(patients)]
    logits = torch.arange(float(patients)).unsqueeze(1)
    error = difference_error(Cox("time", "event"), logits, logits.sin(), target, bags)
    assert (error > 0) == (patients > 1)
    assert np.isfinite(error)


def test_scores_of_the_parts_are_shifted_where_scores_have_no_zero() -> None:
    final = {"a": torch.tensor([3.0]), "b": torch.tensor([5.0]), "c": torch.tensor([0.0])}
    cross = CrossFit(2, [(["a", "b"], torch.tensor([[0.0], [1.0]])), (["c"], torch.tensor([[7.0]]))])
    assert cross.logits(["c", "b"], final, Cox("time", "event")).tolist() == [[0.0], [4.5]]
    assert cross.logits(["c", "b"], final, Binary("label")).tolist() == [[7.0], [1.0]]


REFIT = ("selection.refit=2", "trainer.max_epochs=3", "trainer.precision=32-true", "optimizer.lr=0.05")


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
    assert training.best_epoch == int(losses.argmin()) + 1
    assert training.refitted
    # the select patients' scores are those of the parts' networks, which were trained without them
    select = table[table["role"] == "select"].set_index("patient")
    last = training.best_epoch - 1
    logits = {bag: row for part in parts.values() for bag, row in zip(part.bags, part.logits[last], strict=True)}
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
        ("selection.average=-1", "selection.average=-1, expected a number of at least 0"),
        ("selection.tolerance=x", "selection.tolerance=x, expected"),
        ("selection.refit=1", "selection.refit=1, expected a whole number of at least 2"),
    ],
)
def test_options_out_of_their_range_are_named(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(word)

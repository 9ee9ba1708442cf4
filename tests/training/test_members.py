"""Networks that are trained side by side: each as if it were alone, and their mean in every command."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from mil import checkpoint
from mil.errors import ConfigError
from mil.features.batches import Draw, WholeOrder, loader
from mil.features.encoders import Encoder
from mil.models.abmil import ABMIL
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import NetworkEnsemble, members_of
from mil.training.member_gradients import clip_gradients, restore_gradients
from mil.training.module import MILModule
from mil.training.pretrained import groups, start_from
from mil.training.ranks import Ranks
from mil.training.schedule import Constant
from mil.training.whole import WholeModule
from mil.zoo import golden
from tests.checkpoints import saved, small
from tests.conftest import TINY, run_quietly
from tests.training.test_whole import CASES, OPTIMIZER, WIDTH, dataset, silent_trainer

SEEDS = (0, 1, 2)


def single(seed: int, out_dim: int = 1) -> MILModel:
    torch.manual_seed(seed)
    return ABMIL(WIDTH, out_dim, embed_dim=5, attention_dim=4, dropout=0)


def trained(model: MILModel, case: str, whole: bool, by_bag: bool, clip: float | None) -> MILModel:
    """Return the model after an epoch."""
    endpoint, target = CASES[case]
    data = dataset(target)
    order = WholeOrder(data.sizes, 8)
    arguments = (model, endpoint, OPTIMIZER, Constant(), 0)
    module = WholeModule(*arguments, loader(data, order)) if whole else MILModule(*arguments)
    module.ranks = Ranks(by_bag=by_bag)
    accumulate = len(order) if whole else 1
    trainer = silent_trainer(max_epochs=1, gradient_clip_val=clip, accumulate_grad_batches=accumulate)
    trainer.fit(module, loader(data, order), loader(data))
    return model


@pytest.mark.parametrize(
    ("case", "whole", "by_bag", "clip"),
    [
        ("binary", False, False, 0.05),
        ("cox", True, False, None),
        ("cox", False, True, 0.05),
        ("several", True, True, 0.05),
    ],
)
def test_a_member_is_the_network_trained_alone(case: str, whole: bool, by_bag: bool, clip: float | None) -> None:
    out_dim = CASES[case][0].out_dim
    together = NetworkEnsemble([single(seed, out_dim) for seed in SEEDS[:2]])
    trained(together, case, whole, by_bag, clip)
    for seed, member in zip(SEEDS[:2], together.models, strict=True):
        alone, start = trained(single(seed, out_dim), case, whole, by_bag, clip), single(seed, out_dim)
        for name, weight in alone.state_dict().items():
            torch.testing.assert_close(member.state_dict()[name], weight, rtol=0, atol=1e-6)
        assert not torch.equal(alone.state_dict()["head.weight"], start.state_dict()["head.weight"])


def test_weights_of_covariates_get_the_mean_gradient_and_are_clipped_by_themselves() -> None:
    endpoint, target = CASES["binary"]
    batch = dataset(target)[[Draw(0), Draw(1), Draw(2)]]
    model = Fused(NetworkEnsemble([single(seed) for seed in SEEDS]), 2, 1)
    torch.autograd.backward(model.loss(model(batch.bags), batch.target, endpoint))
    restore_gradients(model)
    alone = [Fused(single(seed), 2, 1) for seed in SEEDS]
    for network in alone:
        torch.autograd.backward(network.loss(network(batch.bags), batch.target, endpoint))
    shifts = [gradient_of(network.shift) for network in alone]
    torch.testing.assert_close(gradient_of(model.shift), torch.stack(shifts).mean(0))
    for member, network in zip(members_of(model), alone, strict=True):
        for weight, expected in zip(member.parameters(), network.inner.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, expected.grad)
    clip_gradients(model, 1e-3)
    for part in (*members_of(model), model.shift):
        norm = torch.cat([weight.grad.flatten() for weight in part.parameters() if weight.grad is not None]).norm()
        assert float(norm) == pytest.approx(1e-3, rel=1e-2)


def gradient_of(layer: nn.Linear) -> torch.Tensor:
    assert layer.weight.grad is not None
    return layer.weight.grad


def test_all_members_start_from_one_checkpoint_or_each_from_its_own(tmp_path: Path) -> None:
    encoder = Encoder("uni", 8)
    source = checkpoint.load(small(tmp_path / "a")).model
    model = NetworkEnsemble([ABMIL(8, 1, embed_dim=6, attention_dim=4) for _ in range(2)])
    assert start_from(model, tmp_path / "a", encoder) == ["head.weight", "head.bias"]
    for member in model.models:
        assert torch.equal(member.get_parameter("embed.0.weight"), source.get_parameter("embed.0.weight"))
    assert not torch.equal(*(member.get_parameter("head.weight") for member in model.models))
    heads, trunk = groups(model, 0.1, 0.01)
    assert (len(heads["params"]), heads["lr"], trunk["lr"]) == (4, 0.01, 0.001)
    pair = NetworkEnsemble([ABMIL(8, 1, embed_dim=6, attention_dim=4) for _ in range(2)])
    saved(tmp_path / "pair", pair, {"embed_dim": 6, "attention_dim": 4})
    start_from(model, tmp_path / "pair", encoder)
    for target, origin in zip(model.models, pair.models, strict=True):
        assert torch.equal(target.get_parameter("embed.0.weight"), origin.get_parameter("embed.0.weight"))
    with pytest.raises(ConfigError, match=r"has 2 networks, expected 1 or model\.members=2"):
        start_from(ABMIL(8, 1, embed_dim=6, attention_dim=4), tmp_path / "pair", encoder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run whose model is the mean of two networks."""
    words = [*(word for word in TINY if word != "split.folds=2"), "split=holdout", "trainer.max_epochs=1"]
    folder = tmp_path_factory.mktemp("members") / "run"
    return run_quietly("train", *words, "baseline=false", "model.members=2", f"hydra.run.dir={folder}")


def test_the_checkpoint_of_a_run_is_the_mean_of_its_networks(run: Path) -> None:
    loaded = checkpoint.load(run / "checkpoint")
    first, second = (sum(weight.numel() for weight in member.parameters()) for member in members_of(loaded.model))
    assert loaded.manifest.members == 2
    assert loaded.manifest.training.parameters == first + second
    assert "members" not in loaded.manifest.model.options
    card = (run / "checkpoint" / "README.md").read_text(encoding="utf-8")
    assert "an ensemble of 2 networks that differ by their random start; their logits are averaged" in card
    table = pd.read_csv(run / "predictions.csv")
    assert table["p_MSI-H"].between(0, 1).all()
    assert table["p_MSI-H"].nunique() > 1


def test_golden_predictions_of_an_ensemble_come_again(run: Path, tmp_path: Path) -> None:
    loaded = checkpoint.load(run / "checkpoint")
    golden.write(loaded, tmp_path)
    assert golden.check(replace(loaded, folder=tmp_path)) == "bit for bit"

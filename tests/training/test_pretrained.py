"""Training that starts from the weights of a checkpoint, and layers that learn slower than others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mil import checkpoint
from mil.errors import ConfigError
from mil.features.batches import WholeOrder, loader
from mil.features.encoders import Encoder
from mil.models.abmil import ABMIL
from mil.models.clam import CLAM
from mil.models.fusion import Fused
from mil.study.compose import compose
from mil.training.module import MILModule
from mil.training.pretrained import start_from
from mil.training.schedule import Constant
from tests.checkpoints import small
from tests.conftest import TINY, run_quietly
from tests.training.test_whole import CASES, OPTIMIZER, WIDTH, dataset, silent_trainer

UNI = Encoder("uni", 8)


def test_all_but_the_head_is_taken_over(tmp_path: Path) -> None:
    small(tmp_path / "a")
    source = checkpoint.load(tmp_path / "a").model.state_dict()
    for model in (ABMIL(8, 3, embed_dim=6, attention_dim=4), Fused(ABMIL(8, 3, embed_dim=6, attention_dim=4), 2, 3)):
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        assert start_from(model, tmp_path / "a", UNI) == ["head.weight", "head.bias"]
        for name, weight in model.state_dict().items():
            bare = name.removeprefix("inner.")
            anew = bare.startswith(("head", "shift"))
            assert torch.equal(weight, before[name] if anew else source[bare]), name


def test_other_models_options_and_encoders_are_refused(tmp_path: Path) -> None:
    small(tmp_path / "a")
    with pytest.raises(ConfigError, match="is of ABMIL, expected CLAM as the model is"):
        start_from(CLAM(8, 1), tmp_path / "a", UNI)
    with pytest.raises(ConfigError, match=r"is \(6, 8\), the model has \(5, 8\): give the same options"):
        start_from(ABMIL(8, 1, embed_dim=5, attention_dim=4), tmp_path / "a", UNI)
    for encoder in (replace(UNI, name="virchow"), replace(UNI, level="slide")):
        with pytest.raises(ConfigError, match=f"reads features of 'uni', these are of '{encoder.name}'"):
            start_from(ABMIL(8, 1, embed_dim=6, attention_dim=4), tmp_path / "a", encoder)


@pytest.mark.parametrize("trunk_lr", [None, 0.0, 0.1])
def test_trunk_learns_slower_or_not_at_all(trunk_lr: float | None) -> None:
    torch.manual_seed(0)
    endpoint, target = CASES["binary"]
    data, model = dataset(target), ABMIL(WIDTH, 1, 5, 4, dropout=0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    module = MILModule(model, endpoint, OPTIMIZER, Constant(), 0)
    module.trunk_lr = trunk_lr
    trainer = silent_trainer(max_epochs=1)
    trainer.fit(module, loader(data, WholeOrder(data.sizes, 30)), loader(data))
    moved = {name: (weight - before[name]).abs().max().item() for name, weight in model.named_parameters()}
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert moved["head.weight"] > 0
    assert (moved["embed.0.weight"] == 0) == (trunk_lr == 0)
    assert rates == pytest.approx({None: [0.1], 0.0: [0.1], 0.1: [0.1, 0.01]}[trunk_lr])


def test_a_run_starts_from_the_checkpoint_of_another(tmp_path: Path, crc_run: Path) -> None:
    source = next(crc_run.rglob("checkpoint"))
    words = [
        *(word for word in TINY if word != "split.folds=2"),
        "split=holdout",
        "trainer.max_epochs=1",
        "baseline=false",
    ]
    start = [f"model.pretrained={source}", "model.trunk_lr=0"]
    run = run_quietly("train", *words, *start, f"hydra.run.dir={tmp_path / 'run'}")
    trunk, fresh = (checkpoint.load(folder).model.state_dict() for folder in (source, run / "checkpoint"))
    assert all(torch.equal(trunk[name], fresh[name]) for name in trunk if not name.startswith("head"))
    assert not torch.equal(trunk["head.weight"], fresh["head.weight"])
    assert "pretrained" not in checkpoint.load(run / "checkpoint").manifest.model.options


def test_a_factor_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.trunk_lr=2, expected null or a number from 0 to 1"):
        compose(["model=abmil", "model.trunk_lr=2"])

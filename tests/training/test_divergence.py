"""A loss that is not finite stops training at its step and keeps what was good; options that cannot be are refused."""

import os
import re
from pathlib import Path

import pytest
import torch

from mil.errors import ConfigError
from mil.study.compose import compose
from mil.training import saved_state
from mil.training.module import MILModule
from tests.conftest import HOSPITAL, TINY, Mil

CORES = len(os.sched_getaffinity(0))
WORDS = [*(word for word in TINY if word != "split.folds=2"), "split=holdout", "baseline=false", "callbacks=none"]


def test_a_loss_that_is_not_finite_names_the_bags_and_keeps_the_last_good_weights(
    mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, batches = MILModule.optimizer_step, list[int]()

    def poison(self: MILModule, *arguments: object, **named: object) -> None:
        original(self, *arguments, **named)  # type: ignore[arg-type]  # Lightning's own arguments, passed on
        if self.current_epoch == 1 and not batches:
            batches.append(self.global_step + 1)  # Lightning counts the step afterwards
            with torch.no_grad():
                next(self.parameters()).fill_(torch.nan)

    monkeypatch.setattr(MILModule, "optimizer_step", poison)
    said = mil("train", *WORDS, "trainer.max_epochs=5", f"hydra.run.dir={tmp_path}/run")
    assert said.code == 2
    line = said.err.splitlines()[-1]
    where = f"in epoch 2, step {batches[0] + 1}, for the bags 'P"
    assert line.startswith(f"mil: fold 0: the loss is not finite (nan) {where}")
    state = saved_state.latest(tmp_path / "run")
    assert state is not None
    assert line.endswith(f"the weights after epoch 1 are kept in {state.path}")
    content = torch.load(state.path, weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in content["state_dict"].values())


@pytest.mark.parametrize("words", [["data.whole_cohort=true"], ["data.batch_bags=64"]])
def test_a_divergence_in_the_first_epoch_is_one_line(words: list[str], mil: Mil, tmp_path: Path) -> None:
    diverging = ["optimizer=sgd", "optimizer.lr=1e38", "trainer.gradient_clip_val=null", "trainer.max_epochs=3"]
    said = mil("train", *WORDS, *words, *diverging, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 2
    assert "the loss is not finite" in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.devices=64", "data.batch_bags=64"], f"trainer.devices=64: this machine has {CORES} core"),
        (["trainer.devices=-1"], "trainer.devices=-1, expected a number of devices such as 2"),
        (["trainer.devices=[0,0]"], "trainer.devices=[0, 0], expected a number of devices such as 2"),
        (["trainer.devices=[0,1]"], "trainer.devices=[0,1]: this machine has no GPU, expected a number of processes"),
        (["trainer.devices=2", "parallel=2"], "trainer.devices=2 with parallel=2: expected one of them"),
        (["trainer.devices=2", "data.batch_bags=1"], "trainer.devices=2 with data.batch_bags=1: the bags of a batch"),
        (["trainer.devices=2", "+trainer.limit_val_batches=1"], "trainer.devices=2 with trainer.limit_val_batches=1:"),
        (["trainer.num_nodes=2"], "trainer.num_nodes=2, expected auto or 1"),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp, expected auto or ddp"),
        (["trainer.precision=bf16-true"], "trainer.precision=bf16-true, expected auto or 32-true"),
        (["trainer.precision=64-true"], "trainer.precision=64-true, expected auto or 32-true"),
        (["schedule.floor=nan"], "schedule.floor=nan, expected a number"),
        (["schedule.warmup=-1"], "schedule.warmup=-1, expected a number from 0 to 1"),
        (["model.dropout=nan"], "model.dropout=nan, expected a number"),
        (["seed=4294967296"], "seed=4294967296, expected a whole number up to 4294967295"),
        (["callbacks.early_stopping.monitor=val_loss"], "callbacks.early_stopping.monitor=val_loss is not logged"),
        (["+trainer.limit_val_batches=0"], "trainer.limit_val_batches=0: callbacks.early_stopping.monitor=select_loss"),
        (["+trainer.limit_train_batches=0"], "trainer.limit_train_batches=0, expected a fraction up to 1.0"),
        (["optimizer.betas=[0.9]"], "torch.optim.Adam: list index out of range; found optimizer."),
        (["+trainer.min_epochs=9"], "trainer.min_epochs=9 with trainer.max_epochs=2, expected at most 2"),
        (["+trainer.check_val_every_n_epoch=9"], "trainer.check_val_every_n_epoch=9 with trainer.max_epochs=2"),
    ],
)
@pytest.mark.parametrize("command", ["train", "check"])
def test_options_that_cannot_work_are_refused_before_any_work(
    command: str, words: list[str], message: str, mil: Mil, hospital: Path, tmp_path: Path
) -> None:
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features", "split=holdout"]
    run = [f"hydra.run.dir={tmp_path}/run"] if command == "train" else []
    said = mil(command, *HOSPITAL, *given, *words, *run)
    assert said.code == 2
    assert message in said.err + said.out
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("+trainer.limit_train_batches=2.5", "a fraction up to 1.0, or a number of batches"),
        ("+trainer.max_steps=0", "a number of steps, or -1 for no limit"),
        ("+trainer.check_val_every_n_epoch=0", "a whole number of at least 1"),
        ("+trainer.val_check_interval=0", "null or a fraction of an epoch up to 1.0"),
        ("+trainer.fast_dev_run=true", "false: for a short trial, experiment=quick"),
        ("+trainer.overfit_batches=1", "false: for a short trial, experiment=quick"),
        ("trainer.log_every_n_steps=-3", "a whole number of at least 0"),
        ("callbacks.early_stopping.patience=-1", "a whole number of at least 0"),
        ("callbacks.early_stopping.patience=2.5", "a whole number"),
        ("data.workers=100000", "a whole number up to 1024"),
        ("resamples=1000000000", "a whole number up to 1000000"),
    ],
)
def test_options_with_which_nothing_would_be_learnt_are_refused(word: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{word.lstrip('+')}, expected {expected}")):
        compose([word])


def test_the_largest_seed_works(mil: Mil, hospital: Path, tmp_path: Path) -> None:
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features", "split=holdout"]
    said = mil("train", *HOSPITAL, *given, "baseline=false", "seed=4294967295", f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err

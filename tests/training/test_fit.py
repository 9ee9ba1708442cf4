"""A fold's checkpoint holds the weights of the best epoch, and only training bags are subsampled."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mil import checkpoint
from mil.features.batches import Draw
from mil.layers.kmeans import kmeans
from mil.models.panther import Panther
from mil.study.compose import compose
from mil.study.pipeline import read_study, split_study
from mil.training.fold import cut
from mil.training.train import train
from tests.conftest import TINY

HOLDOUT = [*(word for word in TINY if word != "split.folds=2"), "split=holdout", "baseline=false"]


def settings_of(*words: str) -> Any:
    return compose([*HOLDOUT, *words])


def test_checkpoint_holds_the_weights_of_the_lowest_select_loss(tmp_path: Path) -> None:
    too_fast = ["optimizer.lr=0.1", "trainer.max_epochs=5", "trainer.precision=32-true", "callbacks=none"]
    settings = settings_of(*too_fast, "split.select=0.3", "selection.best_epochs=1")
    study = read_study(settings)
    train(settings, study, split_study(settings, study), tmp_path)
    epochs = (
        pd.read_csv(tmp_path / "log" / "version_0" / "metrics.csv").groupby("epoch")["select_loss"].max().to_numpy()
    )
    loaded = checkpoint.load(tmp_path / "checkpoint")
    predictions = pd.read_csv(tmp_path / "predictions.csv", dtype={"patient": str})
    select = predictions[predictions["role"] == "select"].set_index("patient")
    loss = float(loaded.endpoint.loss(loaded.endpoint.recode(select), loaded.endpoint.encode(select)))
    assert loss == pytest.approx(epochs.min(), abs=1e-5)
    assert epochs[-1] > epochs.min() + 1e-3
    assert epochs[0] > epochs.min() + 1e-3
    assert loaded.manifest.training.best_epoch == epochs.argmin() + 1


def test_max_tiles_limits_training_bags_only(tmp_path: Path) -> None:
    settings = settings_of("data.max_tiles=5")
    study = read_study(settings)
    fold = cut(settings, study, split_study(settings, study), 0, tmp_path)
    for role, bags in fold.data.items():
        draws = [Draw(number, epoch=0) for number in range(len(bags))]
        assert min(bags.sizes) > 5
        assert bags[draws].bags.sizes == (tuple([5] * len(bags)) if role == "train" else tuple(bags.sizes))


def test_prototypes_are_fitted_to_training_patients_and_stored_with_the_weights(tmp_path: Path) -> None:
    words = [word for word in HOLDOUT if not word.startswith("model")]
    settings = compose([*words, "model=panther", "model.prototypes=3", "trainer.max_epochs=1"])
    study = read_study(settings)
    split = split_study(settings, study)
    train(settings, study, split, tmp_path)
    loaded = checkpoint.load(tmp_path / "checkpoint").model
    assert isinstance(loaded, Panther)
    fold = cut(settings, study, split, 0, tmp_path)
    tiles = torch.cat([fold.data["train"][[Draw(bag)]].bags.features.float() for bag in range(len(fold.data["train"]))])
    assert len(tiles) < Panther.tiles_to_fit
    torch.testing.assert_close(loaded.prototypes, kmeans(tiles, 3), rtol=0, atol=1e-4)

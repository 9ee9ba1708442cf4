"""Features that fit into `data.memory` are read once per run, which does not change what is learnt."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mil.features import formats
from mil.features.formats import Slide
from mil.study.compose import compose
from mil.study.pipeline import read_study, split_study
from mil.study.study import Study
from mil.training.train import train
from tests.conftest import TINY

Read = Callable[..., Slide]
WORDS = [word for word in TINY if word not in ("split.folds=2", "data.workers=0")]
ALL_TRAIN = ["split=none", "baseline=false"]


def train_in(folder: Path, *words: str) -> Study:
    settings: Any = compose([*WORDS, *words])
    study = read_study(settings)
    train(settings, study, split_study(settings, study), folder)
    return study


def test_each_file_is_read_once_without_changing_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Read = formats.read
    times: Counter[str] = Counter()

    def counted(path: Path, *rest: object) -> Slide:
        times[path.name] += 1
        return read(path, *rest)

    monkeypatch.setattr(formats, "read", counted)
    slides = len(train_in(tmp_path / "kept", "split.folds=2").store)
    assert sorted(times.values()) == [1] * (slides - 1) + [2], "one of each layout is opened before training begins"
    times.clear()
    train_in(tmp_path / "anew", "split.folds=2", "data.memory=0")
    assert min(times.values()) > 2
    for name in ("predictions.csv", "baseline.csv", "fold_0/checkpoint/weights.safetensors"):
        assert (tmp_path / "kept" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()


def test_features_are_not_kept_with_worker_processes(tmp_path: Path) -> None:
    assert not train_in(tmp_path, "data.workers=1", *ALL_TRAIN).store.keeps


def test_cohort_larger_than_memory_is_logged_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mil.training.train.GIB", 1000)
    with caplog.at_level(logging.INFO, logger="mil"):
        study = train_in(tmp_path, "data.memory=2", *ALL_TRAIN)
    assert not study.store.keeps
    message = f"features of {len(study.cohort.table)} slides are larger than data.memory=2 GiB: read anew each epoch"
    assert message in caplog.messages

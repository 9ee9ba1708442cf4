"""Features that fit into `data.memory` are read once a run; what is learnt from them is the same."""

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


def trained(folder: Path, *words: str) -> Study:
    settings: Any = compose([*WORDS, *words])
    study = read_study(settings)
    train(settings, study, split_study(settings, study), folder)
    return study


def test_a_run_reads_each_file_once_and_learns_what_it_learnt_from_files_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Read = formats.read
    times: Counter[str] = Counter()

    def counted(path: Path, *rest: object) -> Slide:
        times[path.name] += 1
        return read(path, *rest)

    monkeypatch.setattr(formats, "read", counted)
    slides = len(trained(tmp_path / "kept", "split.folds=2").store)
    assert sorted(times.values()) == [1] * slides
    times.clear()
    trained(tmp_path / "anew", "split.folds=2", "data.memory=0")
    assert min(times.values()) > 2
    for name in ("predictions.csv", "baseline.csv", "fold_0/checkpoint/weights.safetensors"):
        assert (tmp_path / "kept" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()


def test_processes_that_read_ahead_were_asked_for_and_keep_nothing(tmp_path: Path) -> None:
    assert not trained(tmp_path, "data.workers=1", *ALL_TRAIN).store.keeps


def test_a_cohort_that_does_not_fit_is_told_of_and_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mil.training.train.GIB", 1000)
    with caplog.at_level(logging.INFO, logger="mil"):
        study = trained(tmp_path, "data.memory=2", *ALL_TRAIN)
    assert not study.store.keeps
    told = f"features of {len(study.cohort.table)} slides are larger than data.memory=2 GiB: read anew each epoch"
    assert told in caplog.messages

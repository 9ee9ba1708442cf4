"""Headers of many files, read by several processes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mil.errors import ConfigError, FeatureError
from mil.features.formats import DETECTED, Reading, examine, formats
from mil.features.survey import survey

Write = Callable[..., Path]


@pytest.fixture
def paths(tmp_path: Path, trident: Write) -> dict[str, Path]:
    """Return seventy slides, one of which is not HDF5."""
    first = trident(tmp_path / "s00.h5")
    slides = {f"s{number:02d}": tmp_path / f"s{number:02d}.h5" for number in range(70)}
    for path in slides.values():
        if path != first:
            shutil.copy(first, path)
    slides["s33"].write_text("no")
    return slides


@pytest.mark.parametrize("workers", [1, 2])
def test_several_processes_give_the_results_of_one(paths: dict[str, Path], workers: int) -> None:
    counts: list[tuple[int, int]] = []
    results = survey(paths, DETECTED, workers, lambda done, of: counts.append((done, of)))
    assert list(results) == list(paths)
    assert counts[-1] == (70, 70)
    assert counts == sorted(counts)
    for slide, path in paths.items():
        result = results[slide]
        if slide == "s33":
            assert isinstance(result, FeatureError)
            assert str(path) in str(result)
        else:
            assert result == examine(path)


@pytest.mark.parametrize("workers", [1, 2])
def test_unknown_layout_is_a_configuration_error(paths: dict[str, Path], workers: int) -> None:
    with pytest.raises(ConfigError, match="layout=nope"):
        survey(paths, Reading(layout="nope"), workers)


def test_file_that_kills_its_reader_is_named(paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    header = formats()["trident"].header
    monkeypatch.setattr(
        formats()["trident"],
        "header",
        lambda path, *rest: os._exit(1) if path.stem == "s50" else header(path, *rest),
    )
    results = survey(paths, DETECTED)
    wrong = {slide: str(result) for slide, result in results.items() if isinstance(result, FeatureError)}
    assert set(wrong) == {"s33", "s50"}
    assert "the process that reads it dies" in wrong["s50"]


def test_survey_of_no_files_is_empty() -> None:
    assert survey({}, DETECTED) == {}

"""Features and tables wherever they lie: odd names, links, nested folders, mounts that cannot be written."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import HOSPITAL, Mil

HOLDOUT = [*HOSPITAL, "split=holdout"]
Place = Callable[[Path, Path], Path]


def odd(features: Path, folder: Path) -> Path:
    return shutil.copytree(features, folder / 'it\'s a=b, "ü" [1] {x}')


def linked(features: Path, folder: Path) -> Path:
    (folder / "links").mkdir()
    for path in features.iterdir():
        (folder / "links" / path.name).symlink_to(path)
    (folder / "link to links").symlink_to(folder / "links")
    return folder / "link to links"


def nested(features: Path, folder: Path) -> Path:
    for number, path in enumerate(sorted(features.glob("*.h5"))):
        (folder / "nested" / f"batch {number % 3}" / "h5").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "nested" / f"batch {number % 3}" / "h5")
    return folder / "nested"


def read_only(features: Path, folder: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("root writes where nobody may")
    copy = shutil.copytree(features, folder / "read-only")
    for path in (*copy.iterdir(), copy):
        path.chmod(0o555)
    return copy


@pytest.mark.parametrize("place", [odd, linked, nested, read_only])
def test_features_are_found_checked_and_converted_wherever_they_lie(
    place: Place, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    at = place(hospital / "features", tmp_path)
    packed = tmp_path / "in ü" / "a=b, c.h5"
    converted = mil("convert", at, packed)
    assert converted.code == 0, converted.err
    assert converted.out.splitlines()[-1] == str(packed)
    cohort = tmp_path / "x=1, 'y'.csv"
    shutil.copy(hospital / "cohort.csv", cohort)
    told = []
    for features in (at, packed):
        said = mil("check", *HOLDOUT, f"data.cohort={cohort}", f"data.features={features}", "--deep", "--json")
        assert (said.code, said.err) == (0, "")
        told.append(json.loads(said.out))
        assert (told[-1]["cohort"], told[-1]["features"]) == (str(cohort), str(features))
    assert told[0] | {"features": ""} == told[1] | {"features": ""}


def test_a_slide_that_lies_in_two_folders_is_an_error_that_names_both(hospital: Path, mil: Mil, tmp_path: Path) -> None:
    copy, slide = shutil.copytree(hospital, tmp_path / "site"), "P0003-1"
    (copy / "features" / "again").mkdir()
    shutil.copy(copy / "features" / f"{slide}.h5", copy / "features" / "again")
    for words in (
        ["check", *HOLDOUT, f"data.cohort={copy}/cohort.csv", f"data.features={copy}/features"],
        ["convert", copy / "features", copy / "packed.h5"],
    ):
        said = mil(*words)
        assert said.code == 2
        assert f"slide '{slide}' is there twice" in said.err
        assert f"again/{slide}.h5" in said.err
    assert not (copy / "packed.h5").exists()


def test_commands_write_neither_over_inputs_nor_over_runs_and_checkpoints(
    real_run: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    run, site = shutil.copytree(real_run, tmp_path / "run"), shutil.copytree(hospital, tmp_path / "site")
    checkpoint, features, table = run / "checkpoint", site / "features", site / "cohort.csv"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.csv").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    inputs: list[str | Path] = ["--features", features, "--cohort", table]
    scores: list[str | Path] = ["predict", checkpoint, *inputs, "--out", tmp_path / "scores.csv", "--tiles"]
    refused: list[tuple[list[str | Path], str]] = [
        (["convert", features, table], "is there already"),
        (["convert", features, features], "which is read"),
        (["convert", features, next(features.glob("*.h5"))], "which is read"),
        (["convert", features, tmp_path / "mine"], "is no file"),
        (["calibrate", checkpoint, *inputs, "--out", checkpoint], "which is read"),
        (["calibrate", checkpoint, *inputs, "--out", run], "holds a run"),
        (["simulate", run], "holds a run"),
        (["simulate", checkpoint], "belongs to the run"),
        ([*scores, features], f"--tiles {features}: is {features}, which is read"),
        ([*scores, run], "holds a run"),
        ([*scores, checkpoint], "which is read"),
        ([*scores, tmp_path / "mine"], "is there already"),
        (["release", run, "--version", "1.0.0", "--out", run], "which is read"),
        (["release", run, "--version", "1.0.0", "--out", checkpoint], "belongs to the run"),
        (["release", run, "--version", "1.0.0", "--out", table], "is there already"),
        (["explain", checkpoint, "--features", features, "--out", run], "holds a run"),
        (["explain", checkpoint, "--features", features, "--out", features], "which is read"),
        (["explain", run, "--out", run], "which is read"),
        (["explain", run, "--out", tmp_path / "mine"], "is there already"),
    ]
    for words, reason in refused:
        answer = mil(*words)
        assert (answer.code, answer.out) == (2, ""), words
        assert reason in answer.err, (words, answer.err)
        assert len(answer.err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_packed_file_is_written_through_a_link(hospital: Path, mil: Mil, tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to("real.h5")
    answer = mil("convert", hospital / "features", tmp_path / "link.h5")
    assert answer.code == 0, answer.err
    assert (tmp_path / "link.h5").is_symlink()
    assert (tmp_path / "real.h5").is_file()

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

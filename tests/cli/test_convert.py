"""`mil convert` as a user types it."""

import re
from pathlib import Path

import numpy as np
import pytest

from mil.features.packed import Packed
from mil.features.store import FeatureStore
from tests.conftest import HOSPITAL, Mil
from tests.features.conftest import random_features, write_clam, write_mussel, write_stamp, write_trident


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three slides of float32, 600 tiles each."""
    for number in range(3):
        write_clam(tmp_path / "in" / f"{number}.h5", random_features(600, 64, "float32") + number)
    return tmp_path / "in"


def refusal(mil: Mil, *words: str | Path) -> str:
    said = mil("convert", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("mil: ")
    assert said.err.count("\n") == 1
    return said.err


def test_it_says_how_much_there_is_and_prints_the_file_last(folder: Path, tmp_path: Path, mil: Mil) -> None:
    said = mil("convert", folder, tmp_path / "all.h5")
    assert (said.code, said.err) == (0, "")
    first, second, *understood, last = said.out.splitlines()
    assert first == "3 slides, 1800 tiles, each read back and compared"
    before, after = sum(path.stat().st_size for path in folder.iterdir()), (tmp_path / "all.h5").stat().st_size
    assert re.fullmatch(
        rf"{before / 1000:.3g} kB before, {after / 1000:.3g} kB now: \d+% (smaller|larger); opens in \d+ ms", second
    )
    assert understood == [
        "producer: CLAM",
        "encoder: not stated, 64 wide",
        "resolution: not stated",
        "tile: not stated",
        "extent: not stated",
        "positions: level-0 coordinates",
    ]
    assert last == str(tmp_path / "all.h5")
    assert FeatureStore(Path(last)).slides == ["0", "1", "2"]


def test_half_the_bits_are_half_the_size_and_what_that_costs_is_said(folder: Path, tmp_path: Path, mil: Mil) -> None:
    lines = mil("convert", folder, tmp_path / "all.h5", "--dtype", "float16").out.splitlines()
    smaller = re.search(r"(\d+)% smaller", lines[1])
    assert smaller is not None
    assert 45 < int(smaller[1]) < 55
    rounded = re.fullmatch(r"values were rounded to float16, by at most (\S+)", lines[2])
    assert rounded is not None
    assert 0 < float(rounded[1]) < 0.01


def test_a_packed_file_may_be_larger(tmp_path: Path, mil: Mil) -> None:
    write_mussel(tmp_path / "in" / "a.h5", np.zeros((5000, 16), "f4"))
    assert "% larger" in mil("convert", tmp_path / "in", tmp_path / "a.h5").out


def test_what_is_there_is_refused_and_left_as_it_is(folder: Path, tmp_path: Path, mil: Mil) -> None:
    (tmp_path / "all.h5").write_text("mine")
    assert f"{tmp_path / 'all.h5'}: is there already, expected a new file" in refusal(mil, folder, tmp_path / "all.h5")
    assert (tmp_path / "all.h5").read_text() == "mine"


def test_unreadable_slides_are_refused_or_left_out_and_counted(folder: Path, tmp_path: Path, mil: Mil) -> None:
    (folder / "1.h5").write_bytes(b"nothing")
    assert "1 of 3 slides cannot be read: '1'; " in refusal(mil, folder, tmp_path / "all.h5")
    assert not list(tmp_path.glob("all.h5*"))
    said = mil("convert", folder, tmp_path / "all.h5", "--skip-bad")
    assert said.code == 0
    assert said.out.startswith("2 slides, 1200 tiles")
    first, second = said.err.splitlines()
    assert first.startswith("skipped: ")
    assert "1.h5 cannot be read as HDF5" in first
    assert second == "skipped: 1 of 3 slides, which cannot be used"
    assert mil("convert", folder, tmp_path / "same.h5", "--on-bad", "skip").err == said.err
    assert Packed(tmp_path / "all.h5").slides == ["0", "2"]


def test_what_files_leave_open_may_be_said(tmp_path: Path, mil: Mil) -> None:
    write_stamp(tmp_path / "stamp" / "a.h5")
    assert mil("convert", tmp_path / "stamp", tmp_path / "a.h5").code == 0
    assert not Packed(tmp_path / "a.h5").header("a").has_coords
    assert mil("convert", tmp_path / "stamp", tmp_path / "b.h5", "--slide-mpp", "0.25").code == 0
    assert Packed(tmp_path / "b.h5").header("a").extent == 1024
    write_clam(tmp_path / "batch" / "a.h5", np.ones((1, 5, 8), "f4"), np.ones((1, 5, 2)))
    assert "data.batch_axis=true" in refusal(mil, tmp_path / "batch", tmp_path / "c.h5")
    assert mil("convert", tmp_path / "batch", tmp_path / "c.h5", "--batch-axis").code == 0
    assert "is not of data.layout=stamp" in refusal(mil, tmp_path / "batch", tmp_path / "d.h5", "--layout", "stamp")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--dtype", "int8"], "dtype is 'int8', expected float16, float32, bfloat16"),
        (["--layout", "clamm"], "data.layout=clamm, expected one of"),
        (["--slide-mpp", "0"], "--slide-mpp is 0, expected"),
        (["--slide-mpp", "nan"], "--slide-mpp is nan, expected"),
    ],
)
def test_an_option_that_cannot_be_is_refused(
    folder: Path, tmp_path: Path, mil: Mil, words: list[str], reason: str
) -> None:
    assert reason in refusal(mil, folder, tmp_path / "all.h5", *words)
    assert not list(tmp_path.glob("all.h5*"))


def test_nothing_to_read_is_refused(tmp_path: Path, mil: Mil) -> None:
    assert "is no folder" in refusal(mil, tmp_path / "absent", tmp_path / "all.h5")
    (tmp_path / "empty").mkdir()
    assert "holds no feature files" in refusal(mil, tmp_path / "empty", tmp_path / "all.h5")


def test_a_conversion_goes_on_where_it_was_interrupted_and_says_so(
    folder: Path, tmp_path: Path, mil: Mil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by a slide that cannot be read for a while, as on a network's disk."""
    original = FeatureStore.read

    def failing(self: FeatureStore, slide: str, check: bool = True) -> object:
        if slide == "2":
            raise OSError(5, "Input/output error", str(folder / "2.h5"))
        return original(self, slide, check)

    with monkeypatch.context() as patch:
        patch.setattr("mil.features.packing._SYNC_BYTES", 1)
        patch.setattr(FeatureStore, "read", failing)
        assert "2.h5: Input/output error" in refusal(mil, folder, tmp_path / "all.h5")
    lines = mil("convert", folder, tmp_path / "all.h5").out.splitlines()
    assert lines[2] == "2 slides were kept from an interrupted conversion"


def test_a_packed_file_takes_the_folders_place_in_a_check(hospital: Path, tmp_path: Path, mil: Mil) -> None:
    packed = tmp_path / "it's, all=1.h5"
    assert mil("convert", hospital / "features", packed).code == 0
    told = [
        mil("check", *HOSPITAL, "split=holdout", f"data.cohort={hospital}/cohort.csv", f"data.features={features}")
        for features in (hospital / "features", packed)
    ]
    assert told[0].code == told[1].code == 0
    assert told[1].out.replace(str(packed), "") == told[0].out.replace(str(hospital / "features"), "")


def test_a_producers_own_file_in_the_folders_place_is_refused(hospital: Path, tmp_path: Path, mil: Mil) -> None:
    path = write_trident(tmp_path / "a.h5")
    said = mil("check", *HOSPITAL, f"data.cohort={hospital}/cohort.csv", f"data.features={path}")
    assert said.code == 2
    assert f"{path}: it is no packed cohort (no attribute 'mil_packed'), expected one of mil convert" in said.err

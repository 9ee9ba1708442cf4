"""Inputs as hospitals have them and no trainer expects: what is refused, in which words, and what is taken.

Numbers are those of the project's list of thirty. Others of them are tested where they belong: labels, splits, missing
files and unusable slides in `test_real_files.py`, options in `test_train.py`, checkpoints in `tests/test_checkpoint.py`
and beside it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from mil.report.prediction_files import read
from tests.conftest import HOSPITAL, Mil
from tests.features.conftest import grid, random_features, write_trident

HOLDOUT = [*HOSPITAL, "split=holdout"]
ONE = "P0000-1"


@pytest.fixture
def site(hospital: Path, tmp_path: Path) -> Path:
    """The cohort's own copy, to be spoilt."""
    return shutil.copytree(hospital, tmp_path / "site")


def given(folder: Path) -> list[str]:
    return [f"data.cohort={folder}/cohort.csv", f"data.features={folder}/features"]


def slide(site: Path, name: str = ONE) -> Path:
    return site / "features" / f"{name}.h5"


def written(features: object, name: str = ONE, **named: object) -> Callable[[Path], None]:
    """A change of one slide's features, with or without coordinates to fit."""

    def write(site: Path) -> None:
        with h5py.File(slide(site, name), "w") as file:
            file["features"] = features
            file["features"].attrs["encoder"] = "simulated"
            for key, values in named.items():
                file[key] = values

    return write


def truncated(site: Path) -> None:
    whole = slide(site).read_bytes()
    slide(site).write_bytes(whole[: len(whole) // 2])


def other_key(site: Path) -> None:
    with h5py.File(slide(site), "w") as file:
        file["embeddings"], file["places"] = random_features(5, 16), grid(5)


def empty_hdf5(site: Path) -> None:
    h5py.File(slide(site), "w").close()


MATRIX = random_features(6, 16)
REFUSED: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "1 empty HDF5": (empty_hdf5, ["holds nothing"]),
    "1 zero bytes": (lambda site: slide(site).write_bytes(b""), ["cannot be read as HDF5"]),
    "2 truncated HDF5": (truncated, ["cannot be read as HDF5", "truncated"]),
    "3 text named .h5": (lambda site: slide(site).write_text("Übersicht\n"), ["cannot be read as HDF5"]),
    "4 another key": (other_key, ["'embeddings', 'places'", "expected 'features'"]),
    "7 three axes": (written(MATRIX.reshape(2, 3, 16)), ["(2, 3, 16)", "expected (tiles, width)"]),
    "7 a batch axis": (written(MATRIX[None]), ["(1, 6, 16)", "data.batch_axis=true accepts"]),
    "13 integers": (written(MATRIX.astype("int16")), ["int16", "expected float16, float32 or bfloat16"]),
    "14 coordinates of another length": (written(MATRIX, coords=grid(5)), ["'coords'", "(5, 2)", "(6, 2) for 6 tiles"]),
}


def test_a_single_row_is_the_vector_of_a_slide_which_is_not_mixed_with_tiles(site: Path, mil: Mil) -> None:
    written(MATRIX[0])(site)
    said = mil("check", *HOLDOUT, *given(site), f"hydra.run.dir={site}/new/run")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "are of 'slide' (1, e.g. slide 'P0000-1') and 'tile'" in said.err


@pytest.mark.parametrize(
    ("verb", "case"),
    [*(("check", case) for case in REFUSED), ("train", "2 truncated HDF5"), ("train", "4 another key")],
)
def test_a_file_that_cannot_be_read_is_refused_by_name_and_nothing_is_written(
    verb: str, case: str, site: Path, mil: Mil
) -> None:
    spoil, words = REFUSED[case]
    spoil(site)
    said = mil(verb, *HOLDOUT, *given(site), f"hydra.run.dir={site}/new/run")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"mil: {slide(site)}")
    assert all(word in said.err for word in words), said.err
    assert not (site / "new").exists()


@pytest.mark.parametrize(
    ("features", "words", "warned"),
    [
        (MATRIX[None], ["data.batch_axis=true"], None),
        (MATRIX.astype("float64"), [], "1 of 34 slides hold float64 features, read as float32"),
        (MATRIX[:1], [], None),
    ],
    ids=["7 a batch axis that was told of", "13 float64", "6 one tile"],
)
def test_a_file_that_is_odd_but_plain_is_taken(
    features: object, words: list[str], warned: str | None, site: Path, mil: Mil
) -> None:
    written(features)(site)
    for path in (site / "features").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            file.pop("coords", None)
    said = mil("check", *HOLDOUT, *given(site), *words, "--deep")
    assert (said.code, said.err) == (int(warned is not None), "")
    assert (warned or "nothing is wrong") in said.out


def extreme(site: Path) -> None:
    """6 one tile, 10 zeros only, 11 one tile throughout, 12 the largest halves."""
    most = np.tile(np.array([65504, -65504] * 8, "float16"), (7, 1))
    slides = [MATRIX[:1], np.zeros((9, 16), "float16"), np.tile(MATRIX[:1], (9, 1)), most]
    for number, features in enumerate(slides):
        write_trident(slide(site, f"P{number:04d}-1"), features, encoder="simulated")


@pytest.mark.parametrize("tool", ["msi-crc", "survival"])
def test_extreme_slides_and_tied_times_give_finite_predictions(tool: str, site: Path, mil: Mil) -> None:
    extreme(site)
    written(random_features(200_000, 16), "P0005-1", coords=grid(200_000))(site)  # 15 very many tiles
    table = pd.read_csv(site / "cohort.csv", dtype=str)
    order = table.groupby("patient", sort=False).ngroup()
    table.assign(time="12", event=(order % 2).astype(str)).to_csv(site / "cohort.csv", index=False)  # 24 all times tied
    words = [*HOLDOUT, *given(site), f"tool={tool}", "baseline=false", "trainer.max_epochs=1"]
    said = mil("train", *words, "trainer.gradient_clip_val=1", f"hydra.run.dir={site}/run")
    assert said.code == 0, said.err
    scores = read(site / "run" / "predictions.csv").drop(
        columns=["patient", "fold", "role", "MSI", "time", "event"], errors="ignore"
    )
    assert np.isfinite(scores.to_numpy(np.float64)).all()


def test_slides_that_teach_nothing_are_warned_of(site: Path, mil: Mil) -> None:
    extreme(site)
    said = mil("check", *HOLDOUT, *given(site), "--deep")
    assert said.code == 1
    zero, constant = (line for line in said.out.splitlines() if line.startswith("warning: "))
    assert zero.startswith("warning: 9 of ")
    assert "in 1 of 34 slides, have zeros only" in zero
    assert constant.startswith("warning: 3 of 34 slides have one and the same tile")


@pytest.mark.parametrize(
    ("side", "code"), [("test", 2), ("train", 1)], ids=["18 a copy on the other side", "a copy on the same side"]
)
def test_a_copy_of_a_slide_under_another_id_is_found_by_its_content(side: str, code: int, site: Path, mil: Mil) -> None:
    table = pd.read_csv(site / "cohort.csv", dtype=str)
    own, other = table.loc[~table["patient"].duplicated(keep=False), "slide"].iloc[:2]
    shutil.copy(slide(site, own), slide(site, other))
    order = table.groupby("patient", sort=False).ngroup()
    sides = order.map(lambda place: ("train", "train", "val", "test")[place % 4])
    sides = sides.mask(table["slide"] == own, "train").mask(table["slide"] == other, side)
    table.assign(side=sides).to_csv(site / "cohort.csv", index=False)
    said = mil("check", *HOSPITAL, "split=fixed", "split.column=side", *given(site), "--deep")
    assert said.code == code
    assert ("stand on two sides of the split" in said.err) == (code == 2)
    assert f"    {own} = {other}" in said.out


@pytest.mark.parametrize(
    ("time", "event", "said"),
    [("soon", "1", "column time"), ("12", "perhaps", "column event"), ("inf", "1", "column time")],
    ids=["22 a time in words", "22 an event in words", "22 no finite time"],
)
def test_a_follow_up_that_is_none_is_refused(time: str, event: str, said: str, site: Path, mil: Mil) -> None:
    table = pd.read_csv(site / "cohort.csv", dtype=str)
    order = table.groupby("patient", sort=False).ngroup()
    table = table.assign(time=(order + 1).astype(str), event=(order % 2).astype(str))
    table.loc[order == 3, ["time", "event"]] = [time, event]
    table.to_csv(site / "cohort.csv", index=False)
    found = mil("check", *HOLDOUT, *given(site), "tool=survival")
    assert found.code == 2
    assert said in found.err
    assert repr(time if said.endswith("time") else event) in found.err


def test_a_table_as_excel_saves_it_keeps_its_ids(site: Path, mil: Mil) -> None:
    """26: a byte order mark, semicolons, CRLF, blanks, and ids that look like numbers."""
    table = pd.read_csv(site / "cohort.csv", dtype=str)
    names = dict(zip(table["patient"].unique(), ("001", "1E5", "2.0"), strict=False))
    rows = [
        ";".join((f" {names.get(row.patient, row.patient)} ", f"{row.slide} ", f" {row.MSI}"))
        for row in table.itertuples()
    ]
    text = "\r\n".join(["patient ;slide; MSI", *rows, "", ""])
    (site / "cohort.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    said = mil("check", *HOLDOUT, *given(site))
    assert (said.code, said.err) == (0, "")
    run = mil("train", *HOLDOUT, *given(site), "baseline=false", "trainer.max_epochs=1", f"hydra.run.dir={site}/run")
    assert run.code == 0, run.err
    assert {"001", "1E5", "2.0"} <= set(read(site / "run" / "split.csv")["patient"])

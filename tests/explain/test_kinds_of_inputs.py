"""`mil explain` on runs and checkpoints whose tables and features are of each kind that `mil train` takes."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from mil import files
from tests.conftest import HOSPITAL, Mil, run_quietly

COVARIATES = "+tool.covariates={numeric: [age], categorical: {sex: [F, M]}, fusion: gated}"


@dataclass
class Kind:
    """A kind of inputs: words for `mil train`, and for `mil explain CHECKPOINT`."""

    words: list[str] = field(default_factory=list)
    features: Path | None = None
    explain: list[str] = field(default_factory=list)


def renamed(site: Path) -> Kind:
    """Ids under names that nobody would guess, in all tables."""
    for path in site.glob("*.csv"):
        table = pd.read_csv(path, dtype=str)
        table.rename(columns={"patient": "number", "slide": "glass"}).to_csv(path, index=False)
    return Kind(
        ["data.columns.patient=number", "data.columns.slide=glass"],
        explain=["--column", "patient=number", "--column", "slide=glass"],
    )


def in_words(site: Path) -> Kind:
    """A target in words of the hospital."""
    table = pd.read_csv(site / "cohort.csv", dtype=str)
    table.assign(MSI=table["MSI"].map({"MSI-H": "dMMR", "MSS": "pMMR"})).to_csv(site / "cohort.csv", index=False)
    return Kind(["+data.labels.MSI.dMMR=MSI-H", "+data.labels.MSI.pMMR=MSS"])


def table_of_slides(site: Path) -> Kind:
    """A row for each patient, and another table for the slides."""
    table = pd.read_csv(site / "cohort.csv", dtype=str)
    table[["patient", "slide"]].to_csv(site / "slides.csv", index=False)
    table.drop(columns="slide").drop_duplicates("patient").to_csv(site / "cohort.csv", index=False)
    return Kind([f"data.slides={site}/slides.csv"], explain=["--slides", f"{site}/slides.csv"])


def missing(site: Path) -> Kind:
    """A patient without a file, who is left out."""
    first = pd.read_csv(site / "cohort.csv", dtype=str).iloc[-1]
    next(path for path in (site / "features").rglob("*.h5") if path.stem == first["slide"]).unlink()
    return Kind(["data.on_missing=skip"], explain=["--on-bad", "skip"])


def packed(site: Path) -> Kind:
    """All features in one file."""
    place = site / "packed"
    run_quietly("convert", site / "features", place)
    shutil.rmtree(site / "features")
    return Kind(features=place)


def bags_of_slides(site: Path) -> Kind:
    """Every slide is a bag; some patients have several."""
    return Kind(["data.bag=slide"])


def covariates(site: Path) -> Kind:
    """A model that reads age and sex too."""
    return Kind([COVARIATES])


def together(site: Path, kinds: Sequence[Callable[[Path], Kind]]) -> Kind:
    """Kinds that change different inputs, one after the other, for one run."""
    joined = Kind()
    for make in kinds:
        kind = make(site)
        joined.words += kind.words
        joined.explain += kind.explain
        joined.features = kind.features or joined.features
    return joined


RUNS = ((table_of_slides, renamed, in_words), (missing, packed), (bags_of_slides, covariates))
"""Kinds that share a run: it takes seconds, and none of them touches what another one is about."""


@pytest.mark.parametrize("kinds", RUNS, ids=lambda kinds: "-".join(make.__name__ for make in kinds))
def test_a_run_and_its_checkpoint_give_the_same_maps(
    kinds: Sequence[Callable[[Path], Kind]], hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    site = shutil.copytree(hospital, tmp_path / "site")
    kind = together(site, kinds)
    cohort, features, run = site / "cohort.csv", kind.features or site / "features", tmp_path / "run"
    data = [f"data.cohort={cohort}", f"data.features={features}", "split=holdout", "baseline=false"]
    trained = mil("train", *HOSPITAL, *data, *kind.words, f"hydra.run.dir={run}")
    assert trained.code == 0, trained.err
    of_run = mil("explain", run, "--cases", "--measure", "2", "--format", "csv")
    assert of_run.code == 0, of_run.err
    reported = pd.read_csv(run / "predictions.csv", dtype={"patient": str}).query("role == 'report'")
    tiles = pd.read_csv(run / "explain" / "tiles.csv", dtype={"patient": str})
    assert set(tiles["patient"]) == set(reported["patient"])
    explained = files.read_json(run / "explain" / "explain.json")
    assert set(explained["patients"]) == set(reported["patient"])
    assert explained["faithfulness"]["maps"][0]["srg"]["counts"]["n"] == 2
    assert len(list((run / "explain" / "cases").glob("*.html"))) == len(reported) + 1
    words = ["explain", run / "checkpoint", "--features", features, "--cohort", cohort, *kind.explain]
    of_checkpoint = mil(*words, "--out", tmp_path / "out", "--format", "csv")
    assert of_checkpoint.code == 0, of_checkpoint.err
    again = pd.read_csv(tmp_path / "out" / "tiles.csv", dtype={"patient": str})
    both = again[again["patient"].isin(set(reported["patient"]))].reset_index(drop=True)
    key = ["patient", "slide", "x", "y"]
    both, tiles = (each.sort_values(key, ignore_index=True) for each in (both, tiles))
    pd.testing.assert_frame_equal(both[[*key, "single:MSI-H"]], tiles[[*key, "single:MSI-H"]])
    assert tiles.groupby("patient")["slide"].nunique().max() > 1, "a patient with several slides"

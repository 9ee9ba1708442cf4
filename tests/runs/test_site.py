"""The audit of a run: where sites stand, and what is said of them."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mil import files
from mil.report.prediction_files import read
from mil.runs.run import open_run
from mil.runs.site import _words, audit
from mil.study.compose import read_config, write_config


def told(value: float, low: float, high: float) -> dict[str, Any]:
    return {"n": 90, "sites": 3, "balanced_accuracy": {"value": value, "low": low, "high": high, "chance": 1 / 3}}


@pytest.mark.parametrize(
    ("embedding", "more", "said"),
    [
        ((0.4, 0.3, 0.5), (0.1, 0.02, 0.2), "no signature is shown: the bag embedding tells the site of 90 patients"),
        ((0.8, 0.7, 0.9), (0.4, 0.3, 0.5), "a signature is shown: the bag embedding tells the site of 90 patients"),
        ((0.5, 0.4, 0.6), (0.1, -0.1, 0.2), "the bag embedding tells the site of 90 patients"),
    ],
)
def test_words_weigh_the_embedding_against_chance_and_label(
    embedding: tuple[float, float, float], more: tuple[float, float, float], said: str
) -> None:
    found = _words(
        "embedding", {"label": told(0.4, 0.34, 0.46), "embedding": told(*embedding)}, {"embedding": told(*more)}
    )
    assert found.startswith(said)
    assert "chance 0.333" in found
    assert ("who comes to a site may explain it" in found) == (more[1] < 0)


def beside(run: Path, folder: Path, table: pd.DataFrame, predictions: pd.DataFrame) -> Path:
    """The run with other tables of patients; models do not know their names."""
    table.to_csv(folder / "cohort.csv", index=False)
    files.write(folder / "predictions.csv", predictions.to_csv(index=False))
    config = read_config(run / "config.yaml").replaced({"data.cohort": str(folder / "cohort.csv")})
    write_config(folder / "config.yaml", config)
    shutil.copytree(run / "checkpoint", folder / "checkpoint")
    return folder


def test_a_patient_without_a_site_is_left_out_and_a_fold_without_enough_says_so(
    real_run: Path, hospital: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(hospital / "cohort.csv", dtype=str)
    table.loc[table["patient"] == "P0000", "site"] = "unknown"
    run = beside(real_run, tmp_path, table, read(real_run / "predictions.csv"))
    found = audit(open_run(run), resamples=20)
    assert found["patients"]["n"] == found["patients"]["known"] + 1 == 24
    large = table.query("site != 'unknown'").drop_duplicates("patient")["site"].value_counts().loc[lambda n: n >= 5]
    assert (found["told_by"]["label"]["n"], found["told_by"]["label"]["sites"]) == (large.sum(), len(large))
    assert found["told_by"]["score"]["value"] is None, "six patients are reported"
    assert found["resamples"] == found["told_by"]["embedding"]["macro_auroc"]["resamples"] == 20


def test_without_a_column_the_site_is_read_from_tcga_barcodes(real_run: Path, hospital: Path, tmp_path: Path) -> None:
    table, own = pd.read_csv(hospital / "cohort.csv", dtype=str), read(real_run / "predictions.csv")
    names = {name: f"TCGA-{'AB'[at % 2] * 2}-{at:04}" for at, name in enumerate(table["patient"].unique())}
    table, own = (one.assign(patient=one["patient"].map(names)) for one in (table, own))
    run = beside(real_run, tmp_path, table.drop(columns="site"), own.assign(role="train"))
    found = audit(open_run(run), resamples=5)
    assert found["patients"]["sites"] == {"AA": 12, "BB": 12}
    assert found["site"] == "the TCGA barcodes"
    assert "score" not in found["told_by"], "nobody is reported"
    assert found["within_sites"] is None

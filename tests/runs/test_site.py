"""The audit of a run: where sites stand, and what is said of them."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from mil import files
from mil.report.prediction_files import read
from mil.runs.run import open_run
from mil.runs.site import audit, signature_sentence
from mil.stats.estimate import Estimate
from mil.stats.site_signature import SitePredictability
from mil.study.compose import read_config, write_config


def predictability(value: float, low: float, high: float, p: float | None = None) -> SitePredictability:
    accuracy = Estimate(value=value, low=low, high=high, p=p)
    return SitePredictability(
        n=90, sites=3, left_out=0, balanced_accuracy=accuracy, chance={"balanced_accuracy": 1 / 3}
    )


@pytest.mark.parametrize(
    ("embedding", "more", "start"),
    [
        (
            (0.4, 0.35, 0.5, 0.2),
            (0.1, 0.02, 0.2),
            "no signature is shown: the bag embedding predicts the site of 90 patients",
        ),
        (
            (0.8, 0.7, 0.9, 0.005),
            (0.4, 0.3, 0.5),
            "a signature is shown: the bag embedding predicts the site of 90 patients",
        ),
        ((0.5, 0.4, 0.6, 0.01), (0.1, -0.1, 0.2), "the bag embedding predicts the site of 90 patients"),
    ],
)
def test_words_weigh_the_embedding_against_chance_and_label(
    embedding: tuple[float, float, float, float], more: tuple[float, float, float], start: str
) -> None:
    predicted_from = {"label": predictability(0.4, 0.34, 0.46), "embedding": predictability(*embedding)}
    sentence = signature_sentence("embedding", predicted_from, {"embedding": predictability(*more)})
    assert sentence.startswith(start)
    assert "chance 0.333" in sentence
    assert ("differences between the sites' patients may explain it" in sentence) == (more[1] < 0)


def test_a_signature_of_few_patients_is_no_verdict() -> None:
    strong = predictability(0.9, 0.8, 1.0, 0.001).model_copy(update={"n": 12})
    sentence = signature_sentence("embedding", {"embedding": strong, "label": strong}, {"embedding": strong})
    assert sentence.startswith("no verdict: 12 patients are too few, expected 20")


def with_tables(run: Path, folder: Path, table: pd.DataFrame, predictions: pd.DataFrame) -> Path:
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
    run = with_tables(real_run, tmp_path, table, read(real_run / "predictions.csv"))
    result = audit(open_run(run), resamples=20)
    assert result.patients.n == result.patients.with_site + 1 == 24
    large = table.query("site != 'unknown'").drop_duplicates("patient")["site"].value_counts().loc[lambda n: n >= 5]
    label, embedding = result.predicted_from["label"], result.predicted_from["embedding"]
    assert (label.n, label.sites) == (large.sum(), len(large))
    assert result.predicted_from["score"].balanced_accuracy is None, "six patients are reported"
    assert embedding.macro_auroc is not None
    assert result.resamples == embedding.macro_auroc.resamples == 20


def test_without_a_column_the_site_is_read_from_tcga_barcodes(real_run: Path, hospital: Path, tmp_path: Path) -> None:
    table, predictions = pd.read_csv(hospital / "cohort.csv", dtype=str), read(real_run / "predictions.csv")
    names = {name: f"TCGA-{'AB'[at % 2] * 2}-{at:04}" for at, name in enumerate(table["patient"].unique())}
    table, predictions = (rows.assign(patient=rows["patient"].map(names)) for rows in (table, predictions))
    run = with_tables(real_run, tmp_path, table.drop(columns="site"), predictions.assign(role="train"))
    result = audit(open_run(run), resamples=5)
    assert result.patients.sites == {"AA": 12, "BB": 12}
    assert result.site == "the TCGA barcodes"
    assert "score" not in result.predicted_from, "nobody is reported"
    assert result.within_sites is None

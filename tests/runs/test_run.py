"""Opening a run's folder: its options, its tables, and what is known of its patients."""

from pathlib import Path

import pandas as pd
import pytest

from mil import files
from mil.errors import ConfigError, PredictionsError
from mil.runs.run import PATIENTS, one_row_per_patient, open_run, titles
from mil.study.compose import compose, write_config
from mil.study.trusted_classes import ALLOW
from tests.report.tables import binary, names


def folder_of(path: Path, *words: str, table: pd.DataFrame | None = None) -> Path:
    """What training leaves of a run, without its models."""
    write_config(path / "config.yaml", compose(["tool=binary", "resamples=30", *words]))
    files.write(path / "predictions.csv", (binary() if table is None else table).to_csv(index=False))
    return path


def test_a_run_is_opened_with_its_tables_and_scored_by_its_own_options(tmp_path: Path) -> None:
    run = open_run(folder_of(tmp_path / "run", "model=abmil_gated", "seed=7"))
    assert (set(run.tables), run.patients, run.reports) == ({"predictions"}, None, True)
    evaluation = run.evaluation()
    assert (evaluation.resamples, evaluation.seed, evaluation.tool.name) == (30, 7, "binary")
    assert evaluation.counts["n"] == 120
    assert run.evaluation(resamples=5).resamples == 5
    entry = run.entry("mine")
    assert (entry.name, entry.model, entry.encoder, entry.baseline) == ("mine", "abmil_gated", "auto", None)


def test_a_model_is_named_by_what_its_options_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW, "my.own")
    for name in ("abmil", "mean", "max"):
        assert open_run(folder_of(tmp_path / name, f"model={name}")).entry("x").model == name
    changed = folder_of(tmp_path / "own", "model=abmil")
    text = (changed / "config.yaml").read_text().replace("mil.models.abmil.ABMIL", "my.own.Model")
    files.write(changed / "config.yaml", text)
    assert open_run(changed).entry("x").model == "Model"


def test_baselines_lie_beside_the_predictions(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    files.write(folder / "baseline.csv", binary(noise=3.0).to_csv(index=False))
    baseline = open_run(folder).entry("x").baseline
    assert baseline is not None
    assert baseline.counts["n"] == 120


def test_patients_are_read_from_the_run_or_from_the_cohorts_table(tmp_path: Path) -> None:
    slides = pd.DataFrame({"patient": [*names(120), "000"], "slide": [*names(120), "extra"], "sex": "f", "site": "A"})
    slides.loc[0, "sex"] = "NA"
    slides.to_csv(tmp_path / "cohort.csv", index=False)
    words = [f"data.cohort={tmp_path}/cohort.csv", f"data.features={tmp_path}"]
    patients = open_run(folder_of(tmp_path / "real", *words)).patients
    assert patients is not None
    assert patients.index.tolist() == names(120)
    assert set(patients.columns) == {"sex", "site"}
    assert patients.loc["000", "sex"] == "f"
    copied = folder_of(tmp_path / "kept", *words)
    files.write(copied / PATIENTS, "patient,sex\n000,m\n")
    copy = open_run(copied).patients
    assert copy is not None
    assert copy["sex"].to_dict() == {"000": "m"}


def test_what_is_known_of_no_slide_of_a_patient_is_empty() -> None:
    patients = one_row_per_patient(
        pd.DataFrame({"patient": ["a", "a", "b"], "slide": "s", "sex": ["", "m", "unknown"]})
    )
    assert patients["sex"].to_dict() == {"a": "m", "b": ""}


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.yaml, expected a finished run"):
        open_run(tmp_path)
    files.write(tmp_path / "config.yaml", "- a\n")
    files.write(tmp_path / "predictions.csv", "patient\n")
    with pytest.raises(ConfigError, match="holds no mapping, expected the options of a run"):
        open_run(tmp_path)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["runs/msi/a", "runs/msi/b"], ["a", "b"]),
        (["runs/msi/1", "runs/tp53/1"], ["msi/1", "tp53/1"]),
        (["runs/a"], ["a"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(paths: list[str], expected: list[str]) -> None:
    assert list(titles([Path(path) for path in paths])) == expected


def test_a_table_that_is_not_of_the_run_is_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"slide": ["S1"], "tiles": [3], "p_1": [0.5]})
    folder = folder_of(tmp_path / "run", "tool=binary", table=table)
    with pytest.raises(PredictionsError, match=r"predictions\.csv has no column 'patient', it has slide, tiles, p_1"):
        open_run(folder)

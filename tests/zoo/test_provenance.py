"""Every table of predictions says which tool, version and cut made it, and whether anything of it is simulated."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mil
from mil import checkpoint, files
from mil.cards import SIMULATED
from mil.cards.card_facts import SIMULATED_FR
from mil.checkpoint import Checkpoint
from mil.fitted.decision import Decision
from mil.fitted.rules import ArgmaxRule
from mil.inference.provenance import with_origin
from mil.report.prediction_files import read
from mil.report.report_files import read_report
from tests.conftest import Mil


def test_scores_of_a_simulated_tool_say_so(crc_release: Path, hospital: Path, mil: Mil, tmp_path: Path) -> None:
    words = ["--features", hospital / "features", "--cohort", hospital / "cohort.csv", "--out", tmp_path / "s.csv"]
    result = mil("predict", crc_release, *words, "--tiles", tmp_path / "tiles")
    assert (result.code, result.out) == (0, f"{tmp_path / 's.csv'}\n")
    assert SIMULATED in result.err.splitlines()
    table = pd.read_csv(tmp_path / "s.csv")
    (decision,) = checkpoint.read_manifest(crc_release).fitted.decisions
    assert list(table)[:5] == ["patient", "tool", "version", "simulated", "tiles"]
    assert set(table["tool"]) == {"msi-crc"}
    assert set(table["version"]) == {"1.0.0"}
    assert table["simulated"].all()
    assert set(table["threshold"]) == set(decision.cuts)
    assert (table["call"] == np.where(table["p_MSI-H"] >= table["threshold"], *decision.calls[::-1])).all()
    assert files.read_json(tmp_path / "tiles" / "origin.json") == {
        "tool": "msi-crc",
        "version": "1.0.0",
        "simulated": True,
    }


def test_tiles_are_whole_numbers_and_those_of_all_slides(
    crc_release: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    for name, words in (("slide", []), ("patient", ["--cohort", hospital / "cohort.csv"])):
        out = tmp_path / f"{name}.csv"
        assert mil("predict", crc_release, "--features", hospital / "features", "--out", out, *words).code == 0
        assert "." not in "".join(pd.read_csv(out, dtype=str)["tiles"])
    slides = pd.read_csv(hospital / "cohort.csv").merge(pd.read_csv(tmp_path / "slide.csv"), on="slide")
    sums = slides.groupby("patient")["tiles"].sum()
    assert pd.read_csv(tmp_path / "patient.csv").set_index("patient")["tiles"].to_dict() == sums.to_dict()


def test_scores_of_a_tool_of_real_patients_are_not_called_simulated(
    real_release: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    result = mil("predict", real_release, "--features", hospital / "features", "--out", tmp_path / "s.csv")
    assert "SIMULATED" not in result.err
    assert not pd.read_csv(tmp_path / "s.csv")["simulated"].any()


def test_the_api_says_the_same(crc_release: Path, crc_run: Path, hospital: Path) -> None:
    tool = mil.load(crc_release)
    bag = tool.predict(np.zeros((5, tool.width), "float32"))
    assert bag[["bag", "tool", "version", "simulated", "tiles"]].iloc[0].to_list() == [0, "msi-crc", "1.0.0", True, 5]
    folds = mil.Run(crc_run).checkpoints.values()
    together = mil.predict(list(folds), hospital / "features")
    cuts = [checkpoint.read_manifest(fold).fitted.decisions[0].cuts[0] for fold in folds]
    assert set(together["threshold"]) == {" | ".join(map(repr, cuts))}
    (version,) = set(together["version"])
    assert version.endswith("unreleased)")
    assert "spread_threshold" not in together


def decided(loaded: Checkpoint, *decisions: Decision) -> Checkpoint:
    """The checkpoint with other decisions."""
    fitted = loaded.manifest.fitted.model_copy(update={"decisions": decisions})
    return replace(loaded, manifest=loaded.manifest.model_copy(update={"fitted": fitted}))


def test_each_decision_has_its_thresholds(crc_release: Path) -> None:
    loaded = checkpoint.load(crc_release)
    (single,) = loaded.manifest.fitted.decisions
    two = single.model_copy(update={"name": "EGFR", "cuts": (0.2, 0.7), "calls": ("no", "perhaps", "yes")})
    likeliest = Decision(
        name="grade", columns=("p_a", "p_b"), rule=ArgmaxRule(rule="argmax"), cuts=(), calls=("a", "b"), on="select"
    )
    table = with_origin(pd.DataFrame({"patient": ["A"]}), [decided(loaded, single, two, likeliest)])
    thresholds = table.filter(like="threshold").iloc[0].to_dict()
    assert thresholds == {
        f"threshold_{single.name}": single.cuts[0],
        "threshold_EGFR": "0.2; 0.7",
        "threshold_grade": "likeliest class",
    }
    assert "threshold" not in with_origin(pd.DataFrame({"patient": ["A"]}), [decided(loaded)])


def test_a_table_of_simulated_scores_is_evaluated_as_simulated(
    crc_run: Path, crc_release: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    words = ["--features", hospital / "features", "--cohort", hospital / "cohort.csv", "--out", tmp_path / "s.csv"]
    assert mil("predict", crc_release, *words).code == 0
    truth = pd.read_csv(hospital / "cohort.csv").drop_duplicates("patient")[["patient", "MSI"]]
    read(tmp_path / "s.csv").merge(truth, on="patient").to_csv(tmp_path / "scored.csv", index=False)
    for table in (tmp_path / "scored.csv", crc_run / "predictions.csv"):
        columns = ["--target", "MSI", "--positive", "MSI-H", "--score", "p_MSI-H", "--resamples", 20]
        columns += ["--group", "fold", "--role", "role"] if table.parent == crc_run else []
        result = mil("evaluate", "--predictions", table, *columns, "--out", tmp_path / "out")
        assert result.code == 0, result.err
        assert SIMULATED in result.err
        assert read_report(tmp_path / "out" / "report.json").about.simulated
        assert SIMULATED in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("simulated", [True, False])
def test_an_evaluation_on_a_simulated_cohort_says_so(
    simulated: bool, real_release: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    cohort = pd.read_csv(hospital / "cohort.csv")
    (cohort.assign(simulated="yes") if simulated else cohort).to_csv(tmp_path / "cohort.csv", index=False)
    words = ["--cohort", tmp_path / "cohort.csv", "--features", hospital / "features", "--out", tmp_path / "out"]
    result = mil("evaluate", real_release, *words, "--resamples", 20)
    assert result.code == 0, result.err
    assert (SIMULATED in result.err) == simulated
    assert (SIMULATED in (tmp_path / "out" / "report.html").read_text()) == simulated
    table = read(tmp_path / "out" / "predictions.csv")
    assert table["simulated"].all() == simulated
    assert set(table["tool"]) == {"msi-crc"}


def test_every_other_output_of_simulated_patients_says_so(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    assert read(crc_run / "predictions.csv")["simulated"].all()
    assert read(crc_run / "baseline.csv")["simulated"].all()
    copy = shutil.copytree(crc_run, tmp_path / "again")
    result = mil("compare", crc_run, copy, "--out", tmp_path / "out", "--resamples", 20)
    assert SIMULATED in result.err
    assert pd.read_csv(tmp_path / "out" / "leaderboard.csv")["simulated"].all()
    assert files.read_json(tmp_path / "out" / "comparison.json")["simulated"] is True
    assert SIMULATED in mil("evaluate", copy).err
    card = (crc_run / "fold_0" / "checkpoint" / "README.md").read_text()
    assert f"- **En bref**: {SIMULATED_FR}. " in card


def test_a_run_on_files_of_a_simulated_cohort_is_a_simulated_run(hospital: Path, mil: Mil, tmp_path: Path) -> None:
    from tests.conftest import HOSPITAL

    cohort = tmp_path / "cohort.csv"
    pd.read_csv(hospital / "cohort.csv", dtype=str).assign(simulated="yes").to_csv(cohort, index=False)
    given = [f"data.cohort={cohort}", f"data.features={hospital}/features", "split=holdout", "baseline=false"]
    assert mil("check", *given, "--json").out.count('"simulated": true') == 1
    assert mil("train", *HOSPITAL, *given, f"hydra.run.dir={tmp_path}/run").code == 0
    assert read_report(tmp_path / "run" / "report.json").about.simulated
    assert SIMULATED in (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert mil("release", tmp_path / "run", "--version", "1.0.0", "--out", tmp_path / "zoo").code == 0
    result = mil("zoo", "verify", tmp_path / "zoo" / "msi-crc")
    assert result.code == 0, result.out

"""A cohort that a checkpoint has not seen: scored as it was frozen, and a cut set anew by known positives alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter

from mil import checkpoint as checkpoints
from mil.checkpoint import Checkpoint
from mil.errors import CohortError, ConfigError, PredictionsError
from mil.fitted.decision_rules import STATED, Decision, fit
from mil.fitted.guarantee import needed
from mil.fitted.novelty import Novelty
from mil.fitted.rules import AbsoluteRiskRule
from mil.inference.external import Labelled, labelled, with_new_calibration, with_new_cut
from mil.inference.predict import predict
from mil.report.assemble import evaluate
from mil.runs.describe import external
from mil.simulation.simulated_cohort import write
from mil.study import build
from mil.study.compose import compose

RELEASED = Path(__file__).parents[1] / "zoo" / "released" / "schema_1" / "msi-crc"
OUTCOME = RELEASED.with_name("surv-crc")


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another hospital's cohort, of the width that the stored checkpoint reads."""
    folder = tmp_path_factory.mktemp("abroad") / "cohort"
    words = ["simulation.width=8", "simulation.patients=120", "simulation.tiles=20", "simulation.seed=5"]
    write(build.simulation(compose(["tool=msi-crc", *words])), folder)
    return folder


@pytest.fixture(scope="module")
def stored() -> Checkpoint:
    return checkpoints.load(RELEASED)


@pytest.fixture(scope="module")
def found(abroad: Path, stored: Checkpoint) -> Labelled:
    return labelled(stored, abroad / "features", abroad / "cohort.csv")


def test_every_patient_with_a_label_is_reported_beside_it(found: Labelled, abroad: Path) -> None:
    cohort = pd.read_csv(abroad / "cohort.csv", dtype=str).drop_duplicates("patient").set_index("patient")
    assert set(found.table["patient"]) == set(cohort.index)
    assert (found.table["role"] == "report").all()
    assert found.table.set_index("patient")["MSI"].to_dict() == cohort["MSI"].to_dict()
    assert {"site", "sex", "age"} <= set(found.patients.columns)
    assert found.withheld == 0


def test_the_words_that_training_was_told_are_understood_elsewhere(
    found: Labelled, abroad: Path, stored: Checkpoint, tmp_path: Path
) -> None:
    spoken = {"MSS": "stable", "MSI-H": "High"}
    table = pd.read_csv(abroad / "cohort.csv", dtype=str)
    table.assign(MSI=table["MSI"].map(spoken)).to_csv(tmp_path / "cohort.csv", index=False)
    told = replace(stored, words={"MSI": {"high": "MSI-H", "stable": "MSS"}, "sex": {"w": "F"}})
    again = labelled(told, abroad / "features", tmp_path / "cohort.csv")
    pd.testing.assert_frame_equal(again.table, found.table)
    with pytest.raises(CohortError, match="MSI"):
        labelled(stored, abroad / "features", tmp_path / "cohort.csv").table.pipe(stored.endpoint.encode)


def test_nothing_is_fitted_to_the_cohort(found: Labelled, stored: Checkpoint) -> None:
    (frozen,) = stored.manifest.fitted.decisions
    turned = found.table.assign(MSI=found.table["MSI"].map({"MSS": "MSI-H", "MSI-H": "MSS"}))
    for table in (found.table, turned):
        evaluation, report = external(stored, found._replace(table=table), resamples=20)
        (decision,) = report.operating_points.decisions
        assert decision.cuts == (frozen.cuts,)
        assert report == evaluate(evaluation, report.about, report.fitted)
        assert report.about.external
    called = found.table["p_MSI-H"] >= frozen.cuts[0]
    assert (found.table["call"] == called.map({True: "MSI-H", False: "MSS"})).all()


def test_patients_whose_result_is_withheld_are_counted_and_not_scored(abroad: Path, stored: Checkpoint) -> None:
    def withholding(min_tiles: int) -> Checkpoint:
        novelty = Novelty(min_tiles=min_tiles, min_tiles_on="stated beforehand", train=50, features=None)
        fitted = stored.manifest.fitted.model_copy(update={"novelty": novelty})
        return replace(stored, manifest=stored.manifest.model_copy(update={"fitted": fitted}))

    scores = predict(stored, abroad / "features", abroad / "cohort.csv")
    min_tiles = int(scores["tiles"].median())
    judged = predict(withholding(min_tiles), abroad / "features", abroad / "cohort.csv")
    withheld = set(judged.loc[judged["withheld"] != "", "patient"])
    assert 0 < len(withheld) < len(judged)
    table, _, withheld_count = labelled(withholding(min_tiles), abroad / "features", abroad / "cohort.csv")
    assert set(table["patient"]) == set(judged["patient"]) - withheld
    assert withheld_count == len(withheld)
    assert "withheld" not in table
    assert table["p_MSI-H"].notna().all()
    with pytest.raises(PredictionsError, match="all 120 patients with a label are withheld"):
        labelled(withholding(10**6), abroad / "features", abroad / "cohort.csv")


def test_known_positives_set_the_cut_and_nobody_else_does(found: Labelled, stored: Checkpoint, tmp_path: Path) -> None:
    fresh = with_new_cut(stored, found, tmp_path / "one", sensitivity=0.7)
    positives = found.table.loc[found.table["MSI"] == "MSI-H", "p_MSI-H"]
    assert fresh.guarantee is not None
    assert fresh.guarantee.positives == len(positives)
    assert fresh.cuts[0] in positives.to_numpy()
    others = found.table["p_MSI-H"].where(found.table["MSI"] == "MSI-H", 0.123)
    again = with_new_cut(
        stored, found._replace(table=found.table.assign(**{"p_MSI-H": others})), tmp_path / "two", sensitivity=0.7
    )
    assert again == fresh
    reloaded = checkpoints.load(tmp_path / "one")
    assert reloaded.manifest.fitted.decisions == (fresh,)
    for name, tensor in reloaded.model.state_dict().items():
        assert tensor.equal(stored.model.state_dict()[name])


def test_too_few_positives_are_refused_and_nothing_is_written(
    found: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    assert int((found.table["MSI"] == "MSI-H").sum()) < needed(0.95, 0.95)
    with pytest.raises(PredictionsError, match="expected 59 or more"):
        with_new_cut(stored, found, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_decision_that_is_not_there_and_a_folder_that_is_are_refused(
    found: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="decision BRAF, expected one of"):
        with_new_cut(stored, found, tmp_path / "out", decision="BRAF")
    with pytest.raises(ConfigError, match="is there already"):
        with_new_cut(stored, found, tmp_path)


def test_a_table_without_the_labels_is_refused(abroad: Path, stored: Checkpoint, tmp_path: Path) -> None:
    pd.read_csv(abroad / "cohort.csv", dtype=str).drop(columns="MSI").to_csv(tmp_path / "bare.csv", index=False)
    with pytest.raises(CohortError, match="MSI"):
        labelled(stored, abroad / "features", tmp_path / "bare.csv")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another hospital's patients with their outcomes."""
    folder = tmp_path_factory.mktemp("followed") / "cohort"
    words = ["simulation.width=8", "simulation.patients=160", "simulation.tiles=20", "simulation.seed=7"]
    write(build.simulation(compose(["tool=surv-crc", *words, "simulation.target.event_rate=0.6"])), folder)
    return folder


def with_decision(checkpoint: Checkpoint, decision: Decision) -> Checkpoint:
    """As if its tool had asked for this one."""
    fitted = checkpoint.manifest.fitted.model_copy(update={"decisions": (decision,)})
    tool = checkpoint.manifest.tool.model_copy(update={"decision": decision.rule})
    changed = {"fitted": fitted, "tool": tool}
    return replace(checkpoint, manifest=checkpoint.manifest.model_copy(update=changed))


def rising(found: Labelled) -> Labelled:
    """With scores that know something, which those of the stored checkpoint do not."""
    noise = np.random.default_rng(0).random(len(found.table))
    return found._replace(table=found.table.assign(**{"p_MSI-H": (noise + (found.table["MSI"] == "MSI-H")) / 2}))


def test_outcomes_of_a_new_hospital_put_the_risks_right_and_the_stated_cut_is_of_them(
    followed: Path, tmp_path: Path
) -> None:
    stored = checkpoints.load(OUTCOME)
    rule = AbsoluteRiskRule(rule="absolute_risk", horizon="3y", cuts=(0.5,))
    [stated] = fit(rule, stored.endpoint, pd.DataFrame(), pd.DataFrame())
    stored = with_decision(stored, stated)
    there = labelled(stored, followed / "features", followed / "cohort.csv")
    fresh = with_new_calibration(stored, there, tmp_path / "here", "baseline")
    assert (fresh.on, fresh.n, fresh.method) == ("local cohort", len(there.table), "baseline")
    reloaded = checkpoints.load(tmp_path / "here")
    assert reloaded.manifest.fitted.calibration == fresh
    (decision,) = reloaded.manifest.fitted.decisions
    assert (decision.columns, decision.cuts, decision.on) == (("calibrated_risk_3y",), (0.5,), STATED)
    said = predict(reloaded, followed / "features", followed / "cohort.csv")
    time, event = there.table["time"].astype(float), there.table["event"].astype(int)
    observed = 1 - KaplanMeierFitter().fit(time, event).predict(36)
    assert said["calibrated_risk_3y"].mean() == pytest.approx(observed, abs=1e-9)
    assert abs(said["risk_3y"].mean() - observed) > 0.1
    assert (said["call"] == np.where(said["calibrated_risk_3y"] >= 0.5, "high", "low")).all()
    found = labelled(reloaded, followed / "features", followed / "cohort.csv")
    _, report = external(reloaded, found, resamples=10)
    three = report.survival.calibration[0]
    assert three.calibrated.observed_expected.value == pytest.approx(1, abs=1e-6)
    assert [fold.columns for fold in report.groups.fitted] == [("calibrated_risk_3y",)]
    assert report.operating_points.decisions[0].fitted[0].columns == ("calibrated_risk_3y",)
    (row,) = (row for row in report.fitted if row.what == "calibration by baseline")
    assert (row.on, row.n) == ("local cohort", len(there.table))


def test_a_cohort_that_is_only_evaluated_refits_no_risk(followed: Path, tmp_path: Path) -> None:
    stored = checkpoints.load(OUTCOME)
    there = labelled(stored, followed / "features", followed / "cohort.csv")
    with_new_calibration(stored, there, tmp_path / "here", "baseline")
    reloaded = checkpoints.load(tmp_path / "here")
    found = labelled(reloaded, followed / "features", followed / "cohort.csv")
    turned = found._replace(table=found.table.assign(event=1 - found.table["event"].astype(int)))
    before, after = (external(reloaded, one, resamples=5)[1] for one in (found, turned))
    assert before.fitted == after.fitted
    assert [horizon.calibrated.predicted for horizon in before.survival.calibration] == [
        horizon.calibrated.predicted for horizon in after.survival.calibration
    ]


def test_probabilities_are_put_right_by_known_labels_and_cuts_of_patients_stay(
    found: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    fresh = with_new_calibration(stored, rising(found), tmp_path / "out", "platt")
    assert fresh.curves[0].positives == (found.table["MSI"] == "MSI-H").sum()
    reloaded = checkpoints.load(tmp_path / "out")
    before, after = (one.manifest.fitted.decisions for one in (stored, reloaded))
    assert after == before
    assert reloaded.manifest.fitted.calibration == fresh


def test_what_cannot_be_put_right_is_refused_and_nothing_is_written(
    found: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="'baseline', expected one of temperature, platt, isotonic"):
        with_new_calibration(stored, found, tmp_path / "out", "baseline")
    with pytest.raises(PredictionsError, match="expected 1000 or more"):
        with_new_calibration(stored, found, tmp_path / "out", "isotonic")
    (held,) = stored.manifest.fitted.decisions
    cut = held.model_copy(update={"columns": ("calibrated_MSI-H",), "on": "known positives"})
    with pytest.raises(ConfigError, match="was cut by known positives on the calibration that it has"):
        with_new_calibration(with_decision(stored, cut), rising(found), tmp_path / "out", "platt")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="is there already"):
        with_new_calibration(stored, found, tmp_path, "platt")

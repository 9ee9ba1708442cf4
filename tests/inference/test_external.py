"""A frozen checkpoint on a cohort that it has not seen; only a new cut or calibration uses the cohort's labels."""

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
def external_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return another hospital's cohort, of the width that the stored checkpoint reads."""
    folder = tmp_path_factory.mktemp("abroad") / "cohort"
    words = ["simulation.width=8", "simulation.patients=120", "simulation.tiles=20", "simulation.seed=5"]
    write(build.simulation(compose(["tool=msi-crc", *words])), folder)
    return folder


@pytest.fixture(scope="module")
def stored() -> Checkpoint:
    return checkpoints.load(RELEASED)


@pytest.fixture(scope="module")
def labelled_cohort(external_cohort: Path, stored: Checkpoint) -> Labelled:
    return labelled(stored, external_cohort / "features", external_cohort / "cohort.csv")


def test_every_labelled_patient_is_reported(labelled_cohort: Labelled, external_cohort: Path) -> None:
    cohort = pd.read_csv(external_cohort / "cohort.csv", dtype=str).drop_duplicates("patient").set_index("patient")
    assert set(labelled_cohort.table["patient"]) == set(cohort.index)
    assert (labelled_cohort.table["role"] == "report").all()
    assert labelled_cohort.table.set_index("patient")["MSI"].to_dict() == cohort["MSI"].to_dict()
    assert {"site", "sex", "age"} <= set(labelled_cohort.patients.columns)
    assert labelled_cohort.withheld == 0


def test_label_words_of_training_apply_to_other_cohorts(
    labelled_cohort: Labelled, external_cohort: Path, stored: Checkpoint, tmp_path: Path
) -> None:
    local_words = {"MSS": "stable", "MSI-H": "High"}
    table = pd.read_csv(external_cohort / "cohort.csv", dtype=str)
    table.assign(MSI=table["MSI"].map(local_words)).to_csv(tmp_path / "cohort.csv", index=False)
    with_words = replace(stored, words={"MSI": {"high": "MSI-H", "stable": "MSS"}, "sex": {"w": "F"}})
    again = labelled(with_words, external_cohort / "features", tmp_path / "cohort.csv")
    pd.testing.assert_frame_equal(again.table, labelled_cohort.table)
    with pytest.raises(CohortError, match="MSI"):
        labelled(stored, external_cohort / "features", tmp_path / "cohort.csv").table.pipe(stored.endpoint.encode)


def test_evaluation_fits_nothing_to_the_cohort(labelled_cohort: Labelled, stored: Checkpoint) -> None:
    (frozen,) = stored.manifest.fitted.decisions
    with_swapped_labels = labelled_cohort.table.assign(
        MSI=labelled_cohort.table["MSI"].map({"MSS": "MSI-H", "MSI-H": "MSS"})
    )
    for table in (labelled_cohort.table, with_swapped_labels):
        evaluation, report = external(stored, labelled_cohort._replace(table=table), resamples=20)
        (decision,) = report.operating_points.decisions
        assert decision.cuts == (frozen.cuts,)
        assert report == evaluate(evaluation, report.about, report.fitted)
        assert report.about.external
    called = labelled_cohort.table["p_MSI-H"] >= frozen.cuts[0]
    assert (labelled_cohort.table["call"] == called.map({True: "MSI-H", False: "MSS"})).all()


def test_withheld_patients_are_counted_and_not_scored(external_cohort: Path, stored: Checkpoint) -> None:
    def withholding(min_tiles: int) -> Checkpoint:
        novelty = Novelty(min_tiles=min_tiles, min_tiles_on="stated beforehand", train=50, features=None)
        fitted = stored.manifest.fitted.model_copy(update={"novelty": novelty})
        return replace(stored, manifest=stored.manifest.model_copy(update={"fitted": fitted}))

    scores = predict(stored, external_cohort / "features", external_cohort / "cohort.csv")
    min_tiles = int(scores["tiles"].median())
    judged = predict(withholding(min_tiles), external_cohort / "features", external_cohort / "cohort.csv")
    withheld = set(judged.loc[judged["withheld"] != "", "patient"])
    assert 0 < len(withheld) < len(judged)
    evaluated = labelled(withholding(min_tiles), external_cohort / "features", external_cohort / "cohort.csv")
    table, withheld_count = evaluated.table, evaluated.withheld
    assert set(table["patient"]) == set(judged["patient"]) - withheld
    assert withheld_count == len(withheld)
    assert "withheld" not in table
    assert table["p_MSI-H"].notna().all()
    with pytest.raises(PredictionsError, match="all 120 patients with a label are withheld"):
        labelled(withholding(10**6), external_cohort / "features", external_cohort / "cohort.csv")


def test_new_cut_depends_on_known_positives_only(labelled_cohort: Labelled, stored: Checkpoint, tmp_path: Path) -> None:
    fresh = with_new_cut(stored, labelled_cohort, tmp_path / "one", sensitivity=0.7)
    positives = labelled_cohort.table.loc[labelled_cohort.table["MSI"] == "MSI-H", "p_MSI-H"]
    assert fresh.guarantee is not None
    assert fresh.guarantee.positives == len(positives)
    assert fresh.cuts[0] in positives.to_numpy()
    others = labelled_cohort.table["p_MSI-H"].where(labelled_cohort.table["MSI"] == "MSI-H", 0.123)
    again = with_new_cut(
        stored,
        labelled_cohort._replace(table=labelled_cohort.table.assign(**{"p_MSI-H": others})),
        tmp_path / "two",
        sensitivity=0.7,
    )
    assert again == fresh
    reloaded = checkpoints.load(tmp_path / "one")
    assert reloaded.manifest.fitted.decisions == (fresh,)
    for name, tensor in reloaded.model.state_dict().items():
        assert tensor.equal(stored.model.state_dict()[name])


def test_too_few_positives_are_refused_without_writing(
    labelled_cohort: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    assert int((labelled_cohort.table["MSI"] == "MSI-H").sum()) < needed(0.95, 0.95)
    with pytest.raises(PredictionsError, match="expected 59 or more"):
        with_new_cut(stored, labelled_cohort, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unknown_decision_and_existing_folder_are_refused(
    labelled_cohort: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="decision BRAF, expected one of"):
        with_new_cut(stored, labelled_cohort, tmp_path / "out", decision="BRAF")
    with pytest.raises(ConfigError, match="is there already"):
        with_new_cut(stored, labelled_cohort, tmp_path)


def test_table_without_labels_is_refused(external_cohort: Path, stored: Checkpoint, tmp_path: Path) -> None:
    pd.read_csv(external_cohort / "cohort.csv", dtype=str).drop(columns="MSI").to_csv(
        tmp_path / "bare.csv", index=False
    )
    with pytest.raises(CohortError, match="MSI"):
        labelled(stored, external_cohort / "features", tmp_path / "bare.csv")


@pytest.fixture(scope="module")
def cohort_with_outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return another hospital's cohort with follow-up."""
    folder = tmp_path_factory.mktemp("with_outcomes") / "cohort"
    words = ["simulation.width=8", "simulation.patients=160", "simulation.tiles=20", "simulation.seed=7"]
    write(build.simulation(compose(["tool=surv-crc", *words, "simulation.target.event_rate=0.6"])), folder)
    return folder


def with_decision(checkpoint: Checkpoint, decision: Decision) -> Checkpoint:
    """Return the checkpoint as if its tool had asked for this decision."""
    fitted = checkpoint.manifest.fitted.model_copy(update={"decisions": (decision,)})
    tool = checkpoint.manifest.tool.model_copy(update={"decision": decision.rule})
    changed = {"fitted": fitted, "tool": tool}
    return replace(checkpoint, manifest=checkpoint.manifest.model_copy(update=changed))


def with_informative_scores(labelled_cohort: Labelled) -> Labelled:
    """Return the cohort with scores that predict the label; those of the stored checkpoint do not."""
    noise = np.random.default_rng(0).random(len(labelled_cohort.table))
    return labelled_cohort._replace(
        table=labelled_cohort.table.assign(**{"p_MSI-H": (noise + (labelled_cohort.table["MSI"] == "MSI-H")) / 2})
    )


def test_stated_cut_applies_to_recalibrated_risks(cohort_with_outcomes: Path, tmp_path: Path) -> None:
    stored = checkpoints.load(OUTCOME)
    rule = AbsoluteRiskRule(rule="absolute_risk", horizon="3y", cuts=(0.5,))
    [stated] = fit(rule, stored.endpoint, pd.DataFrame(), pd.DataFrame())
    stored = with_decision(stored, stated)
    local_cohort = labelled(stored, cohort_with_outcomes / "features", cohort_with_outcomes / "cohort.csv")
    fresh = with_new_calibration(stored, local_cohort, tmp_path / "here", "baseline")
    assert (fresh.on, fresh.n, fresh.method) == ("local cohort", len(local_cohort.table), "baseline")
    reloaded = checkpoints.load(tmp_path / "here")
    assert reloaded.manifest.fitted.calibration == fresh
    (decision,) = reloaded.manifest.fitted.decisions
    assert (decision.columns, decision.cuts, decision.on) == (("calibrated_risk_3y",), (0.5,), STATED)
    predictions = predict(reloaded, cohort_with_outcomes / "features", cohort_with_outcomes / "cohort.csv")
    time, event = local_cohort.table["time"].astype(float), local_cohort.table["event"].astype(int)
    observed = 1 - KaplanMeierFitter().fit(time, event).predict(36)
    assert predictions["calibrated_risk_3y"].mean() == pytest.approx(observed, abs=1e-9)
    assert abs(predictions["risk_3y"].mean() - observed) > 0.1
    assert (predictions["call"] == np.where(predictions["calibrated_risk_3y"] >= 0.5, "high", "low")).all()
    recalibrated = labelled(reloaded, cohort_with_outcomes / "features", cohort_with_outcomes / "cohort.csv")
    _, report = external(reloaded, recalibrated, resamples=10)
    three = report.survival.calibration[0]
    assert three.calibrated.observed_expected.value == pytest.approx(1, abs=1e-6)
    assert [fold.columns for fold in report.groups.fitted] == [("calibrated_risk_3y",)]
    assert report.operating_points.decisions[0].fitted[0].columns == ("calibrated_risk_3y",)
    (row,) = (row for row in report.fitted if row.what == "calibration by baseline")
    assert (row.on, row.n) == ("local cohort", len(local_cohort.table))


def test_evaluation_does_not_refit_the_calibration(cohort_with_outcomes: Path, tmp_path: Path) -> None:
    stored = checkpoints.load(OUTCOME)
    local_cohort = labelled(stored, cohort_with_outcomes / "features", cohort_with_outcomes / "cohort.csv")
    with_new_calibration(stored, local_cohort, tmp_path / "here", "baseline")
    reloaded = checkpoints.load(tmp_path / "here")
    recalibrated = labelled(reloaded, cohort_with_outcomes / "features", cohort_with_outcomes / "cohort.csv")
    with_flipped_events = recalibrated._replace(
        table=recalibrated.table.assign(event=1 - recalibrated.table["event"].astype(int))
    )
    before, after = (external(reloaded, cohort, resamples=5)[1] for cohort in (recalibrated, with_flipped_events))
    assert before.fitted == after.fitted
    assert [horizon.calibrated.predicted for horizon in before.survival.calibration] == [
        horizon.calibrated.predicted for horizon in after.survival.calibration
    ]


def test_recalibration_keeps_the_fitted_cuts(labelled_cohort: Labelled, stored: Checkpoint, tmp_path: Path) -> None:
    fresh = with_new_calibration(stored, with_informative_scores(labelled_cohort), tmp_path / "out", "platt")
    assert fresh.curves[0].positives == (labelled_cohort.table["MSI"] == "MSI-H").sum()
    reloaded = checkpoints.load(tmp_path / "out")
    before, after = (checkpoint.manifest.fitted.decisions for checkpoint in (stored, reloaded))
    assert after == before
    assert reloaded.manifest.fitted.calibration == fresh


def test_impossible_recalibration_is_refused_without_writing(
    labelled_cohort: Labelled, stored: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="'baseline', expected one of temperature, platt, isotonic"):
        with_new_calibration(stored, labelled_cohort, tmp_path / "out", "baseline")
    with pytest.raises(PredictionsError, match="expected 1000 or more"):
        with_new_calibration(stored, labelled_cohort, tmp_path / "out", "isotonic")
    (decision,) = stored.manifest.fitted.decisions
    cut = decision.model_copy(update={"columns": ("calibrated_MSI-H",), "on": "known positives"})
    with pytest.raises(ConfigError, match="was cut by known positives on the calibration that it has"):
        with_new_calibration(
            with_decision(stored, cut), with_informative_scores(labelled_cohort), tmp_path / "out", "platt"
        )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="is there already"):
        with_new_calibration(stored, labelled_cohort, tmp_path, "platt")

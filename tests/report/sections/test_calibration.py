"""The calibration section: what it says of right and wrong models, and how often its intervals hold the truth."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import ConfigError
from mil.fitted.calibrators import LOCAL, fit
from mil.fitted.state import FittedState
from mil.report.evaluation import Evaluation
from mil.report.sections.calibration import (
    Calibration,
    QuestionCalibration,
    RecalibratedProbability,
    calibration_verdict,
)
from mil.report.sections.recalibration import NOT_CALIBRATED
from mil.stats.calibration_metrics import brier, calibration_error, intercept, logit, scaled_brier, slope, squared_error
from mil.stats.estimate import Estimate
from mil.study.tool import Tool
from tests.estimates import triple, value_of
from tests.report.tables import binary, multiclass, names, refitted, roles, survival

NOBODY = RecalibratedProbability(method="platt", n=0, reason=NOT_CALIBRATED)
NUMBERS = ("intercept", "slope", "brier", "scaled_brier")


def simulated(
    steepness: float = 1.0, shift: float = 0.0, patients: int = 400, folds: int = 2, seed: int = 0
) -> pd.DataFrame:
    """Two classes whose probabilities are right but for a factor and a shift of the logit."""
    rng = np.random.default_rng(seed)
    values = 1.5 * rng.normal(size=patients) - 0.5
    columns = {"patient": names(patients), "label": (rng.random(patients) < expit(values)).astype(int)}
    score = expit(steepness * values + shift)
    return pd.concat(
        [
            pd.DataFrame({**columns, "p_1": score, "fold": fold, "role": role})
            for fold, role in roles(rng, patients, folds)
        ],
        ignore_index=True,
    )


def sharpened(table: pd.DataFrame) -> pd.DataFrame:
    """Shares whose logits are three times what they were, so that a calibration helps."""
    columns = [name for name in table if str(name).startswith("p_")]
    shares = table[columns] ** 3
    return table.assign(**shares.div(shares.sum(axis=1), axis=0))


def of(table: pd.DataFrame, endpoint: Endpoint, tool: dict[str, Any] | None = None, resamples: int = 100) -> Any:
    result = Calibration.compute(refitted(table, endpoint, tool, resamples=resamples))
    assert result is not None
    assert Calibration.model_validate_json(result.model_dump_json()) == result
    return result


def test_the_numbers_are_those_of_the_pooled_report_rows() -> None:
    table = simulated()
    reported = table[table["role"] == "report"].drop_duplicates("patient")
    result = of(table, Binary()).questions[0]
    for name, metric in zip(NUMBERS, (intercept, slope, brier, scaled_brier), strict=True):
        number = getattr(result, name)
        assert number.value == pytest.approx(float(metric(reported["p_1"], reported["label"])), rel=1e-9)
        assert number.counts == {"n": len(reported), "positives": int(reported["label"].sum())}
        assert (result.n, result.positives) == (400, number.counts["positives"])
    assert sum(each.n for each in result.bins) == sum(result.histogram.positives + result.histogram.negatives) == 400


def test_a_right_model_is_acceptable_and_its_curve_is_the_diagonal() -> None:
    result = of(simulated(patients=3000), Binary(), resamples=200).questions[0]
    assert result.intercept.low < 0 < result.intercept.high
    assert result.slope.low < 1 < result.slope.high
    assert result.verdict.startswith("acceptable: slope ")
    curve = result.curve
    assert (np.diff(curve.x) > 0).all()
    np.testing.assert_allclose(curve.y, curve.x, atol=0.08)
    inside = (np.array(curve.low) <= curve.x) & (curve.x <= np.array(curve.high))
    assert inside.mean() > 0.8
    assert result.ece.estimate.value < 0.03
    assert not result.ece.shown


@pytest.mark.parametrize(
    ("steepness", "shift", "text"),
    [
        (2.5, 0.0, "ranking only: slope 0.*too extreme"),
        (0.4, 0.0, "ranking only: slope 2.*too near to each other"),
        (1.0, 1.0, "the slope is acceptable.*too high on the whole"),
        (1.0, -1.0, "the slope is acceptable.*too low on the whole"),
    ],
)
def test_too_sure_too_shy_and_shifted_models_are_told_apart(steepness: float, shift: float, text: str) -> None:
    result = of(simulated(steepness, shift, 2000), Binary(), resamples=50)
    assert re.match(text, result.questions[0].verdict)


def test_a_wide_interval_and_no_number_are_said() -> None:
    sure = Estimate(value=0.0, low=-0.1, high=0.1)
    assert "not shown by so few" in calibration_verdict(Estimate(value=1.0, low=0.5, high=1.6), sure)
    assert calibration_verdict(Estimate.missing("apart"), sure) == "not estimable: apart"


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_recalibration_is_fitted_to_select_rows_of_each_fold_and_mends_the_slope(method: str) -> None:
    table = simulated(3.0, patients=1200)
    report = of(table, Binary(), {"calibration": method})
    result, fitted = report.questions[0], report.fitted
    assert result.calibrated.method == fitted.method == method
    assert abs(result.calibrated.slope.value - 1) < 0.2 < abs(result.slope.value - 1)
    assert result.calibrated.brier.value < result.brier.value
    assert result.calibrated.n == result.n
    table = table.sort_values("patient")
    for fold, each in enumerate(fitted.folds):
        select = table[(table["fold"] == fold) & (table["role"] == "select")]
        assert (each.fold, each.n, each.parameters) == (
            fold,
            len(select),
            fit(method, Binary(), select).model_dump(mode="json"),
        )


def test_report_rows_change_nothing_that_was_fitted() -> None:
    table = simulated(3.0)
    second, report = table.copy(), table["role"] == "report"
    second.loc[report, "label"] = 1 - second.loc[report, "label"]
    second.loc[report, "p_1"] = 0.5
    first, two = (of(each, Binary(), {"calibration": "platt"}, 20).fitted.folds for each in (table, second))
    assert first == two
    assert first[0].parameters is not None


def test_a_fold_that_cannot_be_calibrated_is_listed_with_its_reason() -> None:
    table = simulated(3.0, patients=300)
    table.loc[(table["fold"] == 0) & (table["role"] == "select"), "label"] = 0
    report = of(table, Binary(), {"calibration": "platt"})
    assert "0 positives" in report.fitted.folds[0].reason
    assert report.questions[0].calibrated.n == int((table["role"] == "report")[table["fold"] == 1].sum())
    table.loc[table["role"] == "select", "label"] = 0
    nobody = of(table, Binary(), {"calibration": "platt"}).questions[0].calibrated
    assert nobody == NOBODY


def test_the_calibration_of_a_released_tool_is_applied_as_it_is() -> None:
    table = simulated(3.0)
    reported, elsewhere = table[table["role"] == "report"].assign(fold=0), simulated(1.0, seed=1)
    calibrator = fit("platt", Binary(), elsewhere[elsewhere["role"] == "select"])
    state = FittedState(calibration=calibrator.model_copy(update={"on": LOCAL}))
    evaluation = Evaluation.of(reported, Binary(), Tool(calibration="temperature"), states={0: state}, resamples=20)
    report = Calibration.compute(evaluation)
    assert report is not None
    assert report.fitted is not None
    assert (report.fitted.method, report.fitted.on) == ("platt", LOCAL)
    calibrated = report.questions[0].calibrated
    assert calibrated is not None
    applied = calibrator.apply(reported)["calibrated_1"]
    assert value_of(calibrated.brier) == pytest.approx(float(brier(applied, reported["label"])))


def test_the_effect_on_report_patients_is_that_of_the_same_patients_and_says_where_it_is_worse() -> None:
    better = of(simulated(3.0, patients=1200), Binary(), {"calibration": "platt"}).fitted
    assert all(fold.checks[0].helps for fold in better.folds)
    [effect] = better.effects
    assert effect.after.value < effect.before.value
    assert effect.change.value == pytest.approx(effect.after.value - effect.before.value)
    assert effect.change.high < 0
    assert effect.change.caveat is None
    [few] = of(simulated(3.0, patients=240), Binary(), {"calibration": "platt"}).fitted.effects
    assert "fewer than 300 patients" in few.change.caveat
    [question] = of(simulated(3.0, patients=240), Binary(), {"calibration": "platt"}).questions
    assert (few.before.low, few.before.method) == (question.log_loss.low, "jackknife, logarithm")
    assert not effect.worsens
    assert effect.verdict is None
    assert abs(effect.slope_after.value - 1) < 0.2 < abs(effect.slope_before.value - 1)
    table = simulated(3.0, patients=1200)
    drifted = table["role"] == "report"  # the select patients asked for a moderation that these do not need
    table.loc[drifted, "p_1"] = expit(logit(table.loc[drifted, "p_1"]) / 3)
    [worse] = of(table, Binary(), {"calibration": "platt"}).fitted.effects
    assert worse.worsens
    assert worse.worsens_surely
    assert worse.verdict.startswith("1: calibrated, the log loss of the report patients is higher")
    assert "n 1200" in worse.verdict.replace(",", "")
    of_classes = of(sharpened(multiclass()), Multiclass(classes=("a", "b", "c")), {"calibration": "temperature"}, 50)
    [all_classes] = of_classes.fitted.effects
    assert all_classes.name == "all classes"
    assert all_classes.before.value == pytest.approx(of_classes.classes.log_loss.value)
    assert all_classes.after.value == pytest.approx(of_classes.classes.calibrated.log_loss.value)


def test_a_calibration_that_does_not_help_is_not_applied_and_says_so() -> None:
    report = of(simulated(1.0, patients=120, seed=3), Binary(), {"calibration": "platt"})
    assert report.fitted.effects == ()
    for fold in report.fitted.folds:
        assert fold.parameters is None
        assert "does not help" in fold.reason
        assert not fold.checks[0].helps
    assert report.questions[0].calibrated == NOBODY


def test_few_positives_have_numbers_and_no_curve_and_one_class_has_a_reason() -> None:
    table = simulated(patients=60)
    positive = table["label"] == 1
    few = table[~positive | (table["patient"].isin(sorted(table.loc[positive, "patient"].unique())[:4]))]
    result = of(few, Binary()).questions[0]
    assert result.curve is None
    assert result.curve_reason.startswith("fewer than 10")
    assert np.isfinite(result.slope.value)
    none = of(few[few["label"] == 0], Binary()).questions[0]
    n = int((~positive & (table["role"] == "report")).sum())
    assert none == QuestionCalibration(name="1", n=n, positives=0, reason="positives or negatives are absent")


def test_the_calibration_error_is_debiased_and_its_interval_holds_it() -> None:
    for steepness in (1.0, 2.0, 4.0):
        evaluation = refitted(simulated(steepness, patients=200), Binary(), resamples=200)
        report = Calibration.compute(evaluation)
        assert report is not None
        assert report.questions[0].ece is not None
        rows, error = evaluation.reported, report.questions[0].ece
        value, low, high = triple(error.estimate)
        assert value == pytest.approx(calibration_error(float(squared_error(rows["p_1"], rows["label"]))), rel=1e-12)
        assert 0 <= low <= value <= high
        assert error.bins == 15
        assert error.shown == (low > 0)
        assert "15 bins of equal mass" in (error.estimate.method or "")


def test_a_label_is_recalibrated_for_the_patients_of_the_folds_that_could_be() -> None:
    table = simulated(3.0, patients=300).rename(columns={"label": "MSI", "p_1": "p_MSI"})
    without = (table["fold"] == 1) & (table["role"] == "select")
    table = table.assign(EBV=table["MSI"].where(~without, 0), p_EBV=table["p_MSI"])
    labels = of(table, Multilabel(columns=("MSI", "EBV")), {"calibration": "platt"}, 20).questions
    reported = table[table["role"] == "report"]
    assert labels[0].calibrated.n == len(reported)
    assert labels[1].calibrated.n == int((reported["fold"] == 0).sum())


def test_two_exclusive_classes_have_errors_of_all_classes() -> None:
    errors = of(multiclass(classes=("a", "b")), Multiclass(classes=("a", "b")), resamples=20).classes
    assert 0 < errors.brier.value < 1
    assert 0 <= errors.ece.estimate.low <= errors.ece.estimate.value <= errors.ece.estimate.high


def test_a_separating_score_has_no_slope_and_says_why() -> None:
    table = simulated(patients=60).assign(p_1=lambda rows: 0.2 + 0.5 * rows["label"])
    result = of(table, Binary()).questions[0]
    assert result.slope.value is None
    assert "separates" in result.slope.reason
    assert result.verdict.startswith("not estimable")


def test_every_class_boundary_and_label_is_a_question() -> None:
    words = ("a", "b", "c")
    several = of(sharpened(multiclass()), Multiclass(classes=words), {"calibration": "temperature"}, 50)
    assert [each.name for each in several.questions] == list(words)
    assert several.classes.log_loss.n == several.classes.calibrated.log_loss.n == 90
    graded = sharpened(multiclass()).rename(columns={"label": "grade"})
    grades = of(graded, Ordinal(classes=words), {"calibration": "platt"}, 50)
    assert [each.name for each in grades.questions] == [">= b", ">= c"]
    labels = binary().rename(columns={"label": "MSI", "p_1": "p_MSI"})
    labels["p_MSI"] = expit(3 * logit(labels["p_MSI"]))
    labels["EBV"], labels["p_EBV"] = np.where(labels["patient"].astype(int) % 3, labels["MSI"].astype(str), ""), 0.5
    requested = of(labels, Multilabel(columns=("MSI", "EBV")), {"calibration": "platt"}, 50).questions
    assert [each.n for each in requested] == [120, 80]
    assert requested[1].calibrated == NOBODY
    assert requested[0].calibrated.n == 120


def test_survival_has_its_own_section_and_a_wrong_method_is_refused() -> None:
    assert Calibration.compute(Evaluation.of(survival(), Cox(), Tool(calibration="platt"))) is None
    with pytest.raises(ConfigError, match="method 'magic'"):
        of(simulated(patients=60), Binary(), {"calibration": "magic"})


def valued(patients: int = 500, slope_of: float = 1.0, bias: float = 0.0, sd: float = 2.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    value = 100 + 5 * rng.normal(size=patients)
    true = 100 + slope_of * (value - 100) + 2 * rng.normal(size=patients)
    scores = {"value": value + bias, "value_sd": sd, "value_q10": value + norm.ppf(0.1) * sd}
    scores["value_q90"] = value + norm.ppf(0.9) * sd
    return pd.DataFrame({"patient": names(patients), "fold": 0, "role": "report", "score": true, **scores})


def test_values_have_bias_slope_and_curve() -> None:
    result = of(valued(slope_of=0.5, bias=3), Regression(unit="points"), resamples=300).predicted_value
    assert result.bias.low < 3 < result.bias.high
    assert result.slope.low < 0.5 < result.slope.high
    assert result.unit == "points"
    np.testing.assert_allclose(np.diff(result.curve.y) / np.diff(result.curve.x), 0.5, atol=0.35)
    assert sum(each.n for each in result.bins) == 500
    flat = of(valued().assign(value=1.0), Regression(), resamples=20).predicted_value
    assert flat.slope.value is None
    assert flat.curve is None


@pytest.mark.parametrize("kind", ["gaussian", "quantile"])
def test_the_spread_of_values_is_held_against_what_it_promises(kind: str) -> None:
    right, narrow = (
        of(valued(sd=sd), Regression(loss=kind), resamples=20).predicted_value.coverage for sd in (2.0, 0.7)
    )
    assert len(right) == (3 if kind == "gaussian" else 4)
    assert all(abs(each.estimate.value - each.expected) < 0.05 for each in right)
    assert all(each.estimate.high < each.expected for each in narrow if each.name.startswith("central"))
    assert of(valued(), Regression(), resamples=20).predicted_value.coverage == ()


@pytest.mark.slow
def test_intervals_hold_the_truth_nearly_nineteen_times_in_twenty() -> None:
    """Seen over 400 samples of 200 patients: 0.93, 0.92, 0.93 and 0.93; 0.80 for the intercept drawn within classes."""
    rng, held = np.random.default_rng(0), []
    large = simulated(1.5, patients=200_000, folds=1).query("role == 'report'")
    metrics = {"intercept": intercept, "slope": slope, "brier": brier, "scaled_brier": scaled_brier}
    truth = {name: float(metric(large["p_1"], large["label"])) for name, metric in metrics.items()}
    for _ in range(200):
        table = simulated(1.5, patients=200, folds=1, seed=int(rng.integers(2**31)))
        result = of(table, Binary(), resamples=300).questions[0]
        held.append([getattr(result, name).low <= truth[name] <= getattr(result, name).high for name in truth])
    coverage = dict(zip(truth, np.mean(held, axis=0), strict=True))
    assert all(0.88 <= value <= 0.99 for value in coverage.values()), coverage

"""The decision curves of a report: against their definition, and what is said of them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import ConfigError, PredictionsError
from mil.report.sections.clinical import Clinical
from mil.report.sections.clinical_baseline import answers
from mil.report.sections.utility import Utility, thresholds
from mil.stats.survival_metrics import aalen_johansen
from tests.report.tables import binary, multiclass, names, refitted, survival


def of(
    table: pd.DataFrame,
    endpoint: Endpoint,
    tool: dict[str, Any] | None = None,
    patients: pd.DataFrame | None = None,
    resamples: int = 100,
) -> Any:
    result = Utility.compute(refitted(table, endpoint, tool, patients, resamples=resamples))
    assert result is not None
    assert Utility.model_validate_json(result.model_dump_json()) == result
    return result


def clinic(table: pd.DataFrame, gap: float) -> pd.DataFrame:
    """An age that differs between the classes by that many deviations of ten years, some missing, and a stage."""
    rng = np.random.default_rng(5)
    label = table.drop_duplicates("patient").set_index("patient")["label"]
    age = (60 + 10 * (rng.normal(size=len(label)) + gap * label)).round(1).astype(str)
    words = {"age": np.where(rng.random(len(label)) < 0.1, "", age), "stage": rng.choice(["I", "II", ""], len(label))}
    return pd.DataFrame(words, index=label.index)


def test_the_curve_is_the_definition_at_the_tools_thresholds() -> None:
    table = binary()
    result = of(table, Binary(), {"thresholds": [0.1, 0.3, 0.5]}).questions[0]
    reported = table[table["role"] == "report"]
    score, truth, n = reported["p_1"], reported["label"] == 1, len(reported)
    assert (result.thresholds, result.thresholds_from) == ((0.1, 0.3, 0.5), "tool")
    for place, at in enumerate(result.thresholds):
        right, wrong = (score[truth] >= at).sum(), (score[~truth] >= at).sum()
        model = right / n - wrong / n * at / (1 - at)
        everybody = truth.mean() - (1 - truth.mean()) * at / (1 - at)
        assert result.model.value[place] == pytest.approx(model, rel=1e-12)
        assert result.all[place] == pytest.approx(everybody, rel=1e-12)
        assert result.gain.value[place] == pytest.approx(model - max(everybody, 0), abs=1e-12)
        avoided = 100 * (model - everybody) / (at / (1 - at))
        assert result.avoided_per_100.value[place] == pytest.approx(avoided, rel=1e-9)
        cleared = (score[~truth] < at).sum() / n - (score[truth] < at).sum() / n * (1 - at) / at
        assert avoided == pytest.approx(100 * cleared, rel=1e-9)
    assert result.none == (0.0,) * 3
    assert (result.n, result.positives) == (n, int(truth.sum()))


def test_thresholds_go_from_a_quarter_to_four_times_the_prevalence() -> None:
    assert thresholds(0.1)[[0, -1]].tolist() == [0.025, 0.4]
    assert thresholds(0.5)[[0, -1]].tolist() == [0.125, 0.99]
    assert thresholds(0.004)[[0, -1]].tolist() == [0.01, 0.016]


def test_a_model_that_knows_is_useful_and_one_that_guesses_is_not() -> None:
    rng = np.random.default_rng(0)
    values = 2 * rng.normal(size=800) - 1
    label = (rng.random(800) < expit(values)).astype(int)
    base = {"patient": names(800), "fold": 0, "role": "report", "label": label}
    knows = of(pd.DataFrame({**base, "p_1": expit(values)}), Binary()).questions[0]
    assert knows.useful
    inside = [any(first <= at <= last for first, last in knows.useful) for at in knows.thresholds]
    assert inside == [low > 0 for low in knows.simultaneous.low]
    assert not all(inside)
    assert sum(low > 0 for low in knows.gain.low) > sum(inside)  # pointwise, which is no statement about all of them
    assert knows.verdict.startswith("Over all thresholds from ")
    assert "it is worth more than treating all or none at " in knows.verdict
    guesses = of(pd.DataFrame({**base, "p_1": rng.random(800)}), Binary()).questions[0]
    assert guesses.useful == ()
    assert "none is shown at which the model is worth more" in guesses.verdict
    assert max(guesses.gain.value) <= 0.02


def test_the_verdict_is_about_the_tools_own_cuts() -> None:
    table = binary(patients=400, noise=0.1)
    two = {"rule": "two_cuts", "low": 0.2, "high": 0.6}
    result = of(table, Binary(), {"decision": two}).questions[0]
    reported = table[table["role"] == "report"]
    score, truth, n = reported["p_1"], reported["label"] == 1, 400
    assert [each.name for each in result.at_cuts] == ["lower cut", "upper cut"]
    assert [each.threshold for each in result.at_cuts] == pytest.approx([0.2, 0.6])
    for each in result.at_cuts:
        above, odds = score >= round(each.threshold, 9), each.threshold / (1 - each.threshold)
        benefit = (above & truth).sum() / n - (above & ~truth).sum() / n * odds
        everybody = truth.mean() - (1 - truth.mean()) * odds
        assert each.above == above.sum()
        assert each.benefit.value == pytest.approx(benefit)
        assert each.gain.value == pytest.approx(benefit - max(everybody, 0))
        assert each.gain.level == pytest.approx(0.975)
    assert "At the tool's own lower cut (0.200) it is worth more than treating all or none: 0." in result.verdict
    fitted = of(table, Binary(), {"decision": {"rule": "youden"}, "calibration": "platt"}).questions[0]
    [own] = fitted.at_cuts
    assert own.name == "cut"
    assert 0 < own.threshold < 1
    assert of(table, Binary()).questions[0].at_cuts == ()
    small = of(binary(patients=200, noise=0.1), Binary(), {"decision": two}).questions[0]
    assert {each.gain.caveat for each in small.at_cuts} == {"too narrow below 300 patients"}
    assert "(sup-t 95% band, too narrow below 300 patients)" in small.verdict
    assert {each.gain.caveat for each in result.at_cuts} == {None}


def test_few_positives_allow_no_verdict() -> None:
    table = binary(patients=300, folds=1, noise=0.1)
    few = table[(table["label"] == 0) | table["patient"].isin(table[table["label"] == 1]["patient"].head(9))]
    result = of(few, Binary(), {"decision": {"rule": "two_cuts", "low": 0.2, "high": 0.6}}).questions[0]
    assert result.useful == ()
    assert result.verdict.startswith("no verdict: ")
    assert all(each.gain.low is None for each in result.at_cuts)


def test_the_calibrated_probability_decides_where_it_is_asked_for() -> None:
    table = binary(patients=300).assign(p_1=lambda rows: rows["p_1"] ** 6)  # far too low
    raw, mended = (of(table, Binary(), tool).questions[0] for tool in ({}, {"calibration": "platt"}))
    assert (raw.calibrated, mended.calibrated) == (None, "platt")
    assert np.mean(mended.model.value) > np.mean(raw.model.value)


def test_clinical_variables_are_fitted_to_training_patients_of_each_fold() -> None:
    table = binary(patients=240)
    patients = clinic(table, 1.5)
    tool = {"clinical": {"numeric": ["age"], "categorical": ["stage", "grade"]}, "thresholds": [0.2, 0.4]}
    result = of(table, Binary(), tool, patients).questions[0]
    assert result.clinical_variables == ("age", "stage")
    assert result.clinical_absent == ("grade",)
    expected = np.zeros(2)
    age = pd.to_numeric(patients["age"], errors="coerce")
    for _, rows in table.groupby("fold"):
        train, report = (rows[rows["role"] == role].set_index("patient") for role in ("train", "report"))
        columns = age[train.index].dropna()
        scaled = ((age - columns.mean()) / columns.std(ddof=0)).fillna(0)
        stages = [patients["stage"] == word for word in ("I", "II", "")]
        design = np.column_stack([scaled, age.isna(), *stages])
        by = pd.DataFrame(design, index=patients.index).astype(float)
        model = LogisticRegression(max_iter=1000).fit(by.loc[train.index], train["label"])
        called = model.predict_proba(by.loc[report.index])[:, 1, None] >= [0.2, 0.4]
        truth = report["label"].to_numpy()[:, None]
        expected += (called * (truth - (1 - truth) * [0.25, 2 / 3])).sum(0) / 240
    np.testing.assert_allclose(result.clinical.value, expected, atol=1e-3)
    gap = np.array(result.model.value) - result.clinical.value
    np.testing.assert_allclose(result.over_clinical.value, gap, atol=1e-12)


def test_report_labels_do_not_move_the_clinical_baseline() -> None:
    table = binary()
    patients, tool, answered = clinic(table, 1.0), {"clinical": {"numeric": ["age"]}}, []
    for flip in (0, 1):
        table.loc[table["role"] == "report", "label"] ^= flip
        evaluation = refitted(table, Binary(), tool, patients)
        clinical = Clinical.of(evaluation)
        assert clinical is not None
        answered.append(answers(evaluation, clinical, evaluation.questions[0]))
    assert len(answered[0]) == 120
    pd.testing.assert_series_equal(answered[0], answered[1], check_exact=True)


def test_a_baseline_that_is_not_there_has_a_reason() -> None:
    table = binary()
    patients, tool = clinic(table, 1.0), {"clinical": {"numeric": ["age"]}, "thresholds": [0.3]}
    assert of(table, Binary(), tool).questions[0].clinical is None
    assert "none is at hand" in of(table, Binary(), tool).questions[0].clinical_reason
    table.loc[(table["role"] == "train") & (table["fold"] == 0), "label"] = 0
    reason = of(table, Binary(), tool, patients).questions[0].clinical_reason
    assert reason == "no fold's training patients give it for 40 of 120 patients"


def test_one_class_and_thresholds_that_are_none_are_said() -> None:
    table = binary()
    assert "absent" in of(table.assign(label=0), Binary()).questions[0].reason
    for wrong in ([0.2, 1.0], [], "all", [True], 0):
        with pytest.raises(ConfigError, match=r"^thresholds: .*, expected a list of shares between 0 and 1$"):
            of(table, Binary(), {"thresholds": wrong})


def test_classes_are_questions_and_values_have_no_curve() -> None:
    requested = of(multiclass(), Multiclass(classes=("a", "b", "c"))).questions
    assert [each.name for each in requested] == ["a", "b", "c"]
    table = pd.DataFrame({"patient": ["a", "b"], "fold": 0, "role": "report", "score": [1.0, 2.0], "value": [1.0, 2.0]})
    assert Utility.compute(refitted(table, Regression())) is None
    assert Utility.compute(refitted(survival(), Cox())) is None
    assert Utility.compute(refitted(survival(), Cox(horizons={"5y": 60}))) is None


def at_horizon(patients: int = 200) -> pd.DataFrame:
    """Risks at five years that are right but for the folds' shift of the log hazard, which they do without."""
    table = survival(patients=patients)
    return table.assign(risk_5y=lambda rows: 1 - np.exp(-np.exp(rows["log_hazard"] - 10 * rows["fold"]) * 60 / 50))


def test_the_curve_at_a_horizon_is_kaplan_meiers() -> None:
    table = at_horizon()
    result = of(table, Cox(horizons={"5y": 60}), {"thresholds": [0.3, 0.6]}).horizons[0]
    reported = table[table["role"] == "report"]
    for place, at in enumerate((0.3, 0.6)):
        treated = reported[reported["risk_5y"] >= at]
        alive = KaplanMeierFitter().fit(treated["time"], treated["event"]).predict(60)
        expected = (1 - alive - alive * at / (1 - at)) * len(treated) / len(reported)
        assert result.model.value[place] == pytest.approx(expected, abs=1e-10)
    everybody = KaplanMeierFitter().fit(reported["time"], reported["event"]).predict(60)
    assert result.prevalence == pytest.approx(1 - everybody, abs=1e-12)
    assert (result.name, result.horizon, result.n) == ("risk_5y", "5y", 200)
    assert result.events == int(((reported["event"] == 1) & (reported["time"] <= 60)).sum())


def test_the_calibrated_risk_decides_where_it_is_asked_for() -> None:
    table, endpoint = at_horizon(450), Cox(horizons={"5y": 60})
    table["risk_5y"] **= 2
    requested = ({"thresholds": [0.3, 0.6], "calibration": method} for method in (None, "baseline"))
    [plain], [better] = (of(table, endpoint, tool).horizons for tool in requested)
    assert (plain.calibrated, better.calibrated) == (None, "baseline")
    assert (better.name, better.n, better.prevalence) == (plain.name, plain.n, plain.prevalence)
    assert better.model.value != plain.model.value


def test_a_clinical_cox_model_stands_beside_the_risks() -> None:
    table = at_horizon()
    hazard = table.groupby("patient")["log_hazard"].first()
    patients = pd.DataFrame({"age": (60 + 5 * hazard).round(1).astype(str)})
    tool = {"clinical": {"numeric": ["age"]}, "thresholds": [0.5]}
    result = of(table, Cox(horizons={"5y": 60}), tool, patients, resamples=20).horizons[0]
    assert result.clinical_variables == ("age",)
    assert result.clinical.value[0] == pytest.approx(result.model.value[0], abs=0.05)


def test_competing_causes_have_the_first_ones_incidence_and_a_risk_above_one_is_refused() -> None:
    table = at_horizon().rename(columns={"risk_5y": "risk_relapse_5y"})
    table["risk"] = table["risk_relapse_5y"]
    endpoint = CompetingRisks(causes=("relapse", "death"), horizons={"5y": 60})
    table["event"] = np.where(table["event"] == 1, 1 + table["patient"].astype(int) % 2, 0)
    patients = pd.DataFrame({"age": table.groupby("patient")["log_hazard"].first().round(1).astype(str)})
    result = of(table, endpoint, {"clinical": {"numeric": ["age"]}}, patients, resamples=20).horizons[0]
    assert result.name == "risk_relapse_5y"
    assert (result.clinical, result.clinical_variables) == (None, ())  # a Cox model of one cause gives no incidence
    reported = table[table["role"] == "report"]
    moments, incidence = aalen_johansen(reported["time"], reported["event"], 2)
    assert result.prevalence == pytest.approx(incidence[0, moments <= 60][-1], abs=1e-12)
    with pytest.raises(PredictionsError, match="1 of 200 values of risk_relapse_5y outside"):
        of(
            table.assign(risk_relapse_5y=np.where(table.index == table.index[table["role"] == "report"][0], 2, 0.1)),
            endpoint,
        )


@pytest.mark.slow
def test_bands_hold_the_true_net_benefit_nineteen_times_in_twenty() -> None:
    at, rng = np.array([0.2, 0.35, 0.5]), np.random.default_rng(0)

    def sample(patients: int) -> pd.DataFrame:
        values = 1.5 * rng.normal(size=patients) - 1
        label = (rng.random(patients) < expit(values)).astype(int)
        columns = {"patient": np.arange(patients).astype(str), "fold": 0, "role": "report", "label": label}
        return pd.DataFrame({**columns, "p_1": expit(1.3 * values)})

    large = sample(1_000_000)
    called, truth = large["p_1"].to_numpy()[:, None] >= at, large["label"].to_numpy()[:, None]
    true = (called * (truth - (1 - truth) * at / (1 - at))).mean(0)
    held = []
    for _ in range(300):
        result = Utility.compute(refitted(sample(200), Binary(), {"thresholds": at.tolist()}, resamples=500))
        assert result is not None
        band = result.questions[0].model
        assert band is not None
        held.append((np.array(band.low) <= true) & (true <= np.array(band.high)))
    coverage = np.mean(held, axis=0)
    assert ((coverage >= 0.91) & (coverage <= 0.98)).all(), coverage  # seen: 0.93 to 0.95

"""A calibration is kept where it helps patients whom it was not fitted to."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.survival import Cox
from mil.fitted.calibration_check import PARTS, fit_where_it_helps
from mil.fitted.calibrators import fit
from mil.fitted.specification import Specification
from mil.fitted.state import FittedState
from mil.stats.calibration_metrics import binary_log_loss, logit
from mil.stats.censoring import Censoring
from mil.stats.survival_metrics import log_losses_at
from tests.report.followed import ENDPOINT, with_risks
from tests.report.tables import names

CLASSES = ("a", "b", "c", "d", "e")


def select(patients: int, steepness: float, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = 1.5 * rng.normal(size=patients) - 0.5
    columns = {"label": (rng.random(patients) < expit(values)).astype(int), "p_1": expit(steepness * values)}
    return pd.DataFrame(columns, index=pd.Index(names(patients), name="patient"))


def of_classes(patients: int, seed: int) -> pd.DataFrame:
    """Probabilities that are right."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([6, 4, 2, 1, 1], patients)
    label = [rng.choice(CLASSES, p=share) for share in shares]
    index = pd.Index(names(patients), name="patient")
    return pd.DataFrame(shares, columns=[f"p_{name}" for name in CLASSES], index=index).assign(label=label)


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_too_extreme_probabilities_are_calibrated_and_right_ones_left_as_they_are(method: str) -> None:
    table = select(300, 3.0)
    extreme = fit_where_it_helps(method, Binary(), table)
    assert extreme.calibrator == fit(method, Binary(), table)
    [check] = extreme.checks
    assert (check.name, check.n, check.parts, check.helps) == ("1", 300, PARTS, True)
    assert check.before == pytest.approx(float(binary_log_loss(table["p_1"], table["label"])))
    assert check.after < check.before
    choices = (fit_where_it_helps(method, Binary(), select(60, 1.0, seed=seed)) for seed in range(8))
    right = next(choice for choice in choices if choice.calibrator is None)
    assert right.checks[0].after > right.checks[0].before
    assert "does not help" in right.reason(method)
    assert "5-fold cross-validation of 60 patients" in right.reason(method)


def test_the_loss_after_is_that_of_patients_whom_it_was_not_fitted_to() -> None:
    """Against scikit-learn's logistic regression without a penalty, on about the same parts."""
    table = select(400, 3.0)
    values, label = np.asarray(logit(table["p_1"]))[:, None], table["label"].to_numpy()
    losses = []
    for seed in range(4):
        part = np.random.default_rng(seed).permutation(400) % 5
        for number in range(5):
            line = LogisticRegression(C=1e9).fit(values[part != number], label[part != number])
            share = line.predict_proba(values[part == number])[:, 1]
            losses.append(float(binary_log_loss(share, label[part == number])))
    [check] = fit_where_it_helps("platt", Binary(), table).checks
    assert check.after == pytest.approx(np.mean(losses), abs=0.01)
    fitted = fit("platt", Binary(), table).apply(table)["calibrated_1"]
    assert check.after > float(binary_log_loss(fitted, label))


def test_the_order_of_rows_changes_nothing() -> None:
    table = select(80, 1.5)
    shuffled = table.sample(frac=1, random_state=0)
    assert fit_where_it_helps("platt", Binary(), table) == fit_where_it_helps("platt", Binary(), shuffled)


def test_labels_are_judged_one_by_one() -> None:
    right, extreme = select(60, 1.0, seed=1), select(60, 4.0, seed=2)
    labels = {"MSI": extreme["label"].astype(str), "EBV": right["label"].astype(str)}
    table = pd.DataFrame({**labels, "p_MSI": extreme["p_1"], "p_EBV": right["p_1"]})
    choice = fit_where_it_helps("platt", Multilabel(columns=("MSI", "EBV")), table)
    assert [(check.name, check.helps) for check in choice.checks] == [("MSI", True), ("EBV", False)]
    assert choice.calibrator is not None
    assert [curve.name for curve in choice.calibrator.curves] == ["MSI"]
    assert choice.calibrator.answers(["p_MSI"])
    assert not choice.calibrator.answers(["p_EBV"])


def test_classes_are_judged_together_and_a_rare_one_is_no_obstacle() -> None:
    endpoint = Multiclass(classes=CLASSES)
    choices = [fit_where_it_helps("temperature", endpoint, of_classes(72, seed)) for seed in range(8)]
    assert {check.name for choice in choices for check in choice.checks} == {"all classes"}
    assert any(choice.calibrator is None for choice in choices)  # the probabilities are right
    for choice in choices:
        assert (choice.calibrator is not None) == (choice.checks[0].after < choice.checks[0].before)


def test_risks_are_judged_together_by_a_loss_that_weighs_for_censoring() -> None:
    table = with_risks(patients=300, stretch=2.5).query("fold == 0").set_index("patient")
    choice = fit_where_it_helps("baseline_slope", ENDPOINT, table)
    [check] = choice.checks
    assert (check.name, check.helps, check.n) == ("all risks", True, 300)
    time, event = table["time"].to_numpy(float), table["event"].to_numpy(float)
    losses = [
        log_losses_at(table[f"risk_{name}"], time, event, at, Censoring.fit(time, event)).mean()
        for name, at in ENDPOINT.horizons.items()
    ]
    assert check.before == pytest.approx(np.mean(losses))
    few = with_risks(patients=40, seed=2).query("fold == 0").set_index("patient")
    assert fit_where_it_helps("baseline_slope", Cox(horizons={"1y": 12}), few).calibrator is None


def test_the_log_loss_without_censoring_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    risk, time = rng.random(50), rng.permutation(50) + 1.0
    plain = float(binary_log_loss(risk, time <= 20))
    assert log_losses_at(risk, time, np.ones(50), 20, Censoring.fit(time, np.ones(50))).mean() == pytest.approx(plain)
    loss = log_losses_at([0.3, 0.3, 0.2], [1, 2, 3], [0, 1, 0], 2, Censoring.fit([1, 2, 3], [0, 1, 0]))
    np.testing.assert_allclose(loss, [0, -1.5 * np.log(0.3), -1.5 * np.log(0.8)])


@pytest.mark.parametrize(("steepness", "column"), [(4.0, "calibrated_1"), (1.0, "p_1")])
def test_decisions_at_stated_probabilities_use_what_was_kept(steepness: float, column: str) -> None:
    rule: Any = {"rule": "two_cuts", "low": 0.2, "high": 0.8}
    patients = select(60, steepness, seed=1)
    state = FittedState.fit(Specification(decision=rule, calibration="platt"), Binary(), patients, patients)
    [decision] = state.decisions
    assert decision.columns == (column,)
    assert ("calibrated_1" in state.apply(patients)) == (column == "calibrated_1")
    assert (state.calibration is None) == ("calibration" in state.left_out) == (column == "p_1")
    assert len(state.calibration_checks) == 1
    assert FittedState.model_validate_json(state.model_dump_json()) == state


@pytest.mark.slow
def test_what_is_kept_helps_new_patients_more_often_than_all_that_is_fitted() -> None:
    """300 samples of 60 right probabilities: Platt's line makes new patients worse in most, what is kept in few."""
    new, worse_fitted, worse_kept = select(20000, 1.0, seed=10**6), 0, 0
    loss = float(binary_log_loss(new["p_1"], new["label"]))
    for seed in range(300):
        choice = fit_where_it_helps("platt", Binary(), select(60, 1.0, seed=seed))
        fitted = fit("platt", Binary(), select(60, 1.0, seed=seed))
        worse = float(binary_log_loss(fitted.apply(new)["calibrated_1"], new["label"])) > loss
        worse_fitted += worse
        worse_kept += worse and choice.calibrator is not None
    assert worse_fitted > 270
    assert worse_kept < 0.45 * worse_fitted

"""Recalibration: what it finds, what it keeps, what it refuses."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import PROBABILITY_CALIBRATIONS, Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import ConfigError, PredictionsError
from mil.fitted.calibrators import ISOTONIC_LEAST, Calibrator, calibrated, fit
from mil.stats import auroc
from mil.stats.calibration_metrics import intercept, log_loss, logit, slope
from mil.stats.weights import Floats

WORDS = ("a", "b", "c", "d")
ENDPOINTS: dict[str, Endpoint] = {
    "binary": Binary(),
    "multiclass": Multiclass(classes=WORDS),
    "ordinal": Ordinal(classes=WORDS),
    "multilabel": Multilabel(columns=("MSI", "EBV")),
}


def table(kind: str, patients: int = 1500, seed: int = 0, steepness: float = 3.0) -> pd.DataFrame:
    """Targets and probabilities whose logits are `steepness` times what they should be."""
    rng = np.random.default_rng(seed)
    if kind in ("multiclass", "ordinal"):
        label, shares = (_exclusive if kind == "multiclass" else _graded)(rng, patients, steepness)
        words = np.array(WORDS)[label]
        return pd.DataFrame(shares, columns=[f"p_{word}" for word in WORDS]).assign(label=words, grade=words)
    found: dict[str, Any] = {}
    for column, name in (("MSI", "p_MSI"), ("EBV", "p_EBV"), ("label", "p_1")):
        values = rng.normal(size=patients) - 0.5
        found |= {
            column: (rng.random(patients) < expit(values)).astype(int).astype(str),
            name: expit(steepness * values),
        }
    return pd.DataFrame(found)


def _exclusive(rng: np.random.Generator, patients: int, steepness: float) -> tuple[NDArray[np.int64], Floats]:
    logits = rng.normal(size=(patients, 4))
    return (logits + rng.gumbel(size=logits.shape)).argmax(1), softmax(steepness * logits, axis=1)


def _graded(rng: np.random.Generator, patients: int, steepness: float) -> tuple[NDArray[np.int64], Floats]:
    above = 1.5 * rng.normal(size=(patients, 1)) - [-1.5, 0, 1.5]  # logits of lying above each boundary
    noise = rng.logistic(size=(patients, 1))
    return (above + noise > 0).sum(1), -np.diff(expit(steepness * above), axis=1, prepend=1, append=0)


def again(calibrator: Calibrator) -> Calibrator:
    return Calibrator.model_validate_json(calibrator.model_dump_json())


@pytest.mark.parametrize("method", PROBABILITY_CALIBRATIONS)
@pytest.mark.parametrize("kind", sorted(ENDPOINTS))
def test_every_endpoint_and_method_is_nearer_to_the_truth_on_other_patients(kind: str, method: str) -> None:
    endpoint, other = ENDPOINTS[kind], table(kind, seed=1)
    found = fit(method, endpoint, table(kind)).apply(other)
    for question in endpoint.questions():
        truth = question.truth(other)
        before, after = (abs(slope(each.probability(found), truth) - 1) for each in (question, calibrated(question)))
        assert before > 0.3
        assert after < (0.35 if method == "isotonic" else 0.25)


@pytest.mark.parametrize("method", PROBABILITY_CALIBRATIONS)
@pytest.mark.parametrize("kind", sorted(ENDPOINTS))
def test_probabilities_of_exclusive_classes_sum_to_one_and_all_are_probabilities(kind: str, method: str) -> None:
    found = fit(method, ENDPOINTS[kind], table(kind)).apply(table(kind, 300, seed=1))
    names = {"binary": ["1"], "multilabel": ["MSI", "EBV"]}.get(kind, list(WORDS))
    assert list(found.columns[found.columns.str.startswith("calibrated_")]) == [f"calibrated_{name}" for name in names]
    values = found[[f"calibrated_{name}" for name in names]].to_numpy()
    assert ((values >= 0) & (values <= 1)).all()
    if kind in ("multiclass", "ordinal"):
        np.testing.assert_allclose(values.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("method", PROBABILITY_CALIBRATIONS)
@pytest.mark.parametrize("kind", sorted(ENDPOINTS))
def test_what_was_fitted_comes_back_from_json_to_the_last_bit(kind: str, method: str) -> None:
    fitted, other = fit(method, ENDPOINTS[kind], table(kind)), table(kind, 200, seed=1)
    assert again(fitted) == fitted
    pd.testing.assert_frame_equal(again(fitted).apply(other), fitted.apply(other), check_exact=True)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from(["temperature", "platt"]))
def test_the_order_of_patients_stays(seed: int, method: str) -> None:
    select, other = table("binary", 60, seed), table("binary", 200, seed + 1)
    found = fit(method, Binary(), select).apply(other)
    label = other["label"] == "1"
    assert auroc(found["calibrated_1"], label) == auroc(found["p_1"], label)


def test_platt_is_the_likeliest_line_of_his_smoothed_targets() -> None:
    select = table("binary", 80)
    positive, values = (select["label"] == "1").to_numpy(), logit(select["p_1"])
    yes, no = (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2)
    target = np.where(positive, yes, no)

    def lost(line: Any) -> float:
        eta = line[0] + line[1] * values
        return float(np.sum(np.logaddexp(0, eta) - target * eta))

    curve = fit("platt", Binary(), select).curves[0]
    np.testing.assert_allclose([curve.intercept, curve.slope], minimize(lost, [0, 1], tol=1e-12).x, rtol=1e-4)
    assert (curve.n, curve.positives) == (80, int(positive.sum()))


def test_temperature_is_the_likeliest_one_and_finds_what_was_done() -> None:
    select = table("multiclass", 4000)
    fitted = fit("temperature", ENDPOINTS["multiclass"], select)
    assert 1 / fitted.curves[0].slope == pytest.approx(3, rel=0.1)
    shares = np.log(select[[f"p_{word}" for word in WORDS]].to_numpy())
    truth = (select["label"].to_numpy()[:, None] == np.array(WORDS)).astype(float)
    best = min(np.linspace(0.2, 0.5, 301), key=lambda power: log_loss(np.exp(log_softmax(power * shares, 1)), truth))
    assert fitted.curves[0].slope == pytest.approx(best, abs=0.003)
    found = fitted.apply(select)
    for frame, start in ((found, "p_"), (found, "calibrated_")):
        called = frame[[f"{start}{word}" for word in WORDS]].to_numpy().argmax(1)
        np.testing.assert_array_equal(called, shares.argmax(1))


def test_isotonic_is_scikit_learns_kept_from_zero_and_one() -> None:
    select = table("binary")
    found = fit("isotonic", Binary(), select).apply(select)["calibrated_1"].to_numpy()
    oracle = IsotonicRegression().fit_transform(select["p_1"], select["label"].astype(float))
    edge = 1 / (len(select) + 2)
    np.testing.assert_allclose(found, np.clip(oracle, edge, 1 - edge), atol=1e-9)
    assert (np.diff(found[np.argsort(select["p_1"])]) >= 0).all()


def test_isotonic_is_refused_to_few_patients() -> None:
    with pytest.raises(PredictionsError, match=f"isotonic of 1: 999 patients .* expected {ISOTONIC_LEAST} or"):
        fit("isotonic", Binary(), table("binary", 999))


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_few_patients_told_apart_without_error_promise_no_certainty(method: str) -> None:
    select = pd.DataFrame(
        {"label": ["0"] * 10 + ["1"] * 10, "p_1": np.r_[np.linspace(0.1, 0.3, 10), np.linspace(0.6, 0.9, 10)]}
    )
    fitted = fit(method, Binary(), select)
    found = fitted.apply(select)["calibrated_1"].to_numpy()
    assert 0.001 < found.min() < found.max() < 0.999
    if method == "temperature":  # the likelihood has no maximum: twenty of twenty show a loss of log(22 / 21)
        assert "told apart without error" in (fitted.curves[0].note or "")
        lost = log_loss(np.stack([1 - found, found], 1), np.eye(2)[select["label"].astype(int)])
        assert lost == pytest.approx(np.log(22 / 21), rel=1e-6)


def test_the_temperature_of_classes_told_apart_is_bounded_and_said_so() -> None:
    label = np.repeat(WORDS, 5)
    shares = np.where(label[:, None] == np.array(WORDS), 0.4, 0.2)
    curve = fit("temperature", ENDPOINTS["multiclass"], exclusive(label, shares)).curves[0]
    assert 1 < curve.slope < 20
    assert "bounded at" in (curve.note or "")


def test_a_rare_class_has_no_target_of_one_half() -> None:
    """Of 60 patients in 4 classes, 2 of the rarest: plain maximum likelihood, without smoothed targets."""
    rng = np.random.default_rng(0)
    label = np.repeat(WORDS, [30, 20, 8, 2])
    logits = 1.2 * (label[:, None] == np.array(WORDS)) + rng.normal(size=(60, 4))
    select, shares = exclusive(label, softmax(logits, axis=1)), log_softmax(logits, axis=1)
    truth = (label[:, None] == np.array(WORDS)).astype(float)
    powers = np.linspace(0.2, 3, 28001)
    best = powers[np.argmin([log_loss(np.exp(log_softmax(power * shares, 1)), truth) for power in powers[::20]]) * 20]
    curve = fit("temperature", ENDPOINTS["multiclass"], select).curves[0]
    assert curve.slope == pytest.approx(best, abs=0.003)
    assert (curve.note, curve.positives) == (None, 2)


def exclusive(label: NDArray[np.str_], shares: Floats) -> pd.DataFrame:
    return pd.DataFrame(shares, columns=[f"p_{word}" for word in WORDS]).assign(label=label)


@pytest.mark.parametrize("method", ["temperature", "platt"])
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_score_that_falls_with_the_truth_is_refused_and_not_turned(kind: str, method: str) -> None:
    select = table(kind, 200, steepness=-1.0)
    with pytest.raises(PredictionsError, match=r"expected (one that rises|some that do)"):
        fit(method, ENDPOINTS[kind], select)


@pytest.mark.parametrize("method", ["temperature", "platt"])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "ordinal"])
def test_patients_of_one_class_are_refused(kind: str, method: str) -> None:
    select = table(kind, 50).assign(label="1" if kind == "binary" else "a", grade="a")
    for few in (select, select.head(0)):
        with pytest.raises(PredictionsError, match=f"calibration {method}.*, expected"):
            fit(method, ENDPOINTS[kind], few)


def test_one_score_for_all_is_refused() -> None:
    with pytest.raises(PredictionsError, match="slope of 0"):
        fit("platt", Binary(), table("binary", 50).assign(p_1=0.4))


def test_a_label_that_cannot_be_fitted_has_no_numbers_and_the_other_has() -> None:
    select = table("multilabel", 60).assign(EBV="0")
    fitted = fit("platt", ENDPOINTS["multilabel"], select)
    found = again(fitted).apply(select)
    assert found["calibrated_EBV"].isna().all()
    assert found["calibrated_MSI"].notna().all()
    with pytest.raises(PredictionsError, match="of MSI: 60 patients with 0 positives"):
        fit("platt", ENDPOINTS["multilabel"], select.assign(MSI="0"))


def test_labels_that_are_not_known_have_no_part() -> None:
    select = table("multilabel", 120)
    hidden = select.assign(MSI=np.where(np.arange(120) < 60, select["MSI"], ""))
    assert (
        fit("platt", ENDPOINTS["multilabel"], hidden).curves[0]
        == fit("platt", ENDPOINTS["multilabel"], select.head(60)).curves[0]
    )


def test_platt_of_grades_is_right_at_every_boundary() -> None:
    endpoint, other = ENDPOINTS["ordinal"], table("ordinal", 4000, seed=1)
    found = fit("platt", endpoint, table("ordinal", 4000)).apply(other)
    for question in endpoint.questions():
        assert intercept(calibrated(question).probability(found), question.truth(other)) == pytest.approx(0, abs=0.12)


@pytest.mark.parametrize(
    ("method", "endpoint", "words"),
    [
        ("beta", Binary(), "method 'beta', expected one of temperature, platt, isotonic or null"),
        ("platt", Cox(), "endpoint time, event has no horizons, expected null"),
        ("platt", Cox(horizons={"5y": 60}), "method 'platt', expected one of baseline, baseline_slope or null"),
        ("baseline", Binary(), "method 'baseline', expected one of temperature, platt, isotonic or null"),
        ("platt", Regression(), "endpoint score has no classes, expected null"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_one_line(method: str, endpoint: Endpoint, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        fit(method, endpoint, table("binary", 50))
    assert "\n" not in str(error.value)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(PredictionsError, match="no column 'p_1'"):
        fit("platt", Binary(), table("binary", 50)).apply(pd.DataFrame({"p_0": [0.2]}))

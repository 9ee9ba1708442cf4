"""Calibration of probabilities and risks, fitted to the patients of model selection.

- `temperature`: every logit is divided by one number, fitted by plain maximum likelihood (Guo et al., ICML 2017): one
  number for exclusive classes, one for each label. Where the select patients are told apart without error the
  likelihood has no maximum: the temperature is then bounded, see `bounded_temperature`, and the curve says so.
- `platt`: a logistic regression on the logit of each question (Platt, Advances in Large Margin Classifiers, 1999).
- `isotonic`: an increasing step function of each question's probability, its corners joined by lines (Zadrozny & Elkan,
  KDD 2002), at least one patient away from 0 and 1. Below 1,000 patients it follows the noise (Niculescu-Mizil &
  Caruana, ICML 2005), and is refused.

The targets of Platt's line are smoothed as in his paper, `(n + 1) / (n + 2)` for positives and `1 / (n + 2)` for
negatives, each with its own n. The one number of a temperature needs no such prior, which with several classes would
give a class of 5 patients a target of one half. A slope that is not positive is refused, so that temperature and Platt
keep the order of patients within each question; isotonic may tie them.

Whether a calibration helps patients whom it was not fitted to is checked in `mil.fitted.calibration_check`.

Risks at a horizon are calibrated by `baseline` and `baseline_slope`, see `mil.fitted.risk_calibration`.

Classes are calibrated each against the rest and divided by their sum, which may change their order. Grades are
calibrated boundary by boundary, and no boundary may be likelier than the one below it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_expit, log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.question import Question
from mil.errors import ConfigError, PredictionsError
from mil.fitted import risk_calibration
from mil.fitted.probability_maps import Curve, Floats
from mil.stats.calibration_metrics import logit
from mil.stats.logistic import logistic

ISOTONIC_LEAST = 1000
RAW, CALIBRATED = "p_", "calibrated_"
CLASSES, GRADES, RISKS = "classes", "grades", "risks"
SELECT, LOCAL = "select", "local cohort"
LEAST, MOST = 1e-3, 1e3
"""Bounds between which the inverse temperature is searched."""


class Calibrator(BaseModel):
    """Calibration curves fitted to select patients, and how they are applied to later ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    columns: tuple[str, ...]
    """`p_<class>` of all classes or labels, or `risk_<horizon>` of all causes and horizons"""
    curves: tuple[Curve, ...]
    joined: str | None = None
    """`classes` or `grades` where probabilities have to sum to one, `risks` where they may not fall with time"""
    horizons: int = 0
    """of each cause, where they are risks"""
    on: str = SELECT
    """patients that it was fitted to"""

    @property
    def n(self) -> int:
        """Number of patients that it was fitted to."""
        return max(curve.n for curve in self.curves)

    def answers(self, columns: Collection[str]) -> bool:
        """Return whether each of these columns of predictions has a calibrated one with numbers."""
        fitted = {name for curve in self.curves for name in curve.columns}
        return set(columns) <= (set(self.columns) if self.joined in (CLASSES, GRADES) else fitted)

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table with `calibrated_<class>` for each `p_<class>`, `calibrated_risk_...` for each `risk_...`.

        A label or horizon that could not be fitted is NaN.

        Raises:
            PredictionsError: a column is missing.
        """
        if missing := [name for name in self.columns if name not in table]:
            raise PredictionsError(f"calibration: no column {missing[0]!r}, found {', '.join(map(str, table.columns))}")
        values = self._shares(table) if self.joined in (CLASSES, GRADES) else self._each(table)  # (p, c)
        if self.joined == RISKS:
            values = risk_calibration.rising(values, self.horizons)
        return table.assign(**dict(zip(map(calibrated_name, self.columns), values.T, strict=True)))

    def _each(self, table: pd.DataFrame) -> Floats:
        fitted = {curve.columns: curve(table) for curve in self.curves}
        absent = np.full(len(table), np.nan)
        return np.stack([fitted.get((name,), absent) for name in self.columns], axis=1)

    def _shares(self, table: pd.DataFrame) -> Floats:
        if self.method == "temperature":
            return np.asarray(softmax(self.curves[0].slope * _log_shares(table, self.columns), axis=1))
        values = np.stack([curve(table) for curve in self.curves], axis=1)  # (p, c) or (p, c - 1)
        if self.joined == CLASSES:
            return np.asarray(values / np.maximum(values.sum(1, keepdims=True), 1e-300))
        above = np.minimum.accumulate(values, axis=1)
        return -np.diff(above, axis=1, prepend=1.0, append=0.0)


def check(method: str, endpoint: Endpoint) -> None:
    """Check that a method exists for an endpoint.

    Raises:
        ConfigError: if it does not.
    """
    methods = endpoint.calibration_methods
    if methods and method not in methods:
        raise ConfigError(f"calibration: method {method!r}, expected one of {', '.join(methods)} or null")
    if not methods:
        lacks = "classes" if endpoint.survival is None else "horizons"
        raise ConfigError(f"calibration {method}: endpoint {', '.join(endpoint.columns)} has no {lacks}, expected null")


def fit(method: str, endpoint: Endpoint, select: pd.DataFrame, share: float = 1.0) -> Calibrator:
    """Fit a method to the patients of model selection: targets and `p_` or `risk_` columns of a checked table.

    Missing labels are left out. A label without both answers gets no curve as long as another has one, and neither does
    a horizon with too few events.

    Args:
        method: One of the endpoint's `calibration_methods`.
        endpoint: What was predicted.
        select: A row a patient.
        share: Of all patients that these are: in cross-validation, where so much fewer are enough.

    Raises:
        ConfigError: another method, or an endpoint without probabilities of classes and without horizons.
        PredictionsError: too few patients, one class only, or a score that does not rise with the truth.
    """
    check(method, endpoint)
    if endpoint.survival is not None:
        risk_curves = risk_calibration.fit(method, endpoint, select, share)
        columns = tuple(name for names in endpoint.survival.all_risk_columns() for name in names)
        horizons = len(endpoint.survival.horizons)
        return Calibrator(method=method, columns=columns, curves=risk_curves, joined=RISKS, horizons=horizons)
    questions = endpoint.questions()
    if len(endpoint.class_columns) > 1:
        columns, joined = endpoint.class_columns, GRADES if endpoint.ordered else CLASSES
        if method == "temperature":
            curves: tuple[Curve, ...] = (_temperature(endpoint, columns, select),)
        else:
            curves = tuple(_curve_of(method, question, select, share) for question in questions)
        return Calibrator(method=method, columns=columns, curves=curves, joined=joined)
    columns = tuple(question.columns[0] for question in questions)
    return Calibrator(method=method, columns=columns, curves=_possible_curves(method, questions, select, share))


def calibrated_name(column: str) -> str:
    """Return `calibrated_<class>` for `p_<class>`, `calibrated_risk_<horizon>` for `risk_<horizon>`."""
    return f"{CALIBRATED}{column.removeprefix(RAW)}"


def calibrated(question: Question) -> Question:
    """Return the same question, answered by the calibrated columns."""
    return replace(question, columns=tuple(map(calibrated_name, question.columns)))


def raw_and_calibrated(columns: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return columns of predictions, and the calibrated ones that a decision may cut in their place."""
    return tuple(columns), tuple(map(calibrated_name, columns))


def _possible_curves(
    method: str, questions: Sequence[Question], select: pd.DataFrame, share: float
) -> tuple[Curve, ...]:
    """Return the curves of the questions for which there are enough patients; at least one."""
    curves, errors = [], list[PredictionsError]()
    for question in questions:
        try:
            curves.append(_curve_of(method, question, select, share))
        except PredictionsError as error:
            errors.append(error)
    if not curves:
        raise errors[0]
    return tuple(curves)


def _curve_of(method: str, question: Question, select: pd.DataFrame, share: float) -> Curve:
    truth = question.truth(select)
    labelled = ~np.isnan(truth)
    probability, positive = question.probability(select)[labelled], truth[labelled] == 1
    n, positives = len(positive), int(positive.sum())
    who = f"calibration {method} of {question.name}: {n} patients with {positives} positives"
    if not 0 < positives < n:
        raise PredictionsError(f"{who}, expected both positives and negatives")
    blank = Curve(name=question.name, columns=question.columns, n=n, positives=positives)
    if method == "isotonic":
        if n < int(share * ISOTONIC_LEAST):
            raise PredictionsError(f"{who}, expected {ISOTONIC_LEAST} or more patients; platt needs fewer")
        return blank.model_copy(update={"corners": _isotonic(probability, positive)})
    values, intercept, note = logit(probability), 0.0, None
    if method == "temperature":
        right = np.where(positive, values, -values)
        slope, note = _likeliest(lambda power: -float(log_expit(power * right).mean()), n)
    else:
        intercept, slope = _line(values, _smoothed(positive))
    if not slope > 2 * LEAST:
        raise PredictionsError(f"{who}, whose score has a slope of {slope:.3g}, expected one that rises with the truth")
    return blank.model_copy(update={"intercept": intercept, "slope": slope, "note": note})


def _line(values: Floats, target: Floats) -> tuple[float, float]:
    """Return intercept and slope of the likeliest line; the slope is 0 where the values do not vary."""
    if not np.ptp(values):
        return 0.0, 0.0
    coefficients = logistic(np.stack([np.ones_like(values), values], 1), target)[0]
    return float(coefficients[0]), float(coefficients[1])


def _temperature(endpoint: Endpoint, columns: Sequence[str], select: pd.DataFrame) -> Curve:
    label = endpoint.labels(select)
    if len(np.unique(label)) < 2:
        patients = f"{len(label)} patients of {len(np.unique(label))} class"
        raise PredictionsError(f"calibration temperature: {patients}, expected two or more classes")
    shares, truth = _log_shares(select, columns), np.eye(len(columns))[label]
    inverse, note = _likeliest(
        lambda power: -float((truth * log_softmax(power * shares, axis=1)).sum(1).mean()), len(label)
    )
    if inverse < 2 * LEAST:
        patients = f"{len(label)} patients whose probabilities do not rise with their classes"
        raise PredictionsError(f"calibration temperature: {patients}, expected some that do")
    return Curve(
        name=", ".join(endpoint.classes),
        columns=tuple(columns),
        n=len(label),
        positives=int(np.bincount(label, minlength=len(columns)).min()),
        slope=inverse,
        note=note,
    )


def _likeliest(loss: Callable[[float], float], n: int) -> tuple[float, str | None]:
    """Return the inverse temperature with the smallest mean log loss of n patients, and what bounded it."""
    least, most = np.log(LEAST), np.log(MOST)
    best = minimize_scalar(
        lambda power: loss(float(np.exp(power))), bounds=(least, most), method="bounded", options={"xatol": 1e-10}
    )
    return bounded_temperature(loss, float(np.exp(best.x)), n)


def bounded_temperature(loss: Callable[[float], float], inverse: float, n: int) -> tuple[float, str | None]:
    """Return the inverse temperature, lower where n patients are told apart without error.

    Their likelihood rises without end. They cannot show a log loss below that of the rule of succession, `log((n + 2) /
    (n + 1))` for n successes of n, and the inverse temperature with this loss is the highest.
    """
    lowest = float(np.log1p(1 / (n + 1)))
    if loss(inverse) >= lowest or loss(LEAST) <= lowest:
        return inverse, None
    bound = float(brentq(lambda power: loss(power) - lowest, LEAST, inverse, xtol=1e-12))
    return bound, f"{n} patients are told apart without error; the inverse temperature is bounded at {bound:.3g}"


def _isotonic(probability: Floats, positive: NDArray[np.bool_]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    edge = 1 / (len(positive) + 2)
    regression = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(probability, positive.astype(np.float64))
    return tuple(map(float, regression.X_thresholds_)), tuple(map(float, regression.y_thresholds_))


def _smoothed(positive: NDArray[np.bool_]) -> Floats:
    """Return targets `(p,)` as if each class had one more patient of each."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _log_shares(table: pd.DataFrame, columns: Sequence[str]) -> Floats:
    return np.asarray(np.log(np.maximum(table[list(columns)].to_numpy(np.float64), 1e-300)))

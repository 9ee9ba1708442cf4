"""Probabilities that were wrong in a way that select patients show, put right and frozen.

- `temperature`: every logit divided by one number, fitted by likelihood (Guo et al., ICML 2017): one for all classes
  that exclude each other, one for each label.
- `platt`: a line through the logit of each question (Platt, Advances in Large Margin Classifiers, 1999).
- `isotonic`: a rising step curve of each question's probability, its corners joined by lines (Zadrozny & Elkan, KDD
  2002), kept one patient away from 0 and 1. Below 1,000 patients it follows the noise (Niculescu-Mizil & Caruana, ICML
  2005), and is refused.

The truth of the first two is smoothed as Platt smooths his, `(n + 1) / (n + 2)` for positives and `1 / (n + 2)` for
negatives, each with its own n, and likewise for more classes: select patients are few, often told apart without error,
and plain likelihood would then promise certainty. A slope that is not positive is refused, so that temperature and
Platt keep the order of patients in every question of its own; isotonic may tie them.

Of risks at a horizon there are `baseline` and `baseline_slope`, see `mil.fitted.risk_calibration`.

Classes are recalibrated each against the rest and divided by their sum, which may change their order. Grades are
recalibrated boundary by boundary, and a boundary may not be likelier than the one below.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
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
_LEAST, _MOST = 1e-3, 1e3
"""Of the inverse temperature."""


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
    """whose patients it was fitted to"""

    @property
    def n(self) -> int:
        """Patients that it was fitted to."""
        return max(curve.n for curve in self.curves)

    def answers(self, columns: Collection[str]) -> bool:
        """Whether each of these columns of predictions has a calibrated one with numbers."""
        fitted = {name for curve in self.curves for name in curve.columns}
        return set(columns) <= (set(self.columns) if self.joined in (CLASSES, GRADES) else fitted)

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with `calibrated_<class>` beside each `p_<class>`, `calibrated_risk_...` beside each `risk_...`.

        NaN for a label, or a horizon, that could not be fitted.

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
    """Refuses a method that does not exist, or not for this endpoint.

    Raises:
        ConfigError: it is refused.
    """
    methods = endpoint.calibration_methods
    if methods and method not in methods:
        raise ConfigError(f"calibration: method {method!r}, expected one of {', '.join(methods)} or null")
    if not methods:
        lacks = "classes" if endpoint.survival is None else "horizons"
        raise ConfigError(f"calibration {method}: endpoint {', '.join(endpoint.columns)} has no {lacks}, expected null")


def fit(method: str, endpoint: Endpoint, select: pd.DataFrame) -> Calibrator:
    """Fits a method to select patients: targets and `p_` or `risk_` columns of a checked table.

    Labels that are not known are left out; a label without both answers gets no curve, as long as another has one, and
    neither does a horizon with too few events.

    Raises:
        ConfigError: another method, or an endpoint without probabilities of classes and without horizons.
        PredictionsError: too few patients, one class only, or a score that does not rise with the truth.
    """
    check(method, endpoint)
    if endpoint.survival is not None:
        found = risk_calibration.fit(method, endpoint, select)
        columns = tuple(name for names in endpoint.survival.all_risk_columns() for name in names)
        horizons = len(endpoint.survival.horizons)
        return Calibrator(method=method, columns=columns, curves=found, joined=RISKS, horizons=horizons)
    asked = endpoint.questions()
    if len(endpoint.class_columns) > 1:
        columns, joined = endpoint.class_columns, GRADES if endpoint.ordered else CLASSES
        if method == "temperature":
            curves: tuple[Curve, ...] = (_temperature(endpoint, columns, select),)
        else:
            curves = tuple(_curve_of(method, one, select) for one in asked)
        return Calibrator(method=method, columns=columns, curves=curves, joined=joined)
    curves = _those_that_fit(method, asked, select)
    return Calibrator(method=method, columns=tuple(one.columns[0] for one in asked), curves=curves)


def calibrated_name(column: str) -> str:
    """`calibrated_<class>` of `p_<class>`, `calibrated_risk_<horizon>` of `risk_<horizon>`."""
    return f"{CALIBRATED}{column.removeprefix(RAW)}"


def calibrated(question: Question) -> Question:
    """The same question, answered by the calibrated columns."""
    return replace(question, columns=tuple(map(calibrated_name, question.columns)))


def either(columns: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the same decision may cut: columns of predictions, or the calibrated ones."""
    return tuple(columns), tuple(map(calibrated_name, columns))


def _those_that_fit(method: str, asked: Sequence[Question], select: pd.DataFrame) -> tuple[Curve, ...]:
    curves, wrong = [], list[PredictionsError]()
    for question in asked:
        try:
            curves.append(_curve_of(method, question, select))
        except PredictionsError as error:
            wrong.append(error)
    if not curves:
        raise wrong[0]
    return tuple(curves)


def _curve_of(method: str, question: Question, select: pd.DataFrame) -> Curve:
    truth = question.truth(select)
    known = ~np.isnan(truth)
    probability, positive = question.probability(select)[known], truth[known] == 1
    n, positives = len(positive), int(positive.sum())
    who = f"calibration {method} of {question.name}: {n} patients with {positives} positives"
    if not 0 < positives < n:
        raise PredictionsError(f"{who}, expected both positives and negatives")
    blank = Curve(name=question.name, columns=question.columns, n=n, positives=positives)
    if method == "isotonic":
        if n < ISOTONIC_LEAST:
            raise PredictionsError(f"{who}, expected {ISOTONIC_LEAST} or more patients; platt needs fewer")
        return blank.model_copy(update={"corners": _isotonic(probability, positive)})
    intercept, slope = _line(logit(probability), _smoothed(positive.astype(np.int64), 2)[:, 1], method)
    if not slope > _LEAST:
        raise PredictionsError(f"{who}, whose score has a slope of {slope:.3g}, expected one that rises with the truth")
    return blank.model_copy(update={"intercept": intercept, "slope": slope})


def _line(values: Floats, target: Floats, method: str) -> tuple[float, float]:
    """Intercept and slope, the first of them zero for a temperature; a slope of zero where the values do not vary."""
    if not np.ptp(values):
        return 0.0, 0.0
    bare = method == "temperature"
    found = logistic(values[:, None] if bare else np.stack([np.ones_like(values), values], 1), target)[0]
    return (0.0, float(found[0])) if bare else (float(found[0]), float(found[1]))


def _temperature(endpoint: Endpoint, columns: Sequence[str], select: pd.DataFrame) -> Curve:
    label, classes = endpoint.labels(select), len(columns)
    if len(np.unique(label)) < 2:
        found = f"{len(label)} patients of {len(np.unique(label))} class"
        raise PredictionsError(f"calibration temperature: {found}, expected two or more classes")
    shares, target = _log_shares(select, columns), _smoothed(label, classes)

    def lost(power: float) -> float:
        return -float((target * log_softmax(np.exp(power) * shares, axis=1)).sum())

    least, most = np.log(_LEAST), np.log(_MOST)
    inverse = float(np.exp(minimize_scalar(lost, bounds=(least, most), method="bounded", options={"xatol": 1e-10}).x))
    if inverse < 2 * _LEAST:
        found = f"{len(label)} patients whose probabilities do not rise with their classes"
        raise PredictionsError(f"calibration temperature: {found}, expected some that do")
    return Curve(
        name=", ".join(endpoint.classes),
        columns=tuple(columns),
        n=len(label),
        positives=int(np.bincount(label).min()),
        slope=inverse,
    )


def _isotonic(probability: Floats, positive: NDArray[np.bool_]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    edge = 1 / (len(positive) + 2)
    found = IsotonicRegression(y_min=edge, y_max=1 - edge).fit(probability, positive.astype(np.float64))
    return tuple(map(float, found.X_thresholds_)), tuple(map(float, found.y_thresholds_))


def _smoothed(label: NDArray[np.int64], classes: int) -> Floats:
    """Targets `(p, c)` that sum to one, as if each class had been seen as one patient of every class more."""
    amounts = np.bincount(label, minlength=classes)[label][:, None]
    return np.asarray((np.eye(classes)[label] * amounts + 1) / (amounts + classes))


def _log_shares(table: pd.DataFrame, columns: Sequence[str]) -> Floats:
    return np.asarray(np.log(np.maximum(table[list(columns)].to_numpy(np.float64), 1e-300)))

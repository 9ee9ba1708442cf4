"""Keep a calibration only where it helps patients whom it was not fitted to.

A calibration fitted to few patients can be worse than none. Each one is therefore fitted to four fifths of the select
patients and applied to the rest, in turn and with four different partitions, and the log loss of these patients is
compared with that of the scores as they are. It is kept where its log loss is lower: of exclusive classes, of grades
and of risks as a whole, so that they stay coherent, of labels one by one. Risks have the log loss of having the event
by each horizon, mean over the horizons, patients weighted by the inverse probability of censoring. The partitions
depend on the patients' names and outcomes only.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival_view import SurvivalView
from mil.errors import PredictionsError
from mil.fitted.calibrators import CLASSES, GRADES, RISKS, Calibrator, calibrated_name, fit
from mil.stats.calibration_metrics import log_losses
from mil.stats.censoring import Censoring
from mil.stats.estimate import Model, format_number
from mil.stats.survival_metrics import log_losses_at
from mil.stats.weights import Floats

PARTS, PARTITIONS = 5, 4
ALL_CLASSES, ALL_RISKS = "all classes", "all risks"


class CalibrationCheck(Model):
    """Whether a calibration helps select patients whom it was not fitted to."""

    name: str
    """of the question, or `all classes`, `all risks`"""
    score: Literal["log loss"] = "log loss"
    """smaller is better; of risks weighted by the inverse probability of censoring"""
    before: float
    """mean log loss of the scores as they are"""
    after: float
    """mean log loss with a calibration that was fitted to other patients"""
    n: int
    """patients"""
    parts: int = PARTS
    """of the cross-validation"""
    helps: bool
    """whether the log loss is lower with it; only then it is applied"""

    @property
    def sentence(self) -> str:
        """What was compared, in words."""
        losses = f"log loss {format_number(self.before)} without it and {format_number(self.after)} with it"
        return f"{self.name}: {losses}, by {self.parts}-fold cross-validation of {self.n} patients"


class Choice(NamedTuple):
    """A calibration as far as it helps."""

    calibrator: Calibrator | None
    """None where it helps nowhere"""
    checks: tuple[CalibrationCheck, ...]

    def reason(self, method: str) -> str:
        """Return why nothing is calibrated."""
        compared = "; ".join(check.sentence for check in self.checks)
        return f"calibration {method} does not help, and the scores stay as they are: {compared}"


class _Compared(NamedTuple):
    """Columns that are kept or not together."""

    name: str
    columns: tuple[str, ...]
    strata: NDArray[np.int64]
    """within which patients are divided into parts, `(p,)`"""


def fit_where_it_helps(method: str, endpoint: Endpoint, select: pd.DataFrame) -> Choice:
    """Fit a calibration and keep of it what lowers the log loss by cross-validation.

    Args:
        method: One of the endpoint's `calibration_methods`.
        endpoint: What was predicted.
        select: Targets and scores, a row a patient, indexed by patient.

    Raises:
        ConfigError: no such method for the endpoint.
        PredictionsError: too few patients to fit anything, or a score that does not rise with the truth.
    """
    select = select.sort_index(key=lambda names: names.astype(str))
    full = fit(method, endpoint, select)
    checks = tuple(_checks(full, endpoint, select))
    helpful = {check.name for check in checks if check.helps}
    if full.joined is not None:
        return Choice(full if helpful else None, checks)
    curves = tuple(curve for curve in full.curves if curve.name in helpful)
    return Choice(full.model_copy(update={"curves": curves}) if curves else None, checks)


def _checks(full: Calibrator, endpoint: Endpoint, select: pd.DataFrame) -> Iterator[CalibrationCheck]:
    for compared in _compared(full, endpoint, select):
        losses = _losses(full, endpoint, select, compared, compared.columns, select)
        names = tuple(map(calibrated_name, compared.columns))
        tables = (_of_others(full, endpoint, select, compared.strata, seed) for seed in range(PARTITIONS))
        after = [_losses(full, endpoint, select, compared, names, table) for table in tables]
        counted = ~np.isnan(losses)
        before, after_all = float(losses[counted].mean()), float(np.mean([each[counted].mean() for each in after]))
        yield CalibrationCheck(
            name=compared.name, before=before, after=after_all, n=int(counted.sum()), helps=after_all < before
        )


def _compared(full: Calibrator, endpoint: Endpoint, select: pd.DataFrame) -> Iterator[_Compared]:
    if full.joined in (CLASSES, GRADES):
        yield _Compared(ALL_CLASSES, full.columns, endpoint.labels(select).astype(np.int64))
        return
    if full.joined == RISKS:
        columns = tuple(name for curve in full.curves for name in curve.columns)
        yield _Compared(ALL_RISKS, columns, endpoint.strata(endpoint.encode(select)))
        return
    truths = {question.columns: question.truth(select) for question in endpoint.questions()}
    for curve in full.curves:
        strata = np.nan_to_num(truths[curve.columns], nan=2.0).astype(np.int64)
        yield _Compared(curve.name, curve.columns, strata)


def _of_others(
    full: Calibrator, endpoint: Endpoint, select: pd.DataFrame, strata: NDArray[np.int64], seed: int
) -> pd.DataFrame:
    """Return the select patients, each calibrated by patients of the other parts, unless these are too few."""
    part, pieces = deal_out(strata, seed), list[pd.DataFrame]()
    for number in np.unique(part):
        others, rows = select[part != number], select[part == number]
        names = {calibrated_name(column): rows[column].astype(np.float64) for column in full.columns}
        try:
            fitted = fit(full.method, endpoint, others, (PARTS - 1) / PARTS).apply(rows)
        except PredictionsError:
            fitted = rows.assign(**names)
        pieces.append(rows.assign(**{name: fitted[name].fillna(raw) for name, raw in names.items()}))
    return pd.concat(pieces).loc[select.index]


def deal_out(strata: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the part of each patient, `(p,)`: every stratum is dealt out to the parts in turn."""
    order = np.random.default_rng(seed).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    part = np.empty(len(strata), np.int64)
    part[order] = np.arange(len(strata)) % PARTS
    return part


def _losses(
    full: Calibrator,
    endpoint: Endpoint,
    select: pd.DataFrame,
    compared: _Compared,
    columns: tuple[str, ...],
    table: pd.DataFrame,
) -> Floats:
    """Return the log loss of each patient by these columns of a table of the same patients, `(p,)`; NaN: no answer."""
    values = table[list(columns)].to_numpy(np.float64)
    if full.joined in (CLASSES, GRADES):
        return log_losses(values, np.eye(len(columns))[endpoint.labels(select)])
    view = endpoint.survival
    if view is not None:
        of_risks = zip(compared.columns, values.T, strict=True)
        losses = [_risk_losses(view, endpoint, select, column, risk) for column, risk in of_risks]
        return np.asarray(np.mean(losses, axis=0))
    [question] = [question for question in endpoint.questions() if question.columns == compared.columns]
    truth = question.truth(select)
    answered = ~np.isnan(truth)
    of_answered = np.full(len(truth), np.nan)
    shares, yes = values[answered, 0], truth[answered]
    of_answered[answered] = log_losses(np.stack([1 - shares, shares], 1), np.stack([1 - yes, yes], 1))
    return of_answered


def _risk_losses(view: SurvivalView, endpoint: Endpoint, select: pd.DataFrame, column: str, risk: Floats) -> Floats:
    time, code = view.event_times(endpoint.encode(select)).numpy().T
    times = sorted(view.horizons.values())
    [(cause, at)] = [
        (cause, at)
        for cause, names in enumerate(view.all_risk_columns(), 1)
        for name, at in zip(names, times, strict=True)
        if name == column
    ]
    event = np.where(code == cause, 1, np.where(code > 0, 2, 0))
    return log_losses_at(risk, time, event, at, Censoring.fit(time, code))

"""How well risks order survival times, for every resample of the patients at once."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.metrics.resamples import Floats, as_given, as_rows, ratio

_BLOCK = 2**22
"""Pairs held at once, 32 MiB: 5,000 patients take six blocks."""


def c_index(risk: ArrayLike, time: ArrayLike, event: ArrayLike, weight: Floats | None = None) -> Floats:
    """Harrell's C: of the pairs whose order is known, the share in which the earlier event had the higher risk.

    A pair is comparable where one patient's event is earlier than the other's time, or at the same time as the other's
    censoring; two events at one time are not. Tied risks count half. These are the conventions of
    `lifelines.utils.concordance_index` and of scikit-survival. Harrell et al., JAMA 1982.

    Args:
        risk: `(p,)`, higher for earlier events.
        time: `(p,)`, of the event or of the censoring.
        event: `(p,)`, true or 1 where the event was seen.
        weight: Multiplicities `(r, p)`; a pair weighs their product.

    Returns:
        `()` or `(r,)`; NaN without comparable pairs or where a risk is NaN.
    """
    risk, time, event = np.asarray(risk, np.float64), np.asarray(time, np.float64), np.asarray(event, dtype=bool)
    rows = as_rows(weight, len(risk))  # (r, p)
    if np.isnan(risk).any():
        return as_given(np.full(len(rows), np.nan), weight)
    order = np.lexsort((~event, time))  # by time, events before censorings
    risk, time, event, rows = risk[order], time[order], event[order], rows[:, order]
    seen = np.flatnonzero(event)  # (e,)
    later = _later(time, event)[seen]  # (e,): who outlives an event stands at this position and after it
    outlived = np.cumsum(np.pad(rows, ((0, 0), (0, 1)))[:, ::-1], axis=1)[:, ::-1]  # (r, p + 1)
    comparable = np.einsum("re,re->r", rows[:, seen], outlived[:, later])
    concordant = np.zeros(len(rows))
    for start, block, won in _won(risk, seen, later):
        concordant += np.einsum("re,re->r", rows[:, block], rows[:, start:] @ won.T)
    return as_given(ratio(concordant, comparable), weight)


def competing_c_index(risk: ArrayLike, time: ArrayLike, cause: ArrayLike, weight: Floats | None = None) -> Floats:
    """Harrell's C of the first cause among competing ones.

    Who has a competing event will never have the first one, and outlives every event of it. Wolbers et al.,
    Epidemiology 2009.

    Args:
        risk: `(p,)`, higher for earlier events of the first cause.
        time: `(p,)`, of the event or of the censoring.
        cause: `(p,)`, 0 censored, 1 the first cause, more for competing ones.
        weight: Multiplicities `(r, p)`.

    Returns:
        `()` or `(r,)`; NaN as in `c_index`.
    """
    time, cause = np.asarray(time, np.float64), np.asarray(cause)
    return c_index(risk, np.where(cause > 1, np.inf, time), cause == 1, weight)


def aalen_johansen(time: ArrayLike, cause: ArrayLike, causes: int) -> tuple[Floats, Floats]:
    """Cumulative incidence of competing events after each time at which one is seen: times `(t,)`, values `(k, t)`.

    Ties are taken as they are, an event before a censoring of its time. Aalen and Johansen, Scand J Stat 1978.

    Args:
        time: `(p,)`, of the event or of the censoring.
        cause: `(p,)`, 0 censored, else 1 to `causes`.
        causes: k.
    """
    time, cause = np.asarray(time, np.float64), np.asarray(cause)
    moments = np.unique(time[cause > 0])
    at_risk = len(time) - np.searchsorted(np.sort(time), moments, side="left")  # (t,)
    events = np.stack([[np.sum(time[cause == code] == moment) for moment in moments] for code in range(1, causes + 1)])
    hazard = events / at_risk  # (k, t)
    without = np.cumprod(1 - hazard.sum(0))
    before = np.concatenate([[1.0], without])[: len(moments)]
    return moments, np.cumsum(before * hazard, axis=1)


def _later(time: Floats, event: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For each patient of a sorted table, the position after all events of its time, `(p,)`."""
    first = np.searchsorted(time, time, side="left")
    events = np.concatenate([[0], np.cumsum(event)])
    tied = events[np.searchsorted(time, time, side="right")] - events[first]
    return np.asarray(first + tied)


def _won(
    risk: Floats, seen: NDArray[np.intp], later: NDArray[np.intp]
) -> Iterator[tuple[int, NDArray[np.intp], Floats]]:
    """Blocks of events with what each wins, 1, 1/2 or 0, against the patients from a position on, `(e, p - start)`."""
    size = max(1, _BLOCK // max(1, len(risk)))
    for at in range(0, len(seen), size):
        block, after = seen[at : at + size], later[at : at + size]
        start = int(after[0])
        mine, others = risk[block, None], risk[start:]
        won = (mine > others) + 0.5 * (mine == others)
        yield start, block, won * (np.arange(start, len(risk)) >= after[:, None])

"""How well risks order survival times and predict them, for every resample of the patients at once.

What needs weights by the inverse probability of censoring takes them from a `Censoring` fitted to the training
patients. Who counts must have been followed in training as long as that: where G is zero or not known, a row of weights
that holds such a patient has the value NaN (scikit-survival raises an error, or in a Brier score takes the patient's
loss for zero). Beyond the last censoring G stays what it is, up to the longest time of a training patient.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.stats.censoring import Censoring
from mil.stats.classification_metrics import auroc
from mil.stats.weights import Floats, as_given, as_rows, ratio

_BLOCK = 256
"""Events compared with later patients at once: a block of few spares the pairs with earlier patients."""
_EXACT = 2**22
"""Up to this sum of whole weights single precision counts halves without error."""


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
    rows = as_rows(weight, len(risk))
    return as_given(_share([_Pairs.of(risk, time, event, event.astype(np.float64), rows, rows)]), weight)


def uno_c(
    risk: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    tau: float | None,
    censoring: Censoring,
    weight: Floats | None = None,
) -> Floats:
    """Uno's C: as Harrell's, of events before tau, each pair weighing `1 / G(time)^2` of its event.

    Harrell's C drifts with the censoring at hand, this one estimates `P(risk_i > risk_j | T_i < T_j, T_i < tau)`. Uno
    et al., Statistics in Medicine 30, 2011, equation 6; conventions of scikit-survival, but that risks are tied where
    they are equal and not where they differ by 1e-8.

    Who has a competing event will never have the event, and is outlived by none: a pair with one who had it before
    weighs `1 / (G(time_i) G(time_j))`. Wolbers et al., Biostatistics 15, 2014, section 3.2, with G of all patients.

    Args:
        risk: `(p,)`, higher for earlier events.
        time: `(p,)`
        event: `(p,)`, true or 1 where the event was seen, more for a competing one.
        tau: Events at this time or later do not count; none: all do.
        censoring: Fitted to the training patients.
        weight: Multiplicities `(r, p)`; G stays as it is.

    Returns:
        `()` or `(r,)`; NaN as in `c_index`, or where an event that counts has no weight.
    """
    risk, time = np.asarray(risk, np.float64), np.asarray(time, np.float64)
    code, inverse = np.asarray(event).astype(np.int64), censoring.inverse(time)
    worth = np.where((code == 1) & (time < (np.inf if tau is None else tau)), inverse, 0.0)
    rows = as_rows(weight, len(risk))
    pairs = [_Pairs.of(risk, time, code == 1, worth**2, rows, rows)]
    if (code > 1).any():
        own = (worth != 0) | (code > 1)
        # backwards in time whoever had a competing event before an event stands after it; who had it at the same time
        # outlives it above. Where G is not known, it is not known of the event either, which makes the value NaN
        left = rows * np.where(code > 1, np.nan_to_num(inverse, nan=1.0), 0.0)
        pairs.append(_Pairs.of(risk[own], -time[own], np.ones(own.sum(), bool), worth[own], rows[:, own], left[:, own]))
    return as_given(_share(pairs), weight)


def cumulative_dynamic_auc(
    risk: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    at: float,
    censoring: Censoring,
    weight: Floats | None = None,
) -> Floats:
    """AUC(t): the chance that who has the event by a time had a higher risk than who has not.

    Events up to and with the time are the cases, each weighing `1 / G` of its own time; who is there after it is a
    control weighing `1 / G(t)`, and so is who had a competing event by then, weighing `1 / G` of its own time; who is
    censored by then is neither. Tied risks count half. Uno et al., JASA 102, 2007; Hung and Chiang, Canadian Journal of
    Statistics 38, 2010; with competing events Blanche et al., Statistics in Medicine 32, 2013, their second definition.

    Args:
        risk: `(p,)`, higher for earlier events; a risk at this very time will do.
        time: `(p,)`
        event: `(p,)`, true or 1 where the event was seen, more for a competing one.
        at: The time t.
        censoring: Fitted to the training patients.
        weight: Multiplicities `(r, p)`; G stays as it is.

    Returns:
        `()` or `(r,)`; NaN without cases or controls, or where one who counts has no weight.
    """
    time, code = np.asarray(time, np.float64), np.asarray(event).astype(np.int64)
    case, other = ((time <= at) & kind for kind in (code == 1, code > 1))
    kept, inverse = case | other | (time > at), censoring.inverse(time)
    # controls of both kinds relative to 1 / G(t), which without competing events cancels and need not be known
    worth = np.where(case, inverse, np.where(other, inverse / censoring.inverse(at), 1.0))[kept]
    rows = as_rows(weight, len(time))[:, kept]
    area = auroc(np.asarray(risk, np.float64)[kept], case[kept], rows * np.nan_to_num(worth))
    return as_given(_known(area, rows, np.isnan(worth)), weight)


def brier_at(
    survival: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    at: float,
    censoring: Censoring,
    weight: Floats | None = None,
) -> Floats:
    """Mean squared distance between the predicted survival at a time and what is seen then, less is better.

    Who has the event up to and with the time weighs `1 / G` of its own time, who is there after it `1 / G(at)`, who is
    censored by then nothing. A competing event leaves a patient without the event for ever, and weighs like an event.
    Graf et al., Statistics in Medicine 18, 1999.

    Args:
        survival: `(p,)`, the chance to be without event after the time, or one for all, as a Kaplan-Meier curve has it.
        time: `(p,)`
        event: `(p,)`, 0 censored, 1 the event, more for a competing one.
        at: The time.
        censoring: Fitted to the training patients.
        weight: Multiplicities `(r, p)`; G stays as it is.

    Returns:
        `()` or `(r,)`; NaN without patients, or where one who counts has no weight.
    """
    survival = np.broadcast_to(np.asarray(survival, np.float64), np.shape(time))[:, None]
    losses = _losses(survival, time, event, np.array([at], np.float64), censoring)
    return _mean(losses[:, 0], weight)


def integrated_brier(
    survival: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    at: ArrayLike,
    censoring: Censoring,
    weight: Floats | None = None,
) -> Floats:
    """Mean over the time between the first and the last of some times of `brier_at`, by trapezoids.

    Args:
        survival: `(p, t)`, the chance to be without event after each time, or `(t,)`, the same for all patients: the
            Kaplan-Meier curve of the training patients is the score that a useful model undercuts.
        time: `(p,)`
        event: `(p,)`, as in `brier_at`.
        at: `(t,)`, two or more, rising.
        censoring: Fitted to the training patients.
        weight: Multiplicities `(r, p)`; G stays as it is.

    Returns:
        `()` or `(r,)`; NaN as in `brier_at`.

    Raises:
        ValueError: fewer than two times, or times that do not rise.
    """
    at = np.asarray(at, np.float64)
    if len(at) < 2 or (np.diff(at) <= 0).any():
        raise ValueError(f"integrated Brier score: times {at.tolist()}, expected two or more that rise")
    survival = np.broadcast_to(np.asarray(survival, np.float64), (len(np.asarray(time)), len(at)))
    losses = _losses(survival, time, event, at, censoring)
    return _mean(np.trapezoid(losses, at, axis=1) / (at[-1] - at[0]), weight)


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


class _Pairs(NamedTuple):
    """Events and those who outlive them."""

    won: Floats
    """weight of the pairs in order, `(r,)`"""
    every: Floats
    """of all pairs, `(r,)`"""
    unknown: NDArray[np.bool_]
    """whether an event with a partner has no known worth, or somebody no risk, `(r,)`"""

    @classmethod
    def of(
        cls, risk: Floats, time: Floats, event: NDArray[np.bool_], worth: Floats, rows: Floats, others: Floats
    ) -> "_Pairs":
        """A pair weighs its event's worth `(p,)` and row `(r, p)` and its other patient's `others` `(r, p)`."""
        order = np.lexsort((~event, time))  # by time, events before censorings
        risk, time, event, worth = risk[order], time[order], event[order], worth[order]
        rows, others = rows[:, order], others[:, order]
        seen = np.flatnonzero(event & (worth != 0))  # (e,)
        later = _later(time, event)[seen]  # (e,): who outlives an event stands at this position and after it
        outlived = np.cumsum(np.pad(others, ((0, 0), (0, 1)))[:, ::-1], axis=1)[:, ::-1][:, later]  # (r, e)
        unknown, worth = np.isnan(worth[seen]), np.nan_to_num(worth[seen])
        pairs = rows[:, seen] * outlived
        won = _concordant(risk, rows, others, seen, later, worth)
        return cls(won, pairs @ worth, (pairs[:, unknown].sum(1) > 0) | np.isnan(risk).any())


def _share(pairs: Sequence[_Pairs]) -> Floats:
    """How many of the pairs are in order, `(r,)`; NaN where a pair's weight is not known."""
    value = ratio(np.sum([one.won for one in pairs], axis=0), np.sum([one.every for one in pairs], axis=0))
    return np.where(np.any([one.unknown for one in pairs], axis=0), np.nan, value)


def _concordant(
    risk: Floats, rows: Floats, others: Floats, seen: NDArray[np.intp], later: NDArray[np.intp], worth: Floats
) -> Floats:
    """Weight of the pairs in order, `(r,)`, by products of matrices: O(n^2) a row, at the speed of hardware."""
    whole = others.sum(1).max(initial=0) < _EXACT and np.array_equal(others, np.rint(others))
    others = others.astype(np.float32 if whole else np.float64)  # (r, p)
    found = np.zeros(len(rows))
    for at in range(0, len(seen), _BLOCK):
        block, after = seen[at : at + _BLOCK], later[at : at + _BLOCK]
        won = _won(risk, block, after).astype(others.dtype)  # (e, p - start)
        beaten = np.asarray(others[:, after[0] :] @ won.T, dtype=np.float64)  # (r, e)
        found += np.einsum("re,re->r", rows[:, block] * worth[at : at + _BLOCK], beaten)
    return found / 2


def _won(risk: Floats, block: NDArray[np.intp], after: NDArray[np.intp]) -> NDArray[np.int8]:
    """What each event wins, 2, 1 or 0, against the patients from the block's first `after` on, `(e, p - start)`."""
    start, end = int(after[0]), int(after[-1])
    mine, others = risk[block, None], risk[start:]
    won = np.add(mine > others, mine >= others, dtype=np.int8)
    won[:, : end - start] *= np.arange(start, end) >= after[:, None]
    return won


def _losses(survival: Floats, time: ArrayLike, event: ArrayLike, at: Floats, censoring: Censoring) -> Floats:
    """Weighed squared distances, `(p, t)`, NaN where a patient who counts has no weight."""
    time, event = np.asarray(time, np.float64)[:, None], np.asarray(event).astype(np.int64)[:, None]
    there = time > at  # (p, t)
    gone = np.where(event == 1, survival, 1 - survival) ** 2 * censoring.inverse(time)
    return np.where(there, (1 - survival) ** 2 * censoring.inverse(at), np.where(event > 0, gone, 0.0))


def _mean(losses: Floats, weight: Floats | None) -> Floats:
    rows, unknown = as_rows(weight, len(losses)), np.isnan(losses)
    value = ratio(rows @ np.where(unknown, 0.0, losses), rows.sum(1))
    return as_given(_known(value, rows, unknown), weight)


def _known(value: Floats, rows: Floats, unknown: NDArray[np.bool_]) -> Floats:
    """The values `(r,)`, NaN where a row gives weight to what is unknown."""
    return np.where(rows[:, unknown].sum(1) > 0, np.nan, value) if unknown.any() else value

"""How well risks order survival times and predict them, for every resample of the patients at once.

Weights by the inverse probability of censoring come from a `Censoring` fitted to the training patients. A patient's
state at a time is seen where the censoring would not have come before the event or that time, so that every weight is
`1 / G` just before it: with times in whole years, `1 / G` at the time would count the censorings of that year twice
(Graf et al., Statistics in Medicine 18, 1999; Gerds and Schumacher, Biometrical Journal 48, 2006). Who is censored at
the very time was without event until then.

Training patients must have been followed as long as the patients that count: where G is zero or unknown, a resample
with such a patient has the value NaN (scikit-survival raises an error, or in a Brier score takes the patient's loss for
zero). A metric at a time also needs G at that time and patients who are followed until then: without them, only the
patients with events would count. Beyond the last censoring G is constant, up to the longest time of a training patient.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.stats.censoring import Censoring
from mil.stats.classification_metrics import auroc
from mil.stats.weights import Floats, as_given, as_rows, ratio

_BLOCK = 256
"""Events compared with later patients at once; small blocks leave out the pairs with earlier patients."""
_EXACT = 2**22
"""Largest sum of whole-number weights for which single precision counts halves without error."""


def c_index(risk: ArrayLike, time: ArrayLike, event: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return Harrell's C: of the comparable pairs, the share in which the earlier event had the higher risk.

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
    """Return Uno's C: as Harrell's, of events before tau, each pair weighted by `1 / G^2` just before its event.

    Harrell's C depends on the censoring, this one estimates `P(risk_i > risk_j | T_i < T_j, T_i < tau)`. Uno
    et al., Statistics in Medicine 30, 2011, equation 6; conventions of scikit-survival, but that G is that before the
    event, and that risks are tied where they are equal and not where they differ by 1e-8.

    Patients with a competing event count as event-free for ever: a pair with one who had it before has the weight
    `1 / (G(time_i) G(time_j))`, each G just before the time. Wolbers et al., Biostatistics 15, 2014, section 3.2, with
    G of all patients.

    Args:
        risk: `(p,)`, higher for earlier events.
        time: `(p,)`
        event: `(p,)`, true or 1 where the event was seen, more for a competing one.
        tau: Events at this time or later do not count; None: all do.
        censoring: Fitted to the training patients.
        weight: Multiplicities `(r, p)`; G is not resampled.

    Returns:
        `()` or `(r,)`; NaN as in `c_index`, or where an event that counts has no weight.
    """
    risk, time = np.asarray(risk, np.float64), np.asarray(time, np.float64)
    code, inverse = np.asarray(event).astype(np.int64), censoring.inverse_before(time)
    worth = np.where((code == 1) & (time < (np.inf if tau is None else tau)), inverse, 0.0)
    rows = as_rows(weight, len(risk))
    pairs = [_Pairs.of(risk, time, code == 1, worth**2, rows, rows)]
    if (code > 1).any():
        members = (worth != 0) | (code > 1)
        # with time reversed, patients with a competing event before an event come after it; those with one at the same
        # time outlive it above. Where G is unknown, it is unknown for the event too, which makes the value NaN
        partners = rows * np.where(code > 1, np.nan_to_num(inverse, nan=1.0), 0.0)
        events = np.ones(members.sum(), bool)
        worth, rows, partners = worth[members], rows[:, members], partners[:, members]
        pairs.append(_Pairs.of(risk[members], -time[members], events, worth, rows, partners))
    return as_given(_share(pairs), weight)


def cumulative_dynamic_auc(
    risk: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    at: float,
    censoring: Censoring,
    weight: Floats | None = None,
) -> Floats:
    """Return AUC(t): the chance that a patient with the event by a time has a higher risk than one without.

    Patients with the event up to and including the time are cases, with weight `1 / G` just before their time. Patients
    followed until it without event are controls, with weight `1 / G` just before it, and so are patients with a
    competing event by then, with weight `1 / G` just before theirs. Patients censored earlier are neither. Tied risks
    count half. Uno et al., JASA 102, 2007;
    Hung and Chiang, Canadian Journal of Statistics 38, 2010; with competing events Blanche et al., Statistics in
    Medicine 32, 2013, their second definition.

    Args:
        risk: `(p,)`, higher for earlier events; it may be the risk at this time.
        time: `(p,)`
        event: `(p,)`, true or 1 where the event was seen, more for a competing one.
        at: The time t.
        censoring: Fitted to the training patients.
        weight: Multiplicities `(r, p)`; G is not resampled.

    Returns:
        `()` or `(r,)`; NaN without cases or controls, where a case or control has no weight, where G is zero or
        unknown at the time, or where follow-up does not reach it.
    """
    time, code = np.asarray(time, np.float64), np.asarray(event).astype(np.int64)
    case, competing = ((time <= at) & kind for kind in (code == 1, code > 1))
    counted = case | competing | (time >= at)
    worth = np.where(case | competing, censoring.inverse_before(time), censoring.inverse_before(at))[counted]
    every = as_rows(weight, len(time))
    rows = every[:, counted]
    area = auroc(np.asarray(risk, np.float64)[counted], case[counted], rows * np.nan_to_num(worth))
    area = np.where(reached(time, code, at, every), area, np.nan)
    return as_given(_defined(area, rows, np.isnan(worth) | np.isnan(censoring.inverse_before(at))), weight)


def brier_at(
    survival: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    at: float,
    censoring: Censoring,
    weight: Floats | None = None,
) -> Floats:
    """Return the mean squared distance between predicted and observed survival at a time; lower is better.

    Patients with the event up to and including the time have the weight `1 / G` just before their time, patients
    followed until it without event `1 / G` just before it, patients censored earlier zero. Patients with a competing
    event count as event-free for ever, with the weight of an event.
    Graf et al., Statistics in Medicine 18, 1999; Gerds and Schumacher, Biometrical Journal 48, 2006.

    Args:
        survival: `(p,)`, the chance to be without event after the time; a single number for all patients alike.
        time: `(p,)`
        event: `(p,)`, 0 censored, 1 the event, more for a competing one.
        at: The time.
        censoring: Fitted to the training patients.
        weight: Multiplicities `(r, p)`; G is not resampled.

    Returns:
        `()` or `(r,)`; NaN without patients, where a patient who counts has no weight, where G is zero or unknown at
        the time, or where follow-up does not reach it.
    """
    survival = np.broadcast_to(np.asarray(survival, np.float64), np.shape(time))[:, None]
    losses = brier_losses(survival, time, event, np.array([at], np.float64), censoring)
    return mean_loss(losses[:, 0], time, event, at, weight)


def integrated_brier(
    survival: ArrayLike,
    time: ArrayLike,
    event: ArrayLike,
    at: ArrayLike,
    censoring: Censoring,
    weight: Floats | None = None,
) -> Floats:
    """Return the mean of `brier_at` between the first and the last of some times, by trapezoids.

    Args:
        survival: `(p, t)`, the chance to be without event after each time, or `(t,)`, the same for all patients, such
            as the Kaplan-Meier curve of the training patients, which a useful model beats.
        time: `(p,)`
        event: `(p,)`, as in `brier_at`.
        at: `(t,)`, two or more, rising.
        censoring: Fitted to the training patients.
        weight: Multiplicities `(r, p)`; G is not resampled.

    Returns:
        `()` or `(r,)`; NaN as in `brier_at`.

    Raises:
        ValueError: fewer than two times, or times that do not rise.
    """
    at = np.asarray(at, np.float64)
    if len(at) < 2 or (np.diff(at) <= 0).any():
        raise ValueError(f"integrated Brier score: times {at.tolist()}, expected two or more that rise")
    survival = np.broadcast_to(np.asarray(survival, np.float64), (len(np.asarray(time)), len(at)))
    losses = brier_losses(survival, time, event, at, censoring)
    return mean_loss(np.trapezoid(losses, at, axis=1) / (at[-1] - at[0]), time, event, float(at[-1]), weight)


def brier_losses(survival: ArrayLike, time: ArrayLike, event: ArrayLike, at: ArrayLike, censoring: Censoring) -> Floats:
    """Return the weighted squared distances of `brier_at`, `(p, t)`: zero for patients censored before the time.

    NaN where a patient who counts has no weight, and for all patients where G is zero or unknown at the time.

    Args:
        survival: `(p, t)`
        time: `(p,)`
        event: `(p,)`, as in `brier_at`.
        at: `(t,)`
        censoring: Fitted to the training patients.
    """
    survival, at = np.asarray(survival, np.float64), np.asarray(at, np.float64)
    time, event = np.asarray(time, np.float64)[:, None], np.asarray(event).astype(np.int64)[:, None]
    ended = (event > 0) & (time <= at)  # (p, t)
    distance = np.where(ended & (event == 1), survival, 1 - survival) ** 2
    worth = np.where(ended, censoring.inverse_before(time), np.where(time >= at, censoring.inverse_before(at), 0.0))
    return np.where(np.isnan(censoring.inverse_before(at)), np.nan, distance * worth)


def log_losses_at(risk: ArrayLike, time: ArrayLike, event: ArrayLike, at: float, censoring: Censoring) -> Floats:
    """Return the weighted log loss of a risk of the event by a time, `(p,)`: zero for patients censored before it.

    Args:
        risk: `(p,)`, of the event by the time; those of 0 and 1 are moved inside.
        time: `(p,)`
        event: `(p,)`, as in `brier_at`.
        at: The time.
        censoring: Weights as in `brier_at`; NaN where a patient who counts has none.
    """
    time, event = np.asarray(time, np.float64), np.asarray(event)
    inside = np.clip(np.asarray(risk, np.float64), 1e-300, 1 - 2**-53)
    ended = (event > 0) & (time <= at)
    loss = -np.where(ended & (event == 1), np.log(inside), np.log1p(-inside))
    counted = ended | (time >= at)
    return np.where(counted, loss * censoring.inverse_before(np.minimum(time, at)), 0.0)


def mean_loss(losses: Floats, time: ArrayLike, event: ArrayLike, at: float, weight: Floats | None = None) -> Floats:
    """Return the mean of the losses `(p,)` of a time, `()` or `(r,)`; NaN where one is, or follow-up does not reach it.

    Args:
        losses: From `brier_losses`.
        time: `(p,)`
        event: `(p,)`, as in `brier_at`.
        at: The time, or the last of those that the losses are integrated over.
        weight: Multiplicities `(r, p)`.
    """
    rows, undefined = as_rows(weight, len(losses)), np.isnan(losses)
    value = ratio(rows @ np.where(undefined, 0.0, losses), rows.sum(1))
    value = np.where(reached(time, event, at, rows), value, np.nan)
    return as_given(_defined(value, rows, undefined), weight)


def reached(time: ArrayLike, event: ArrayLike, at: float, rows: Floats) -> NDArray[np.bool_]:
    """Return whether the follow-up of each row's patients reaches a time, or ended with events of the last, `(r,)`."""
    time, present = np.asarray(time, np.float64), rows > 0
    last = np.where(present, time, -np.inf).max(1, initial=-np.inf)  # (r,)
    lost = (present & (time == last[:, None]) & (np.asarray(event) == 0)).any(1)
    return np.asarray((last >= at) | ~lost)


def competing_c_index(risk: ArrayLike, time: ArrayLike, cause: ArrayLike, weight: Floats | None = None) -> Floats:
    """Return Harrell's C of the first cause among competing ones.

    Patients with a competing event count as event-free for ever. Wolbers et al., Epidemiology 2009.

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
    """Return the cumulative incidence of competing events after each event time: times `(t,)`, values `(k, t)`.

    An event precedes a censoring of its time. Aalen and Johansen, Scand J Stat 1978.

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
    """Return for each patient of a sorted table the position after all events of its time, `(p,)`."""
    first = np.searchsorted(time, time, side="left")
    events = np.concatenate([[0], np.cumsum(event)])
    tied = events[np.searchsorted(time, time, side="right")] - events[first]
    return np.asarray(first + tied)


class _Pairs(NamedTuple):
    """Pairs of an event and a patient who outlives it."""

    won: Floats
    """weight of the pairs in order, `(r,)`"""
    total: Floats
    """weight of all pairs, `(r,)`"""
    undefined: NDArray[np.bool_]
    """whether an event with a partner has no weight, or a patient no risk, `(r,)`"""

    @classmethod
    def of(
        cls, risk: Floats, time: Floats, event: NDArray[np.bool_], worth: Floats, rows: Floats, partners: Floats
    ) -> "_Pairs":
        """Return the pairs, each with the weight `worth` `(p,)` times `rows` `(r, p)` of its event times `partners`."""
        order = np.lexsort((~event, time))  # by time, events before censorings
        risk, time, event, worth = risk[order], time[order], event[order], worth[order]
        rows, partners = rows[:, order], partners[:, order]
        seen = np.flatnonzero(event & (worth != 0))  # (e,)
        later = _later(time, event)[seen]  # (e,): patients who outlive an event are at this position and after it
        outlived = np.cumsum(np.pad(partners, ((0, 0), (0, 1)))[:, ::-1], axis=1)[:, ::-1][:, later]  # (r, e)
        undefined, worth = np.isnan(worth[seen]), np.nan_to_num(worth[seen])
        pairs = rows[:, seen] * outlived
        won = _concordant(risk, rows, partners, seen, later, worth)
        return cls(won, pairs @ worth, (pairs[:, undefined].sum(1) > 0) | np.isnan(risk).any())


def _share(pairs: Sequence[_Pairs]) -> Floats:
    """Return the share of the pairs that are in order, `(r,)`; NaN where a pair's weight is undefined."""
    value = ratio(np.sum([each.won for each in pairs], axis=0), np.sum([each.total for each in pairs], axis=0))
    return np.where(np.any([each.undefined for each in pairs], axis=0), np.nan, value)


def _concordant(
    risk: Floats, rows: Floats, partners: Floats, seen: NDArray[np.intp], later: NDArray[np.intp], worth: Floats
) -> Floats:
    """Return the weight of the pairs in order, `(r,)`, by matrix products: O(n^2) per row, but fast."""
    exact = partners.sum(1).max(initial=0) < _EXACT and np.array_equal(partners, np.rint(partners))
    partners = partners.astype(np.float32 if exact else np.float64)  # (r, p)
    total = np.zeros(len(rows))
    for at in range(0, len(seen), _BLOCK):
        block, after = seen[at : at + _BLOCK], later[at : at + _BLOCK]
        won = _won(risk, block, after).astype(partners.dtype)  # (e, p - start)
        beaten = np.asarray(partners[:, after[0] :] @ won.T, dtype=np.float64)  # (r, e)
        total += np.einsum("re,re->r", rows[:, block] * worth[at : at + _BLOCK], beaten)
    return total / 2


def _won(risk: Floats, block: NDArray[np.intp], after: NDArray[np.intp]) -> NDArray[np.int8]:
    """Return 2, 1 (tied) or 0 for each event against the patients from the first `after` on, `(e, p - start)`."""
    start, end = int(after[0]), int(after[-1])
    risk_of_event, risk_of_partner = risk[block, None], risk[start:]
    won = np.add(risk_of_event > risk_of_partner, risk_of_event >= risk_of_partner, dtype=np.int8)
    won[:, : end - start] *= np.arange(start, end) >= after[:, None]
    return won


def _defined(value: Floats, rows: Floats, undefined: NDArray[np.bool_]) -> Floats:
    """Return the values `(r,)`, NaN where a row gives weight to a patient for whom it is undefined."""
    return np.where(rows[:, undefined].sum(1) > 0, np.nan, value) if undefined.any() else value

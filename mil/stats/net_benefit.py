"""Net benefit of treating patients whose risk reaches a threshold, for every resample of the patients at once.

Vickers & Elkin, Medical Decision Making 26, 2006: at a threshold t a false positive is worth t / (1 - t) of a true one.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mil.stats.weights import Floats, as_rows, ratio


def net_benefit(called: NDArray[np.bool_], truth: ArrayLike, odds: Floats, weight: Floats | None = None) -> Floats:
    """Return true positives minus the cost of false ones, as a share of the patients, `(r, t)`; one row unweighted.

    Args:
        called: `(p, t)`, who is treated at each threshold.
        truth: `(p,)`, 1 for yes and 0 for no.
        odds: `(t,)`, `t / (1 - t)` of the thresholds.
        weight: Multiplicities `(r, p)`.
    """
    truth = np.asarray(truth, np.float64)[:, None]
    rows = as_rows(weight, len(truth))
    return np.asarray(rows @ (called * (truth - (1 - truth) * odds)) / rows.sum(1, keepdims=True))


def censored_net_benefit(
    called: NDArray[np.bool_], time: ArrayLike, cause: ArrayLike, horizon: float, odds: Floats, weight: Floats | None
) -> Floats:
    """Return the net benefit about the first cause until a horizon, `(r, t)`.

    The share of true positives is the share of the treated times the incidence among them: Aalen and Johansen's, which
    without competing events is one minus Kaplan-Meier's survival. Vickers et al., BMC Medical Informatics and Decision
    Making 8, 2008.

    Args:
        called: `(p, t)`, who is treated at each threshold.
        time: `(p,)`, of the event or of the censoring.
        cause: `(p,)`, 0 censored, 1 the first cause, more for competing ones.
        horizon: In the unit of the times.
        odds: `(t,)`, `t / (1 - t)` of the thresholds.
        weight: Multiplicities `(r, p)`.
    """
    rows = as_rows(weight, len(called))
    columns = []
    for treated, cost in zip(called.T, odds, strict=True):
        share = rows[:, treated].sum(1) / rows.sum(1)
        incidence = incidence_until(np.asarray(time)[treated], np.asarray(cause)[treated], horizon, rows[:, treated])
        columns.append(np.where(share > 0, share * (incidence - (1 - incidence) * cost), 0.0))
    return np.stack(columns, axis=1)


def incidence_until(time: ArrayLike, cause: ArrayLike, horizon: float, weight: Floats | None = None) -> Floats:
    """Return Aalen and Johansen's cumulative incidence of the first cause until a horizon, `(r,)`; 0 without patients.

    Where nobody is followed to the horizon, it is the incidence at the last event.

    Args:
        time: `(p,)`, of the event or of the censoring; events come before the censorings of their time.
        cause: `(p,)`, 0 censored, 1 the first cause, more for competing ones.
        horizon: An event at this very time counts.
        weight: Multiplicities `(r, p)`.
    """
    time, cause = np.asarray(time, np.float64), np.asarray(cause)
    rows = as_rows(weight, len(time))
    seen = (cause > 0) & (time <= horizon)
    if not seen.any():
        return np.zeros(len(rows))
    order = np.argsort(time, kind="stable")
    time, cause, seen, rows = time[order], cause[order], seen[order], rows[:, order]
    moments = np.unique(time[seen])
    at_risk = rows[:, ::-1].cumsum(1)[:, ::-1][:, np.searchsorted(time, moments)]  # (r, m)
    first = np.searchsorted(time[seen], moments)
    ended = np.add.reduceat(rows[:, seen], first, axis=1)
    of_cause = np.add.reduceat(rows[:, seen] * (cause[seen] == 1), first, axis=1)
    hazard, cause_hazard = (np.nan_to_num(ratio(events, at_risk)) for events in (ended, of_cause))
    before = np.cumprod(1 - hazard, axis=1)
    return np.asarray(cause_hazard[:, 0] + np.einsum("rm,rm->r", before[:, :-1], cause_hazard[:, 1:]))

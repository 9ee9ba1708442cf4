"""Low and high risk by a cut that training patients set: how far apart they fare.

Where causes compete, hazards and curves are those of the first cause, with the others' events as censoring.
"""

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from lifelines.statistics import logrank_test

from mil.endpoints.survival import Survival
from mil.evaluation.predictions import rows_of

LEVEL = 0.95
logger = logging.getLogger(__name__)


def assign(table: pd.DataFrame, endpoint: Survival) -> tuple[pd.DataFrame, list[float | None]]:
    """Reported patients with `time`, `event` and `high`, and each fold's cut.

    A fold's cut is the median risk of its training patients; a reported patient above it is high. Groups, unlike
    scores, can be pooled over folds; a patient whom several folds report counts once, as its first fold has it.

    Args:
        table: Checked predictions, training rows among them.
        endpoint: Names the columns of time and event.
    """
    parts, cuts = [], list[float | None]()
    train = dict(rows_of(table, "train"))
    for fold, rows in rows_of(table, "report"):
        if train[fold].empty:
            logger.warning("fold %s: no training rows to set the cut of low and high risk", fold)
        cut = float(train[fold][endpoint.rank].median()) if len(train[fold]) else None
        cuts.append(cut)
        if cut is not None:
            parts.append(rows.assign(high=rows[endpoint.rank] > cut))
    pooled = pd.concat(parts) if parts else table.head(0).assign(high=np.zeros(0, dtype=bool))
    return outcomes(pooled, endpoint), cuts


def outcomes(rows: pd.DataFrame, endpoint: Survival) -> pd.DataFrame:
    """Columns `time`, `event` and what else `high` says, one row a patient."""
    once = rows.drop_duplicates("patient").set_index("patient")
    time, event = endpoint.encode(once)[:, :2].double().numpy().T
    kept = once[["high"]] if "high" in once else once[[]]
    return kept.assign(time=time, event=event == 1)


def groups(table: pd.DataFrame, endpoint: Survival) -> dict[str, Any] | None:
    """Hazard ratio of high against low, with Wald interval, and log-rank p; none where no fold could set a cut."""
    patients, cuts = assign(table, endpoint)
    if patients.empty:
        return None
    high, low = patients[patients["high"]], patients[~patients["high"]]
    comparable = min(len(high), len(low)) > 0 and bool(patients["event"].any())
    test = logrank_test(high["time"], low["time"], high["event"], low["event"]) if comparable else None
    return {
        "cuts": cuts,
        "hazard_ratio": _hazard_ratio(patients),
        "log_rank_p": float(test.p_value) if test else None,
        "high": {"n": len(high), "events": int(high["event"].sum())},
        "low": {"n": len(low), "events": int(low["event"].sum())},
    }


def _hazard_ratio(patients: pd.DataFrame) -> dict[str, Any] | None:
    """None where it has no finite estimate: a group without events, or one whose events all come first."""
    if patients.groupby("high")["event"].sum().reindex([False, True], fill_value=0).min() == 0:
        return None
    frame = patients.astype({"high": float, "event": float})
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # so that an estimate that does not converge is not printed
        try:
            fit = CoxPHFitter(alpha=1 - LEVEL).fit(frame, "time", "event")
        except (ConvergenceWarning, ConvergenceError):
            return None
    low, high = np.exp(fit.confidence_intervals_.loc["high"])
    return {"value": float(np.exp(fit.params_["high"])), "low": float(low), "high": float(high), "level": LEVEL}

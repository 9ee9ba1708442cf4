"""Competing risks: the first of two causes, with the true risks of both."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd

from coverage_studies.simulated import HORIZON, Truths, estimates, evaluated, holds, predictions, with_training
from mil.endpoints.competing_risks import CompetingRisks
from mil.report.sections.time_to_event import TimeToEvent
from mil.stats import auroc, c_index
from mil.stats.observed_risk import incidence_at

CODES = {"censored": 0, "relapse": 1, "death": 2}
END = 90.0
"""Times of leaving are uniform between 5 and it."""
ROWS: Mapping[str, str] = {
    "c_index": "C-index",
    "uno_c": "C (Wolbers)",
    "auc[0].estimate": "AUC(t)",
    "brier[0].model": "Brier score at a horizon",
    "brier[0].scaled": "scaled Brier score (IPA) at a horizon",
    "times[0].observed": "incidence (Aalen-Johansen)",
    "other_causes[0].times[0].observed": "incidence of the second cause",
    "other_causes[0].uno_c": "C (Wolbers) of the second cause",
    "calibration[0].observed_expected": "observed/expected at a horizon",
    "calibration[0].slope": "calibration slope at a horizon",
}


def competing(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Incidence, order, Brier score and calibration of the true risks."""
    endpoint = CompetingRisks(causes=("relapse", "death"), horizons={"3y": HORIZON})
    table = with_training(competed(rng, n, folds), competed(rng, n, 1))
    of, truth = estimates(TimeToEvent.compute(evaluated(table, endpoint))), true_competing()
    null = true_null(table, truth["times[0].observed"])
    truth = truth | {"brier[0].scaled": 1 - truth["brier[0].model"] / null}
    return {f"competing risks: {words}": holds(of.get(key), truth[key]) for key, words in ROWS.items()}


def competed(rng: np.random.Generator, n: int, folds: int, end: float = END) -> pd.DataFrame:
    """Return patients with two causes of constant hazards, with their true risks; nobody leaves early if `end` is."""
    score = rng.normal(size=n)
    first, second = np.exp(0.8 * score) / 60, np.exp(-0.3 * score) / 80
    total = first + second
    ends, leaving = rng.exponential(1 / total), rng.uniform(5, end, n)
    code = np.where(ends > leaving, 0, np.where(rng.random(n) < first / total, 1, 2))
    risk = first / total * -np.expm1(-HORIZON * total)
    columns = {
        "time": np.minimum(ends, leaving),
        "event": np.array(list(CODES))[code],
        "risk": risk,
        "risk_relapse_3y": risk,
        "risk_death_3y": second / total * -np.expm1(-HORIZON * total),
    }
    return predictions(rng, folds, columns, code.astype(np.int64))


def true_null(table: pd.DataFrame, observed: float) -> float:
    """Return the Brier score that the incidence among the folds' training patients has among new patients."""
    curves = [
        float(incidence_at(rows["time"].to_numpy(), np.asarray(rows["event"].map(CODES), np.float64), HORIZON))
        for _, rows in table[table["role"] == "train"].groupby("fold")
    ]
    return observed * (1 - observed) + float(np.mean((np.array(curves) - observed) ** 2))


def concordance_until(risk: pd.Series, time: pd.Series, code: pd.Series, cause: int) -> float:
    """Return Wolbers' C of patients who are all followed up: who has another event first is event-free for ever."""
    had = (code == cause) & (time < HORIZON)
    return float(c_index(risk, time.where(code == cause, np.inf).clip(upper=HORIZON), had))


@cache
def true_competing() -> dict[str, float]:
    """Return the true values; the C-indices are means over cohorts of 4,000 patients."""
    rng = np.random.default_rng(0)
    values: dict[str, list[float]] = {"c_index": [], "uno_c": [], "other_causes[0].uno_c": []}
    for _ in range(60):
        table = competed(rng, 4000, 1)
        code = table["event"].map(CODES)
        stays = table["time"].where(code < 2, np.inf)  # a patient with another event stays at risk
        values["c_index"].append(float(c_index(table["risk"], stays, code == 1)))
        table = competed(rng, 4000, 1, end=1e9)
        code = table["event"].map(CODES)
        values["uno_c"].append(concordance_until(table["risk"], table["time"], code, 1))
        values["other_causes[0].uno_c"].append(concordance_until(table["risk_death_3y"], table["time"], code, 2))
    table = competed(rng, 400_000, 1, end=1e9)
    had = (table["event"] == "relapse") & (table["time"] <= HORIZON)
    risk = table["risk"]
    observed, brier = float(risk.mean()), float((risk * (1 - risk)).mean())
    return {name: float(np.mean(each)) for name, each in values.items()} | {
        "auc[0].estimate": float(auroc(risk.to_numpy(), had.to_numpy())),
        "brier[0].model": brier,
        "times[0].observed": observed,
        "other_causes[0].times[0].observed": float(table["risk_death_3y"].mean()),
        "calibration[0].observed_expected": 1.0,
        "calibration[0].slope": 1.0,
    }

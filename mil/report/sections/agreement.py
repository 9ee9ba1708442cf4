"""How well predicted numbers agree with the true ones."""

from typing import Any

import numpy as np
from pydantic import Field
from scipy import stats

from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.schema import Estimate, Model, Number
from mil.stats.bootstrap import Floats
from mil.stats.bootstrap_intervals import intervals

LEVEL = 0.95


class BlandAltman(Model):
    """Bias of the predicted values, and the limits between which 95% of the differences are expected."""

    n: int
    sd: Number = Field(title="Standard deviation of the differences")
    bias: Estimate
    lower: Estimate = Field(title="Lower limit of agreement")
    upper: Estimate = Field(title="Upper limit of agreement")


def agreement(evaluation: Evaluation) -> dict[str, Any]:
    """The endpoint's metrics with resampled intervals, within folds and averaged, and Bland-Altman's limits, pooled."""
    endpoint, reported = evaluation.endpoint, evaluation.reported
    scored = intervals(endpoint.score, evaluation.folds, evaluation.resamples, evaluation.seed)
    metrics = {name: _number(as_dict(interval), len(reported)) for name, interval in scored.items()}
    true = endpoint.encode(reported).double().numpy()
    return metrics | {"bland_altman": bland_altman(reported["value"].to_numpy(np.float64) - true)}


def bland_altman(gap: Floats) -> dict[str, Any]:
    """Bias, and limits between which 95% of patients' differences `(p,)`, predicted minus true, are expected.

    Bland and Altman, Lancet 327, 1986; variance of a limit `s^2 (1/n + z^2 / (2 (n - 1)))`, Statistical Methods in
    Medical Research 8, 1999. Limits suppose that differences are about normal, and as wide for all true values.
    """
    n, z = len(gap), float(stats.norm.ppf((1 + LEVEL) / 2))
    if n < 2:
        nothing = {"value": None, "low": None, "high": None, "n": n, "reason": "fewer than two patients"}
        return {"n": n, "sd": None, "bias": nothing, "lower": nothing, "upper": nothing}
    bias, sd = float(gap.mean()), float(gap.std(ddof=1))
    t = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    of_bias, of_limit = t * sd * n**-0.5, t * sd * (1 / n + z**2 / (2 * (n - 1))) ** 0.5
    return {
        "n": n,
        "sd": sd,
        "bias": _between(bias, of_bias, n, "Student's t"),
        "lower": _between(bias - z * sd, of_limit, n, "Bland-Altman 1999"),
        "upper": _between(bias + z * sd, of_limit, n, "Bland-Altman 1999"),
    }


def _between(value: float, half: float, n: int, method: str) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "level": LEVEL, "method": method, "n": n}


def _number(found: dict[str, Any], n: int) -> dict[str, Any]:
    if found["value"] is not None:
        return found | {"n": n}
    return found | dict.fromkeys(("value", "low", "high")) | {"n": n, "reason": "values or true values do not vary"}

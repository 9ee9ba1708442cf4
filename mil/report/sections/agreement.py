"""How well predicted values agree with true ones."""

import numpy as np
from pydantic import Field
from scipy import stats

from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import metric_intervals
from mil.report.schema import LEVEL, Estimate, Model, Number
from mil.stats.bootstrap import Floats


class BlandAltman(Model):
    """Bias of the predicted values, and the limits between which 95% of the differences are expected."""

    n: int
    sd: Number = Field(title="Standard deviation of the differences")
    bias: Estimate
    lower: Estimate = Field(title="Lower limit of agreement")
    upper: Estimate = Field(title="Upper limit of agreement")


def agreement(evaluation: Evaluation, value_column: str) -> tuple[dict[str, Estimate], BlandAltman]:
    """Return the endpoint's metrics and Bland-Altman's limits, pooled over folds."""
    endpoint, reported = evaluation.endpoint, evaluation.reported
    scored = metric_intervals(evaluation, counts={"n": len(reported)})
    metrics = {name: metric.explained("values or true values do not vary") for name, metric in scored.items()}
    true = endpoint.encode(reported).double().numpy()
    return metrics, bland_altman(reported[value_column].to_numpy(np.float64) - true)


def bland_altman(differences: Floats) -> BlandAltman:
    """Return the bias, and the limits between which 95% of the differences are expected.

    The limits assume that differences are roughly normal, with the same variance for all true values. Their variance is
    `s^2 (1/n + z^2 / (2 (n - 1)))`.

    Args:
        differences: Predicted minus true value of each patient, `(p,)`.

    References:
        Bland and Altman, Lancet 327, 1986, and Statistical Methods in Medical Research 8, 1999.
    """
    n, z = len(differences), float(stats.norm.ppf((1 + LEVEL) / 2))
    if n < 2:
        missing = Estimate.missing("fewer than two patients", {"n": n})
        return BlandAltman(n=n, sd=None, bias=missing, lower=missing, upper=missing)
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    t = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    of_bias, of_limit = t * sd * n**-0.5, t * sd * (1 / n + z**2 / (2 * (n - 1))) ** 0.5
    return BlandAltman(
        n=n,
        sd=sd,
        bias=_symmetric(bias, of_bias, n, "Student's t"),
        lower=_symmetric(bias - z * sd, of_limit, n, "Bland-Altman 1999"),
        upper=_symmetric(bias + z * sd, of_limit, n, "Bland-Altman 1999"),
    )


def _symmetric(value: float, half_width: float, n: int, method: str) -> Estimate:
    return Estimate(value=value, low=value - half_width, high=value + half_width, method=method, counts={"n": n})

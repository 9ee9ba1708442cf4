"""Random-effects synthesis of one estimate from several sites: the mean, how much sites differ, and a further site.

The true values of the sites are taken as normal about a mean, with standard deviation tau; each estimate as normal
about its site's value with a known standard error. On the scale on which that holds: logit for areas and C-indices,
logarithm for observed over expected (Debray et al., Statistical Methods in Medical Research 28, 2019).

tau² is that of restricted maximum likelihood (Viechtbauer, Journal of Educational and Behavioral Statistics 30,
2005). The interval of the mean is Hartung, Knapp, Sidik and Jonkman's (Hartung and Knapp, Statistics in Medicine 20,
2001; Sidik and Jonkman, Statistics in Medicine 21, 2002): Student's t with k - 1 degrees of freedom and a variance
estimated from how the sites scatter, which is not taken below that of the weights (Röver, Knapp and Friede, BMC
Medical Research Methodology 15, 2015): three sites that agree by chance do not make a mean certain.

The prediction interval holds the true value of a further site of the same kind. The usual one, mean ± t times the
root of tau² plus the mean's variance (Higgins, Thompson and Spiegelhalter, JRSS A 172, 2009), takes tau² as known and
covers 0.87 to 0.93 of sites with 5 to 8 sites (`docs/coverage.md`; Partlett and Riley, Statistics in Medicine 36,
2017). Here tau² has its confidence distribution, and the interval is that of the mixture (Nagashima, Noma and
Furukawa, Statistical Methods in Medical Research 28, 2019; the distribution is that of the generalised Q statistic,
Viechtbauer, Statistics in Medicine 26, 2007).

Only values and standard errors are needed, so that sites may keep their patients to themselves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from mil.stats.estimate import LEVEL

Floats = NDArray[np.float64]
METHOD = "random effects: REML, Hartung-Knapp-Sidik-Jonkman"
PREDICTION = "prediction interval: confidence distribution of tau²"
FEWEST = 3
"""Sites below which nothing is pooled: two do not show how much sites differ."""
_DRAWS, _HALVINGS = 400, 60


@dataclass(frozen=True)
class Synthesis:
    """What several sites say together, on the scale of their estimates.

    Attributes:
        mean: Over all sites there could be.
        error: Its standard error.
        low: Of the mean's interval.
        high: Of the mean's interval.
        predicted_low: Of the interval for a further site.
        predicted_high: Of the interval for a further site.
        tau2: Variance between sites.
        i2: Share of the variance of a typical estimate that lies between sites (Higgins and Thompson, Statistics in
            Medicine 21, 2002).
        q: Cochran's statistic of heterogeneity.
        p: Its p value, by chi-squared with k - 1 degrees of freedom.
        sites: Number of sites, k.
        level: Of both intervals.
    """

    mean: float
    error: float
    low: float
    high: float
    predicted_low: float
    predicted_high: float
    tau2: float
    i2: float
    q: float
    p: float
    sites: int
    level: float = LEVEL


def pool(values: ArrayLike, errors: ArrayLike, level: float = LEVEL) -> Synthesis:
    """Return the random-effects synthesis of one estimate of each site.

    Args:
        values: `(k,)`, on a scale where they are about normal.
        errors: Their standard errors, `(k,)`.
        level: Of the intervals.

    Raises:
        ValueError: fewer than `FEWEST` sites, or an error that is not positive.
    """
    value, variance = np.asarray(values, np.float64), np.asarray(errors, np.float64) ** 2
    k = len(value)
    if k < FEWEST:
        raise ValueError(f"synthesis of {k} sites, expected {FEWEST} or more")
    if not (np.isfinite(value).all() and np.isfinite(variance).all() and (variance > 0).all()):
        raise ValueError("synthesis: values and standard errors are not finite and positive")
    tau2 = restricted_tau2(value, variance)
    weight = 1 / (variance + tau2)
    mean = float(weight @ value / weight.sum())
    scatter = float(weight @ (value - mean) ** 2) / (k - 1)
    error = float((max(1.0, scatter) / weight.sum()) ** 0.5)
    t = float(stats.t.ppf((1 + level) / 2, k - 1))
    low, high = mean - t * error, mean + t * error
    predicted = _of_further_site(value, variance, level)
    fixed = 1 / variance
    q = float(fixed @ (value - fixed @ value / fixed.sum()) ** 2)
    typical = (k - 1) * fixed.sum() / (fixed.sum() ** 2 - fixed @ fixed)
    return Synthesis(
        mean=mean,
        error=error,
        low=low,
        high=high,
        predicted_low=min(low, predicted[0]),
        predicted_high=max(high, predicted[1]),
        tau2=tau2,
        i2=float(tau2 / (tau2 + typical)),
        q=q,
        p=float(stats.chi2.sf(q, k - 1)),
        sites=k,
        level=level,
    )


def restricted_tau2(value: Floats, variance: Floats) -> float:
    """Return the variance between sites that maximises the restricted likelihood; zero at least.

    Args:
        value: `(k,)`.
        variance: Of each estimate, `(k,)`.
    """
    most = float(np.ptp(value)) ** 2
    if most == 0:
        return 0.0
    grid = most * np.linspace(0, 1, 65) ** 2
    best = int(np.argmin([_deviance(tau2, value, variance) for tau2 in grid]))
    around = (grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)])
    fit = optimize.minimize_scalar(
        _deviance, bounds=around, args=(value, variance), method="bounded", options={"xatol": 1e-9 * most}
    )
    return 0.0 if _deviance(0.0, value, variance) <= fit.fun else float(fit.x)


def _deviance(tau2: float, value: Floats, variance: Floats) -> float:
    """Return minus twice the restricted log likelihood, up to a constant."""
    total = variance + tau2
    weight = 1 / total
    mean = weight @ value / weight.sum()
    return float(np.log(total).sum() + np.log(weight.sum()) + weight @ (value - mean) ** 2)


def _of_further_site(value: Floats, variance: Floats, level: float) -> tuple[float, float]:
    """Return the interval of a further site's value: normals about the mean, mixed over the confidence in tau²."""
    tau2 = _confident_tau2(value, variance)  # (d,)
    weight = 1 / (variance + tau2[:, None])  # (d, k)
    mean, spread = weight @ value / weight.sum(1), (tau2 + 1 / weight.sum(1)) ** 0.5
    reach = 50 * float(spread.max()) + float(np.ptp(mean))

    def excess(at: float, share: float) -> float:
        return float(stats.norm.cdf(at, mean, spread).mean()) - share

    bounds = ((1 - level) / 2, (1 + level) / 2)
    low, high = (
        float(optimize.brentq(excess, mean.min() - reach, mean.max() + reach, args=(share,))) for share in bounds
    )
    return low, high


def _confident_tau2(value: Floats, variance: Floats) -> Floats:
    """Return quantiles of the confidence distribution of tau², `(d,)`: where Q is that quantile of chi-squared."""
    k = len(value)
    aim = stats.chi2.ppf((np.arange(_DRAWS) + 0.5) / _DRAWS, k - 1)
    low, high = np.zeros(_DRAWS), np.full(_DRAWS, max(float(np.ptp(value)) ** 2, float(variance.max())))
    for _ in range(_HALVINGS):
        high = np.where(_q(high, value, variance) > aim, 4 * high, high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = _q(middle, value, variance) > aim
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(_q(np.zeros(_DRAWS), value, variance) <= aim, 0.0, (low + high) / 2)


def _q(tau2: Floats, value: Floats, variance: Floats) -> Floats:
    """Return the generalised Q statistic at each tau², `(d,)`; it falls with tau²."""
    weight = 1 / (variance + tau2[:, None])
    mean = weight @ value / weight.sum(1)
    return np.asarray((weight * (value - mean[:, None]) ** 2).sum(1))

"""How strongly a severity must drive a label for its reader to reach a wanted discrimination.

A patient's severity `z` is standard normal (within its class); what tiles can show of it is `z + NOISE e`, `e` standard
normal. Everything here is about the population: no luck of a cohort enters it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, root
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from mil.errors import ConfigError
from mil.simulation.draws import NOISE, SPREAD

Floats = NDArray[np.float64]

_SEVERITIES, _TIMES = 128, 400
_STEEPEST = 8.0


@dataclass(frozen=True)
class Hazard:
    """A Weibull proportional-hazards model: `S(t | z) = exp(-(t / scale)^shape exp(slope z))`, times in months.

    Follow-up ends at `horizon`, or before it at the exponential rate `loss`, or by a competing event at the rate
    `competing`.
    """

    slope: float
    scale: float
    shape: float
    horizon: float
    loss: float
    competing: float = 0.0


def binormal_separation(attainable: float) -> float:
    """Distance of the two classes' mean severities at which what the tiles show has this AUROC.

    Binormal model: AUROC = Phi(distance / (sqrt(2) sd)).
    """
    return float(np.sqrt(2.0) * SPREAD * ndtri(attainable))


def shares_of(shown: Floats) -> Floats:
    """Each class's share of the tissue, `(p, c)`, from what the tiles show `(p, c)`; rows sum to one."""
    weight = np.exp(shown - shown.max(axis=1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def macro_auroc(shares: Floats, label: NDArray[np.int64]) -> float:
    """Mean of the one-vs-rest AUROC of column `k` of `shares (p, c)` for class `k`."""
    ranks = np.asarray(rankdata(shares, axis=0))
    total = 0.0
    for k in range(shares.shape[1]):
        positive = label == k
        n = int(positive.sum())
        total += (ranks[positive, k].sum() - n * (n + 1) / 2) / (n * (len(label) - n))
    return float(total / shares.shape[1])


def multiclass_separation(attainable: float, prevalence: Floats) -> float:
    """How far a class's own severity lies above the others' at which the shares' macro AUROC is `attainable`.

    Raises:
        ConfigError: no distance reaches it.
    """
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(len(prevalence)), np.maximum(np.round(20_000 * prevalence), 2).astype(int))
    noise = SPREAD * rng.standard_normal((len(label), len(prevalence)))  # (p, c)
    one_hot = np.eye(len(prevalence))[label]
    return _solve(lambda distance: macro_auroc(shares_of(noise + distance * one_hot), label), attainable, _STEEPEST)


def proportional_hazard(attainable: float, event_rate: float, horizon: float, shape: float) -> Hazard:
    """The hazard under which what the tiles show has Harrell's C `attainable` and this share of patients an event.

    Of the patients without an event, some are lost before the horizon: followed to it, a share of
    `1 - (1 - event_rate)^1.3` would have one.

    Raises:
        ConfigError: no slope reaches it.
    """

    def at(slope: float) -> Hazard:
        return _censored(slope, event_rate, horizon, shape)

    slope = _solve(lambda value: harrell_c(at(value)), attainable, _STEEPEST)
    return at(slope)


def competing_hazard(
    attainable: float, event_rate: float, competing_rate: float, horizon: float, shape: float
) -> Hazard:
    """The hazard under which what the tiles show has this C of the event, and so many patients it or a competing one.

    Of the patients with neither, a tenth are lost before the horizon.

    Raises:
        ConfigError: no slope reaches it.
    """

    def at(slope: float) -> Hazard:
        return _with_competitor(slope, event_rate, competing_rate, horizon, shape)

    slope = _solve(lambda value: harrell_c(at(value)), attainable, _STEEPEST)
    return at(slope)


def harrell_c(hazard: Hazard) -> float:
    """Harrell's C of what the tiles show, in the population, by quadrature over severities and event times.

    Who has had a competing event outlives everyone (Wolbers et al., Epidemiology 2009).
    """
    severity = _severities()
    dying, surviving, followed = _course(hazard, severity)
    pairs = (dying * followed**2) @ surviving.T  # [i, j]: i has its event while j is still at risk
    exposed = surviving * followed * _widths(hazard)  # (z, t)
    competed = hazard.competing * (exposed.cumsum(axis=1) - exposed / 2)
    pairs = pairs + (dying * followed) @ competed.T
    ordered = ndtr((severity[:, None] - severity) / (np.sqrt(2.0) * NOISE))
    return float((pairs * ordered).sum() / pairs.sum())


def sample_c(time: Floats, event: NDArray[np.int64], score: Floats) -> float:
    """Harrell's C of a sample; a higher score is expected to have its event earlier."""
    seen = event == 1
    pairs = time[seen, None] < time  # (events, p)
    ordered = (score[seen, None] > score) + 0.5 * (score[seen, None] == score)
    return float((pairs * ordered).sum() / max(pairs.sum(), 1))


def event_rate(hazard: Hazard) -> float:
    """Share of the population whose event is seen."""
    dying, _, followed = _course(hazard, _severities())
    return float((dying * followed).sum(axis=1).mean())


def _censored(slope: float, rate: float, horizon: float, shape: float) -> Hazard:
    """Scale and loss to follow-up for this slope and event rate."""
    surviving = (1.0 - rate) ** 1.3
    relative = np.exp(slope * _severities())
    log_hazard = float(brentq(lambda x: np.exp(-np.exp(x) * relative).mean() - surviving, -60.0, 60.0))
    scale = horizon * float(np.exp(-log_hazard / shape))

    def excess(loss: float) -> float:
        return event_rate(Hazard(slope, scale, shape, horizon, loss)) - rate

    return Hazard(slope, scale, shape, horizon, float(brentq(excess, 0.0, 1e4 / horizon)))


def _with_competitor(slope: float, rate: float, competing: float, horizon: float, shape: float) -> Hazard:
    """Scale, loss to follow-up and the competitor's rate for this slope and these shares of events."""
    lost = 0.1 * (1.0 - rate - competing)
    part = competing / (competing + lost)

    def hazard(unknown: Floats) -> Hazard:
        scale, leaving = horizon * np.exp(-unknown[0] / shape), np.exp(unknown[1]) / horizon
        return Hazard(slope, float(scale), shape, horizon, float((1 - part) * leaving), float(part * leaving))

    def excess(unknown: Floats) -> Floats:
        now = hazard(unknown)
        _, surviving, followed = _course(now, _severities())
        exposed = (surviving * followed * _widths(now)).sum(axis=1).mean()
        return np.array([event_rate(now) - rate, (now.loss + now.competing) * exposed - competing - lost])

    start = np.log(-np.log1p([-rate, -competing - lost]))
    return hazard(np.asarray(root(excess, start).x))


def _course(hazard: Hazard, severity: Floats) -> tuple[Floats, Floats, Floats]:
    """Deaths in each interval `(z, t)`, survival to its middle `(z, t)` and follow-up to its middle `(t,)`."""
    edges = _edges(hazard)
    relative = np.exp(hazard.slope * severity)[:, None]
    survival = np.exp(-((edges / hazard.scale) ** hazard.shape) * relative)
    middle = (edges[1:] + edges[:-1]) / 2
    followed = np.exp(-(hazard.loss + hazard.competing) * middle)
    return survival[:, :-1] - survival[:, 1:], (survival[:, :-1] + survival[:, 1:]) / 2, followed


def _edges(hazard: Hazard) -> Floats:
    """Of intervals that are short near zero, where a steep hazard has its events."""
    return np.asarray(hazard.horizon * np.linspace(0.0, 1.0, _TIMES + 1) ** 2)


def _widths(hazard: Hazard) -> Floats:
    return np.diff(_edges(hazard))


def _severities() -> Floats:
    return np.asarray(ndtri((np.arange(_SEVERITIES) + 0.5) / _SEVERITIES))


def _solve(discrimination: Callable[[float], float], attainable: float, steepest: float) -> float:
    best = discrimination(steepest)
    if attainable > best:
        raise ConfigError(f"attainable: {attainable} cannot be reached with these rates, at most {best:.3f}")
    if attainable <= discrimination(0.0):
        return 0.0
    return float(brentq(lambda value: discrimination(value) - attainable, 0.0, steepest, xtol=1e-4))

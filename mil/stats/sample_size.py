"""Sample sizes to develop a prediction model, and to validate one with a stated precision.

Development: Riley et al., BMJ 368, 2020, m441 (criteria i to iv of each kind of outcome); Riley et al., Statistics in
Medicine 38, 2019, 1262 (continuous) and 1276 (binary and times to an event); van Smeden et al., Statistical Methods in
Medical Research 28, 2019 (mean absolute error of probabilities). Validation: Riley et al., Statistics in Medicine 40,
2021, 4230. The numbers are those of the R packages pmsampsize and pmvalsampsize.

A neural network on tiles has no number of parameters that these criteria could take. They are about models that combine
a few numbers, such as a recalibration, a model of clinical variables beside the tool's score, or a linear model of
features; for the tool itself they are a lower bound.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import expit

from mil.errors import ConfigError

Floats = NDArray[np.float64]
SHRINKAGE, OPTIMISM, MARGIN, RATIO = 0.9, 0.05, 0.05, 1.1
"""Least shrinkage; greatest optimism of R²; margin of error of a risk; factor of error of a number's mean and sd."""
_Z = 1.96  # as in the R packages, so that sizes agree to the patient
_NODES = 200
_MOST = 10**9


@dataclass(frozen=True)
class Criterion:
    """One requirement and the patients that it needs."""

    name: str
    patients: int


@dataclass(frozen=True)
class Plan:
    """A sample size: the largest of its criteria.

    Attributes:
        criteria: What is required, with the patients for each.
        assumptions: Numbers that were assumed, by name.
        events: Expected among so many patients; None for a continuous outcome.
    """

    criteria: tuple[Criterion, ...]
    assumptions: dict[str, float]
    events: int | None = None

    @property
    def patients(self) -> int:
        """Patients that satisfy all criteria."""
        return max(criterion.patients for criterion in self.criteria)


def develop_binary(prevalence: float, parameters: int, r2: float, shrinkage: float = SHRINKAGE) -> Plan:
    """Return the size to develop a model of a yes-or-no outcome.

    Args:
        prevalence: Share of patients with the outcome.
        parameters: Candidate parameters of the model, a categorical variable of c levels counts c - 1.
        r2: Anticipated Cox-Snell R², see `r2_from_auroc`.
        shrinkage: Expected shrinkage of the coefficients, such as 0.9.

    Raises:
        ConfigError: an argument is out of its range.
    """
    _check_share("prevalence", prevalence)
    most = most_r2_binary(prevalence)
    _check_development(parameters, r2, most, shrinkage)
    log_error = -0.508 + 0.259 * math.log(prevalence) + 0.504 * math.log(parameters) - math.log(MARGIN)
    criteria = [
        Criterion("overall risk within 0.05", math.ceil((_Z / MARGIN) ** 2 * prevalence * (1 - prevalence))),
        Criterion("mean absolute error of risks 0.05", math.ceil(math.exp(log_error / 0.544))),
        Criterion(f"shrinkage {shrinkage:g}", _for_shrinkage(parameters, r2, shrinkage)),
        Criterion("optimism of R² at most 0.05", _for_optimism(parameters, r2, most)),
    ]
    if parameters > 30:  # the formula was fitted to 30 parameters at most
        criteria = [each for each in criteria if not each.name.startswith("mean absolute")]
    plan = Plan(
        tuple(criteria), {"prevalence": prevalence, "parameters": parameters, "Cox-Snell R²": r2, "its maximum": most}
    )
    return _with_events(plan, prevalence)


def develop_survival(
    rate: float, timepoint: float, follow_up: float, parameters: int, r2: float, shrinkage: float = SHRINKAGE
) -> Plan:
    """Return the size to develop a model of times to an event.

    Args:
        rate: Events per unit of follow-up time.
        timepoint: Horizon at which risks are predicted.
        follow_up: Mean follow-up.
        parameters: Candidate parameters of the model.
        r2: Anticipated Cox-Snell R².
        shrinkage: Expected shrinkage of the coefficients.

    Raises:
        ConfigError: an argument is out of its range.
    """
    for name, value in (("rate", rate), ("timepoint", timepoint), ("follow-up", follow_up)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}: {value}, expected a positive number")
    per_patient = rate * follow_up
    most = 1 - math.exp(2 * (per_patient * math.log(per_patient) - per_patient))
    _check_development(parameters, r2, most, shrinkage)

    def margin(n: float) -> float:
        error = _Z * (rate / (n * follow_up)) ** 0.5
        risk, low, high = (-math.expm1(-max(0.0, rate + side * error) * timepoint) for side in (0, -1, 1))
        return max(high - risk, risk - low)

    criteria = (
        Criterion(f"shrinkage {shrinkage:g}", _for_shrinkage(parameters, r2, shrinkage)),
        Criterion("optimism of R² at most 0.05", _for_optimism(parameters, r2, most)),
        Criterion(f"overall risk by {timepoint:g} within 0.05", _least(lambda n: margin(n) <= MARGIN)),
    )
    stated = {"event rate": rate, "timepoint": timepoint, "mean follow-up": follow_up, "parameters": parameters}
    plan = Plan(criteria, {**stated, "Cox-Snell R²": r2, "its maximum": most})
    return _with_events(plan, per_patient)


def develop_continuous(mean: float, sd: float, parameters: int, r2: float, shrinkage: float = SHRINKAGE) -> Plan:
    """Return the size to develop a model of a number.

    Args:
        mean: Of the outcome in the population.
        sd: Its standard deviation.
        parameters: Candidate parameters of the model.
        r2: Anticipated adjusted R².
        shrinkage: Expected shrinkage of the coefficients.

    Raises:
        ConfigError: an argument is out of its range.
    """
    if not sd > 0 or mean == 0:
        raise ConfigError(f"mean {mean} and sd {sd}, expected a mean that is not zero and a positive sd")
    _check_development(parameters, r2, 1.0, shrinkage)
    p = parameters

    def shrunk(n: float) -> bool:
        apparent = (r2 * (n - p - 1) + p) / (n - 1)
        return n > p + 2 and 1 + (p - 2) / (n * math.log(1 - apparent)) >= shrinkage

    def mean_known(n: float) -> bool:
        if n < p + 2:
            return False
        half = float(stats.t.ppf(0.975, n - p - 1)) * (sd**2 * (1 - r2) / n) ** 0.5
        low, high = abs(mean) - half, abs(mean) + half
        return bool(low > 0 and max(high / abs(mean), abs(mean) / low) <= RATIO)

    criteria = (
        Criterion(f"shrinkage {shrinkage:g}", _least(shrunk)),
        Criterion("optimism of R² at most 0.05", math.ceil(1 + p * (1 - r2) / OPTIMISM)),
        Criterion("residual sd within a factor 1.1", p + _RESIDUAL),
        Criterion("mean outcome within a factor 1.1", _least(mean_known)),
    )
    return Plan(criteria, {"mean": mean, "sd": sd, "parameters": p, "adjusted R²": r2})


_RESIDUAL = 234
"""Degrees of freedom with which the 95% interval of a residual sd lies within a factor of 1.1, as in the papers."""


def most_r2_binary(prevalence: float) -> float:
    """Return the largest Cox-Snell R² that a yes-or-no outcome allows."""
    log_likelihood = prevalence * math.log(prevalence) + (1 - prevalence) * math.log(1 - prevalence)
    return 1 - math.exp(2 * log_likelihood)


def r2_from_auroc(auroc: float, prevalence: float) -> float:
    """Return the Cox-Snell R² of a model with this AUROC, whose scores are normal with one variance in both classes.

    Riley, Van Calster and Collins, Statistics in Medicine 40, 2021, 859.

    Raises:
        ConfigError: an AUROC of 0.5 or less, or an argument out of its range.
    """
    _check_share("prevalence", prevalence)
    if not 0.5 < auroc < 1:
        raise ConfigError(f"AUROC: {auroc}, expected between 0.5 and 1")
    gap = 2**0.5 * float(stats.norm.ppf(auroc))
    nodes, weights = _normal_nodes()
    base = math.log(prevalence / (1 - prevalence)) - gap**2 / 2
    with_event = np.log(expit(base + gap * (nodes + gap))) @ weights
    without = np.log(expit(-(base + gap * nodes))) @ weights
    model = prevalence * with_event + (1 - prevalence) * without
    null = prevalence * math.log(prevalence) + (1 - prevalence) * math.log(1 - prevalence)
    return float(1 - math.exp(2 * (null - model)))


def validate_binary(
    prevalence: float,
    auroc: float,
    score: tuple[float, float] | None = None,
    auroc_width: float = 0.1,
    slope_width: float = 0.2,
    ratio_width: float = 0.2,
    benefit: tuple[float, float, float] | None = None,
    benefit_width: float = 0.2,
) -> Plan:
    """Return the size to validate a model of a yes-or-no outcome: widths of 95% intervals, where the model is right.

    Args:
        prevalence: Share of patients with the outcome.
        auroc: Anticipated.
        score: Mean and standard deviation of the model's logits, taken as normal; None: those that give the prevalence
            and the AUROC.
        auroc_width: Of the interval of the AUROC.
        slope_width: Of the interval of the calibration slope.
        ratio_width: Of the interval of observed over expected.
        benefit: Sensitivity and specificity at a threshold probability, and the threshold, for the standardised net
            benefit; None leaves it out.
        benefit_width: Of its interval.

    Raises:
        ConfigError: an argument is out of its range.
    """
    _check_share("prevalence", prevalence)
    if not 0.5 < auroc < 1:
        raise ConfigError(f"AUROC: {auroc}, expected between 0.5 and 1")
    for name, width in (("AUROC", auroc_width), ("slope", slope_width), ("O/E", ratio_width)):
        if not 0 < width < 10:
            raise ConfigError(f"width of the interval of {name}: {width}, expected a positive number")
    mean, sd = normal_logits(prevalence, auroc) if score is None else score
    stated = {"prevalence": prevalence, "AUROC": auroc, "mean logit": mean, "sd of logits": sd}
    error = float(np.arcsinh(ratio_width / 2)) / _Z  # of the logarithm: exp(z s) - exp(-z s) is the width
    criteria = [
        Criterion(
            f"AUROC, interval {auroc_width:g} wide", _least(lambda n: _area_width(n, auroc, prevalence) <= auroc_width)
        ),
        Criterion(f"calibration slope, interval {slope_width:g} wide", _for_slope(mean, sd, slope_width)),
        Criterion(
            f"observed/expected, interval {ratio_width:g} wide", math.ceil((1 - prevalence) / (prevalence * error**2))
        ),
    ]
    if benefit is not None:
        sensitivity, specificity, threshold = benefit
        for name, value in zip(("sensitivity", "specificity", "threshold"), benefit, strict=True):
            _check_share(name, value)
        odds = (1 - prevalence) / prevalence * threshold / (1 - threshold)
        variance = sensitivity * (1 - sensitivity) / prevalence
        variance += odds**2 * specificity * (1 - specificity) / (1 - prevalence)
        variance += odds**2 * (1 - specificity) ** 2 / (prevalence * (1 - prevalence))
        patients = math.ceil(variance / (benefit_width / (2 * _Z)) ** 2)
        criteria.append(Criterion(f"standardised net benefit, interval {benefit_width:g} wide", patients))
        stated |= {"sensitivity": sensitivity, "specificity": specificity, "threshold": threshold}
    return _with_events(Plan(tuple(criteria), stated), prevalence)


def normal_logits(prevalence: float, auroc: float) -> tuple[float, float]:
    """Return mean and standard deviation of normal logits with this mean probability and AUROC.

    Raises:
        ConfigError: no such logits exist.
    """
    nodes, weights = _normal_nodes()

    def middle(sd: float) -> float:
        return float(optimize.brentq(lambda mean: expit(mean + sd * nodes) @ weights - prevalence, -60, 60))

    def area(sd: float) -> float:
        chance = expit(middle(sd) + sd * nodes)
        positive, negative = weights * chance, weights * (1 - chance)
        below = np.cumsum(negative) - negative / 2
        return float(positive @ below / (positive.sum() * negative.sum()))

    if area(20.0) < auroc:
        raise ConfigError(f"AUROC {auroc} at prevalence {prevalence}: no normal logits give it")
    sd = float(optimize.brentq(lambda each: area(each) - auroc, 1e-3, 20))
    return middle(sd), sd


def _for_shrinkage(parameters: int, r2: float, shrinkage: float) -> int:
    return math.ceil(parameters / ((shrinkage - 1) * math.log(1 - r2 / shrinkage)))


def _for_optimism(parameters: int, r2: float, most: float) -> int:
    return _for_shrinkage(parameters, r2, r2 / (r2 + OPTIMISM * most))


def _area_width(n: float, area: float, prevalence: float) -> float:
    """Return the width of the interval of an AUROC of n patients. Newcombe, Statistics in Medicine 25, 2006."""
    half = n / 2 - 1
    ties = 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
    return float(2 * _Z * (area * (1 - area) * ties / (n**2 * prevalence * (1 - prevalence))) ** 0.5)


def _for_slope(mean: float, sd: float, width: float) -> int:
    """Return the patients for the slope: its information where intercept 0 and slope 1 are true."""
    nodes, weights = _normal_nodes()
    logits = mean + sd * nodes
    weight = weights * expit(logits) * expit(-logits)
    first, second, third = float(weight.sum()), float(weight @ logits), float(weight @ logits**2)
    return math.ceil(first / ((width / (2 * _Z)) ** 2 * (first * third - second**2)))


def _normal_nodes() -> tuple[Floats, Floats]:
    """Return points and weights of expectations over a standard normal, `(q,)` each."""
    points = np.linspace(-8.5, 8.5, 40 * _NODES + 1)
    weights = stats.norm.pdf(points)
    return points, weights / weights.sum()


def _least(holds: Callable[[float], bool]) -> int:
    """Return the smallest number of patients for which a requirement holds that more patients never break."""
    high = 2
    while not holds(high):
        high *= 2
        if high > _MOST:
            raise ConfigError(f"more than {_MOST} patients are needed, expected other assumptions")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _with_events(plan: Plan, per_patient: float) -> Plan:
    return Plan(plan.criteria, plan.assumptions, math.ceil(plan.patients * per_patient))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name}: {value}, expected between 0 and 1")


def _check_development(parameters: int, r2: float, most: float, shrinkage: float) -> None:
    if parameters < 1:
        raise ConfigError(f"parameters: {parameters}, expected at least 1")
    if not 0 < shrinkage < 1:
        raise ConfigError(f"shrinkage: {shrinkage}, expected between 0 and 1")
    if not 0 < r2 < min(most, shrinkage):
        raise ConfigError(f"R²: {r2:g}, expected between 0 and {min(most, shrinkage):.3g}, its maximum here")

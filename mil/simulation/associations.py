"""Clinical columns that go with the outcome of each patient by stated odds or hazard ratios.

The outcome is drawn first and does not change: a column is drawn from its distribution given the outcome. Before the
outcome is known, the columns with effects are independent and have their stated shares; the outcome then follows a
logistic model, or a model of proportional hazards, with the stated ratios as coefficients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.errors import ConfigError
from mil.simulation.clinical_variables import SEVERITY, CategoricalVariable, ClinicalVariable, Effect
from mil.simulation.draws import Draws, Floats, stratified

_ROUNDS, _CLOSE = 1000, 1e-10
_ROWS = 256  # patients whose posterior is held in memory at a time
_MOST = 2000  # different outcomes that enter the fit: of more, as many evenly spaced ones


@dataclass(frozen=True)
class ClassOutcome:
    """Classes, labels or grades: effects are odds ratios."""

    scores: Mapping[str, Floats]
    """by the name in `Effect.of`: how many times the log odds ratio applies to each patient, `(p,)`; 0 or 1 for a
    class or label, the number of steps for a grade"""


@dataclass(frozen=True)
class FollowUp:
    """Times to the first of one or more events: effects are hazard ratios."""

    time: Floats
    """`(p,)`"""
    cause: NDArray[np.int64]
    """of the event, `(p,)`: 1, 2, ...; 0 where follow-up ended without one"""
    causes: tuple[str, ...]
    """the name of each, as in `Effect.of`"""


Outcome = ClassOutcome | FollowUp


def clinical_columns(
    variables: Mapping[str, ClinicalVariable], outcome: Outcome | None, severity: Floats, rng: Draws
) -> pd.DataFrame:
    """Draw the clinical columns of `p` patients.

    Args:
        variables: By column.
        outcome: None for targets that are neither classes nor times: effects are on the severity.
        severity: `(p,)`, of any scale.
        rng: Used for these columns alone.

    Raises:
        ConfigError: an effect on something that is not predicted, or of the wrong kind.
    """
    related = {name: variable for name, variable in variables.items() if variable.effects}
    uniform = stratified(len(severity), 1 + len(variables), rng)
    drawn: dict[str, Sequence[object]] = {}
    if related:
        support = _Support(related)
        chosen = support.draw(_model(support, outcome, severity), uniform[:, 0])
        drawn = {name: support.values(name, chosen) for name in related}
    for place, (name, variable) in enumerate(variables.items(), start=1):
        if not variable.effects and not _given(variable):
            drawn[name] = [variable.values[k] for k in _inverse(variable.weights[None], uniform[:, place])]
    for place, (name, variable) in enumerate(variables.items(), start=1):
        if isinstance(variable, CategoricalVariable) and variable.given is not None:
            drawn[name] = _by_band(variable, np.asarray(drawn[variable.given], dtype=np.float64), uniform[:, place])
    return pd.DataFrame({name: drawn[name] for name in variables}, index=range(len(severity)))


def _given(variable: ClinicalVariable) -> bool:
    return isinstance(variable, CategoricalVariable) and variable.given is not None


def _by_band(variable: CategoricalVariable, given: Floats, uniform: Floats) -> list[str]:
    starts = np.array([band.start for band in variable.bands])
    band_of = np.maximum(np.searchsorted(starts, given, side="right") - 1, 0)
    levels = list(dict.fromkeys(level for band in variable.bands for level in band.shares))
    shares = np.array([[band.shares.get(level, 0.0) for level in levels] for band in variable.bands])
    return [levels[k] for k in _inverse(shares[band_of], uniform)]


class _Support:
    """All combinations of the values of some variables, `(s,)`."""

    def __init__(self, variables: Mapping[str, ClinicalVariable]) -> None:
        self.variables = dict(variables)
        sizes = [len(variable.values) for variable in variables.values()]
        self._index = dict(zip(variables, np.indices(sizes).reshape(len(sizes), -1), strict=True))
        shares = [variable.weights[self._index[name]] for name, variable in variables.items()]
        self.prior: Floats = np.prod(shares, axis=0)
        """share of each combination, `(s,)`"""

    def effects(self) -> list[tuple[str, Effect, Floats]]:
        """Return every effect with its variable and its log ratio for each combination, `(s,)`."""
        return [
            (name, effect, variable.log_ratios(effect)[self._index[name]])
            for name, variable in self.variables.items()
            for effect in variable.effects
        ]

    def values(self, name: str, chosen: NDArray[np.int64]) -> list[object]:
        """Return a variable's value in the chosen combinations."""
        values = self.variables[name].values
        return [values[k] for k in self._index[name][chosen]]

    def draw(self, model: "_Model", uniform: Floats) -> NDArray[np.int64]:
        """Draw a combination for each patient, `(p,)`."""
        blocks = np.split(np.arange(len(uniform)), np.arange(_ROWS, len(uniform), _ROWS))
        return np.concatenate([_inverse(np.exp(model.log_posterior(rows)), uniform[rows]) for rows in blocks])


class _Model:
    """The distribution of combinations given what was observed of each patient."""

    def __init__(self, log_prior: Floats, terms: Sequence[tuple[Floats, Floats]]) -> None:
        self.log_prior, self.terms = log_prior, terms  # a patient's weights (p,) of a function of combinations (s,)

    def log_posterior(self, rows: NDArray[np.int64]) -> Floats:
        """Return log probabilities up to a constant, `(rows, s)`."""
        total = np.tile(self.log_prior, (len(rows), 1))
        for weight, function in self.terms:
            total += weight[rows, None] * function
        return np.asarray(total - total.max(axis=1, keepdims=True))


def _model(support: _Support, outcome: Outcome | None, severity: Floats) -> _Model:
    effects = support.effects()
    if all(effect.of == SEVERITY for _, effect, _ in effects):
        standard = (severity - severity.mean()) / severity.std()
        outcome = ClassOutcome({SEVERITY: standard})
    if isinstance(outcome, FollowUp):
        return _proportional_hazards(support, outcome, _by_name(effects, outcome.causes, "hazard ratio"))
    names = () if outcome is None else tuple(outcome.scores)
    functions = _by_name(effects, names, "odds ratio")
    assert outcome is not None
    return _log_linear(support, [(outcome.scores[name], functions[name]) for name in functions])


def _by_name(effects: Sequence[tuple[str, Effect, Floats]], names: Sequence[str], measure: str) -> dict[str, Floats]:
    """Return the sum of all log ratios on each class, label or cause, `(s,)`."""
    default = names[0] if names and (len(names) == 1 or measure == "hazard ratio") else ""
    total: dict[str, Floats] = {}
    for variable, effect, log_ratio in effects:
        key, of = f"simulation.clinical.{variable}", effect.of or default
        if of not in names:
            choices = ", ".join((*names, f"{SEVERITY} for all effects"))
            raise ConfigError(f"{key}: an effect of {effect.of!r} found, one of {choices} expected")
        if effect.measure != measure:
            raise ConfigError(f"{key}: {effect.measure} found, {measure} expected")
        total[of] = total.get(of, np.zeros_like(log_ratio)) + log_ratio
    return total


def _log_linear(support: _Support, terms: Sequence[tuple[Floats, Floats]]) -> _Model:
    """Return the joint distribution with these log odds ratios and with both margins as they are.

    Source: iterative proportional fitting, W. E. Deming, F. F. Stephan, Annals of Mathematical Statistics 1940.
    """
    patterns, counts = np.unique(np.column_stack([score for score, _ in terms]), axis=0, return_counts=True)
    if len(patterns) > _MOST:
        patterns = patterns[np.linspace(0, len(patterns) - 1, _MOST).astype(int)]
        counts = np.ones(_MOST, np.int64)
    ratios = np.exp(sum(np.outer(patterns[:, k], function) for k, (_, function) in enumerate(terms)))
    columns = support.prior.copy()  # (s,): what the combinations' shares are multiplied by
    for _ in range(_ROUNDS):
        rows = counts / counts.sum() / (ratios @ columns)
        fitted = columns * (rows @ ratios)
        columns *= support.prior / fitted
        if np.abs(fitted - support.prior).max() < _CLOSE:
            break
    return _Model(np.log(columns), terms)


def _proportional_hazards(support: _Support, outcome: FollowUp, functions: Mapping[str, Floats]) -> _Model:
    """Return the distribution under which the cause-specific hazards are proportional.

    The hazards of the whole cohort are those of its table. The baseline hazard of each cause follows from them step by
    step: its increment is the cohort's divided by the mean hazard ratio of those still at risk (Breslow's estimator
    with the mean over the distribution of the combinations).
    """
    order = np.argsort(outcome.time, kind="stable")
    log_ratios = np.array([functions.get(cause, np.zeros_like(support.prior)) for cause in outcome.causes])  # (c, s)
    at_risk = np.log(support.prior)
    cumulative = np.zeros((len(order), len(log_ratios)))  # of each cause's baseline hazard at each patient's time
    reached = np.zeros(len(log_ratios))
    for place, patient in enumerate(order):
        if cause := outcome.cause[patient]:
            weight = np.exp(at_risk - at_risk.max())
            ratio = np.exp(log_ratios[cause - 1])
            step = weight.sum() / (weight @ ratio) / (len(order) - place)
            reached[cause - 1] += step
            at_risk = at_risk - step * ratio
        cumulative[patient] = reached
    terms = [(-cumulative[:, k], np.exp(log_ratios[k])) for k in range(len(log_ratios))]
    events = [((outcome.cause == k + 1).astype(np.float64), log_ratios[k]) for k in range(len(log_ratios))]
    return _Model(np.log(support.prior), [*terms, *events])


def _inverse(weights: Floats, uniform: Floats) -> NDArray[np.int64]:
    """Return the index of the weight `(p or 1, s)` into whose part of the sum a number in (0, 1) falls, `(p,)`."""
    cumulative = np.cumsum(weights, axis=1)
    below = cumulative < uniform[:, None] * cumulative[:, -1:]
    return np.asarray(np.minimum(below.sum(axis=1), weights.shape[1] - 1))

"""The results of the sites together: their mean, how much they differ, and what to expect at a further site.

Random effects: each site has its own true value (`mil.stats.random_effects`). Areas and C-indices are pooled on the
logit scale, observed over expected as a logarithm, slopes as they are: Debray et al., BMJ 356, 2017, i6460; Snell
et al., Statistical Methods in Medical Research 27, 2018.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from scipy.special import expit, logit
from scipy.stats import norm

from mil.endpoints.question import Question
from mil.endpoints.survival_view import SurvivalView
from mil.report.evaluation import Evaluation
from mil.report.schema import LEVEL, Estimate, Model, Section, Sentence
from mil.report.sections.horizon import ratio_to, risk_columns, slope_at
from mil.report.sections.site_effects import site_of
from mil.report.sections.subgroup_metrics import LEAST, Measure, main_measure, question_measure
from mil.stats import delong
from mil.stats.bootstrap import Floats, Fold
from mil.stats.calibration_metrics import slope_with_error
from mil.stats.jackknife import jackknife_error
from mil.stats.observed_risk import risk_at
from mil.stats.random_effects import FEWEST, METHOD, PREDICTION, Synthesis, pool

Scale = Literal["logit", "logarithm", "as it is"]
_FORTH: Mapping[Scale, Callable[[float], float]] = {
    "logit": lambda value: float(logit(value)),
    "logarithm": lambda value: float(np.log(value)),
    "as it is": lambda value: value,
}
_BACK: Mapping[Scale, Callable[[float], float]] = {
    "logit": lambda value: float(expit(value)),
    "logarithm": lambda value: float(np.exp(value)),
    "as it is": lambda value: value,
}


class PooledMeasure(Model):
    """One measure of all sites together."""

    name: str
    sites: int
    mean: Estimate = Field(title="Mean over sites")
    further_site: Estimate = Field(title="Interval for a further site")
    scale: Scale
    """on which sites are pooled"""
    tau2: float = Field(title="τ²")
    """variance between sites, on that scale"""
    i2: float = Field(title="I²")
    p: float = Field(title="p of no difference between sites")
    left_out: tuple[str, ...] = Field(default=(), title="Sites with too few patients")
    sentence: Sentence


class SiteSynthesis(Section):
    """Random-effects synthesis over sites."""

    key: ClassVar[str] = "site_synthesis"
    title: ClassVar[str] = "Sites together"
    explanation: ClassVar[str] = (
        "The mean over sites, how much sites differ, and what to expect at a further site of the same kind."
    )
    not_applicable: ClassVar[str] = (
        f"The clinical table does not have {FEWEST} sites with {LEAST} positives and {LEAST} negatives each, or "
        f"{LEAST} events."
    )
    position: ClassVar[int] = 105

    measures: tuple[PooledMeasure, ...]

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return every measure that enough sites have; None where no measure has them."""
        site = site_of(evaluation)
        if site is None or site.nunique() < FEWEST:
            return None
        members = {str(name): list(map(str, rows.index)) for name, rows in evaluation.reported.groupby(site)}
        return cls(measures=measures) if (measures := tuple(_measures(evaluation, members))) else None


@dataclass(frozen=True)
class _OfSite:
    """A value with its standard error on the scale of the synthesis."""

    value: float
    error: float


_Measure = Callable[[Sequence[str]], _OfSite]


def _measures(evaluation: Evaluation, members: Mapping[str, Sequence[str]]) -> Iterator[PooledMeasure]:
    view, questions = evaluation.endpoint.survival, evaluation.questions
    for question in questions:
        of_question = question_measure(evaluation, question)
        prefix = f"{question.name}: " if len(questions) > 1 else ""
        yield from _pooled(f"{prefix}AUROC", "logit", of_question, members, partial(_area, of_question))
        for name, scale, value in _calibrations(evaluation, question):
            yield from _pooled(f"{prefix}{name}", scale, of_question, members, value)
    if view is not None:
        concordance = main_measure(evaluation)
        yield from _pooled("C-index", "logit", concordance, members, partial(_concordance, concordance))
        for column in risk_columns(evaluation, view).items():
            for name, scale, value in _risk_calibrations(evaluation, view, *column):
                yield from _pooled(f"{name}, {column[0]}", scale, concordance, members, value)


def _pooled(
    name: str, scale: Scale, enough: Measure, members: Mapping[str, Sequence[str]], value: _Measure
) -> Iterator[PooledMeasure]:
    """Yield the synthesis of a measure, where enough sites have it."""
    values = {site: value(names) for site, names in members.items() if enough.shortage(names) is None}
    usable = {
        site: each
        for site, each in values.items()
        if np.isfinite(each.value) and np.isfinite(each.error) and each.error > 0
    }
    if len(usable) < FEWEST:
        return
    result = pool([each.value for each in usable.values()], [each.error for each in usable.values()])
    left_out = tuple(site for site in members if site not in usable)
    yield _of(name, scale, result, sum(len(members[site]) for site in usable), left_out)


def _of(name: str, scale: Scale, result: Synthesis, patients: int, left_out: tuple[str, ...]) -> PooledMeasure:
    back, counts = _BACK[scale], {"n": patients, "sites": result.sites}
    on_scale = "" if scale == "as it is" else f", {scale} scale"
    value = back(result.mean)
    mean = Estimate(
        value=value, low=back(result.low), high=back(result.high), method=f"{METHOD}{on_scale}", counts=counts
    )
    further = Estimate(
        value=value,
        low=back(result.predicted_low),
        high=back(result.predicted_high),
        method=f"{PREDICTION}{on_scale}",
        counts=counts,
    )
    sentence = (
        f"{name}: {mean} on average over {result.sites} sites; "
        f"at a further site like these it lies in {further} with 95% confidence."
    )
    return PooledMeasure(
        name=name,
        sites=result.sites,
        mean=mean,
        further_site=further,
        scale=scale,
        tau2=result.tau2,
        i2=result.i2,
        p=result.p,
        left_out=left_out,
        sentence=sentence,
    )


def _cells(measure: Measure, names: Sequence[str]) -> list[Fold]:
    """Return the patients fold by fold where no two folds share one."""
    cells, _ = measure.cells(names)
    repeated = sum(len(cell.target) for cell in cells) > len(set(names))
    return [measure.of_all_folds(names)] if repeated else cells


def _area(measure: Measure, names: Sequence[str]) -> _OfSite:
    """Return the logit of the AUROC with DeLong's standard error."""
    cells = _cells(measure, names)
    area = delong.mean([delong.area(cell.logits[:, 0].numpy(), cell.target[:, 0].numpy() == 1) for cell in cells])
    return _on_logits(area.value, area.variance**0.5)


def _concordance(measure: Measure, names: Sequence[str]) -> _OfSite:
    """Return the logit of the C-index with the jackknife's standard error."""
    cells = _cells(measure, names)
    values = [float(measure.score(cell.logits, cell.target, None)[""]) for cell in cells]
    errors = [jackknife_error(partial(_score_of, measure, cell), len(cell.target)) for cell in cells]
    return _on_logits(float(np.mean(values)), float(np.sum(np.square(errors))) ** 0.5 / len(cells))


def _score_of(measure: Measure, cell: Fold, weight: Floats) -> Floats:
    return measure.score(cell.logits, cell.target, weight)[""]


def _on_logits(value: float, error: float) -> _OfSite:
    inside = 0 < value < 1
    return _OfSite(_FORTH["logit"](value), error / (value * (1 - value))) if inside else _OfSite(float("nan"), error)


def _calibrations(evaluation: Evaluation, question: Question) -> Iterator[tuple[str, Scale, _Measure]]:
    """Yield the measures of calibration of one probability."""
    reported = evaluation.reported
    truth = dict(zip(map(str, reported.index), question.truth(reported), strict=True))
    chance = dict(zip(map(str, reported.index), question.probability(reported), strict=True))

    def of(names: Sequence[str]) -> tuple[Floats, Floats]:
        answered = [name for name in names if not np.isnan(truth[name])]
        probability = np.clip([chance[name] for name in answered], 0, 1)
        return np.asarray(probability, np.float64), np.array([truth[name] for name in answered])

    def ratio(names: Sequence[str]) -> _OfSite:
        probability, answers = of(names)
        observed, expected = float(answers.sum()), float(probability.sum())
        if not observed or not expected:
            return _OfSite(float("nan"), float("nan"))
        return _OfSite(float(np.log(observed / expected)), ((1 - observed / len(answers)) / observed) ** 0.5)

    yield "observed/expected", "logarithm", ratio
    yield "calibration slope", "as it is", lambda names: _OfSite(*slope_with_error(*of(names)))


def _risk_calibrations(
    evaluation: Evaluation, view: SurvivalView, horizon: str, column: str
) -> Iterator[tuple[str, Scale, _Measure]]:
    """Yield the measures of calibration of the risk at one horizon; standard errors are read off their intervals."""
    at = view.horizons[horizon]

    def estimates(names: Sequence[str]) -> tuple[Estimate, Estimate]:
        patients = evaluation.reported.loc[list(names)]
        time, code = view.event_times(evaluation.endpoint.encode(patients)).numpy().T
        risk = patients[column].to_numpy(np.float64)
        return ratio_to(risk_at(time, code, at), float(risk.mean())), slope_at(risk, time, code, at)

    yield "observed/expected", "logarithm", lambda names: _from_interval(estimates(names)[0], "logarithm")
    yield "calibration slope", "as it is", lambda names: _from_interval(estimates(names)[1], "as it is")


def _from_interval(estimate: Estimate, scale: Scale) -> _OfSite:
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None or low is None or high is None or (scale == "logarithm" and not (value > 0 and low > 0)):
        return _OfSite(float("nan"), float("nan"))
    forth = _FORTH[scale]
    return _OfSite(forth(value), (forth(high) - forth(low)) / (2 * float(norm.ppf((1 + LEVEL) / 2))))

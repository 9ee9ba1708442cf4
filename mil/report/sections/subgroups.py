"""The fixed table of subgroups: how a tool does by sex, age, stage, site, scanner, specimen and a tool's own variables.

No row is left out. One with fewer than 20 positives or 20 negatives (20 events, 40 patients) says so in place of its
metric.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Self
from zlib import crc32

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats

from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.schema import LEVEL, Drawing, Estimate, Model, Report, Section
from mil.report.sections.calls import CallRates, called
from mil.report.sections.gaps import Gap, equalised_odds, metric_gap, proportion_gap
from mil.report.sections.levels import levels, order
from mil.report.sections.subgroup_metrics import (
    LEAST,
    Heterogeneity,
    MeanCalibration,
    Measure,
    heterogeneity,
    main_measure,
    observed_expected,
    question_measure,
)
from mil.stats.bootstrap_intervals import Sampled
from mil.stats.multiple_tests import holm

Members = Sequence[str]
"""Names of patients."""


class SubgroupResult(Model):
    """What is measured in one subgroup, about the endpoint or about one of its questions."""

    metric: str
    value: Estimate
    calibration: MeanCalibration | None = None
    sensitivity: Estimate | None = None
    """at the only cut, or the lower of two"""
    specificity: Estimate | None = None
    """at the same cut"""
    upper_sensitivity: Estimate | None = Field(default=None, title="Sensitivity, upper cut")
    upper_specificity: Estimate | None = Field(default=None, title="Specificity, upper cut")
    undecided: Estimate | None = None
    calls: dict[str, int] | None = None


class Named(Model):
    """Something about one question."""

    name: str


class Subgroup(Model):
    """The reported patients of one level of one variable, such as sex, female."""

    variable: str
    level: str
    n: int
    counts: dict[str, int]


class QuestionResult(SubgroupResult, Named):
    """What is measured about one question in one subgroup."""


class SubgroupRow(SubgroupResult, Subgroup):
    """What is measured in one subgroup, and about each question where there are several."""

    questions: tuple[QuestionResult, ...] = ()


class LevelValue(Model):
    """The metric of the level where it is lowest."""

    variable: str | None = None
    group: str
    estimate: Estimate


class Spread(Model):
    """How far apart the levels of a variable lie."""

    worst: LevelValue | None = None
    gap: Gap | None = None
    heterogeneity: Heterogeneity | None = None
    sensitivity_gap: Gap | None = None
    specificity_gap: Gap | None = None
    equalised_odds: Estimate | None = None


class Variable(Model):
    """A variable and the number of its levels."""

    variable: str
    levels: int


class QuestionSpread(Spread, Named):
    """How far apart the levels lie by one question."""


class VariableSpread(Spread, Variable):
    """How far apart the levels of one variable lie, and by each question where there are several."""

    questions: tuple[QuestionSpread, ...] = ()


class VariableEstimate(Model):
    """The variable where an estimate is largest."""

    variable: str
    estimate: Estimate


class Subgroups(Section):
    """How the tool does in every subgroup of a fixed table."""

    key: ClassVar[str] = "subgroups"
    title: ClassVar[str] = "Subgroups"
    explanation: ClassVar[str] = "Every subgroup is shown; in small ones the metric cannot be estimated."
    not_applicable: ClassVar[str] = "There is no clinical table, or it has none of the variables."
    position: ClassVar[int] = 80
    captions: ClassVar[Mapping[str, str]] = {
        "subgroups": "The main metric in each subgroup, with its interval",
    }

    metric: str
    least: int = Field(title="Fewest positives, negatives or events")
    rows: tuple[SubgroupRow, ...]
    absent: tuple[str, ...]
    """variables that the clinical table does not have"""
    variables: tuple[VariableSpread, ...]
    worst: LevelValue | None = None
    largest_gap: Gap | None = None
    largest_sensitivity_gap: Gap | None = None
    largest_specificity_gap: Gap | None = None
    equalised_odds_difference: VariableEstimate | None = None

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the rows of the table and their extremes; None where no variable is known of the patients."""
        levels_of, absent = levels(evaluation)
        if not levels_of:
            return None
        table = _Table(evaluation)
        rows = [table.row("all", "all", list(evaluation.reported.index))]
        variables = []
        for variable, level_of in levels_of.items():
            members = {level: list(level_of.index[level_of == level]) for level in order(level_of)}
            rows += [table.row(variable, level, patients) for level, patients in members.items()]
            variables.append(table.spread(variable, list(members)))
        return cls(
            metric=evaluation.endpoint.metric,
            least=LEAST,
            rows=tuple(rows),
            absent=tuple(absent),
            variables=_adjusted(variables),
            worst=_worst_of_all(variables),
            largest_gap=_largest(variables, lambda spread: spread.gap),
            largest_sensitivity_gap=_largest(variables, lambda spread: spread.sensitivity_gap),
            largest_specificity_gap=_largest(variables, lambda spread: spread.specificity_gap),
            equalised_odds_difference=_largest_odds(variables),
        )

    def drawings(self, evaluation: Evaluation, report: Report) -> Iterator[Drawing]:
        """Yield the forest of the subgroups."""
        from mil.report.figures.forest_plot import subgroups

        yield Drawing("subgroups", subgroups(self.rows, self.metric, report.metrics.get(self.metric)))


class _Table:
    """Makes the rows, and keeps their resamples for the spread of each variable."""

    def __init__(self, evaluation: Evaluation) -> None:
        questions = evaluation.questions
        self.evaluation = evaluation
        self.decisions = {decision.name: decision for decision in called(evaluation)}
        self.questions: Mapping[str, Question] = {question.name: question for question in questions}
        self.only_question = questions[0].name if len(questions) == 1 else None
        self.main = main_measure(evaluation)
        several = questions if len(questions) > 1 else []
        self.measures = {question.name: question_measure(evaluation, question) for question in several}
        self.samples: dict[tuple[str, str, str | None], Sampled] = {}
        self.results: dict[tuple[str, str, str | None], SubgroupResult] = {}

    def row(self, variable: str, level: str, members: Members) -> SubgroupRow:
        """Return everything about one level."""
        endpoint, patients = self.evaluation.endpoint, self.evaluation.reported.loc[list(members)]
        result = self._result(variable, level, members, self.main, self.only_question)
        results = {name: self._result(variable, level, members, each, name) for name, each in self.measures.items()}
        return SubgroupRow(
            variable=variable,
            level=level,
            n=len(patients),
            counts=endpoint.counts(endpoint.encode(patients)),
            **dict(result),
            questions=tuple(QuestionResult(name=name, **dict(each)) for name, each in results.items()),
        )

    def _result(
        self, variable: str, level: str, members: Members, measure: Measure, question: str | None
    ) -> SubgroupResult:
        # each level has its own seed: levels that share their draws would seem to differ less than they may
        seed = self.evaluation.seed + (0 if variable == "all" else crc32(f"{variable}={level}".encode()))
        samples, value = measure.of(members, self.evaluation.resamples, seed)
        patients = self.evaluation.reported.loc[list(members)]
        rates = self._rates(question, patients)
        result = SubgroupResult(
            metric=measure.name,
            value=value,
            calibration=_calibration(self.evaluation, patients, self.questions.get(question or "")),
            sensitivity=rates.sensitivity,
            specificity=rates.specificity,
            upper_sensitivity=rates.upper_sensitivity,
            upper_specificity=rates.upper_specificity,
            undecided=rates.undecided,
            calls=rates.calls,
        )
        if samples is not None:
            self.samples[variable, level, question] = samples
        self.results[variable, level, question] = result
        return result

    def _rates(self, question: str | None, patients: pd.DataFrame) -> CallRates:
        """Return what the decision about a question says of these patients, or the only decision about the endpoint."""
        decision = self.decisions.get(question or "")
        if decision is None and question is None and len(self.decisions) == 1:
            [decision] = self.decisions.values()
        return CallRates() if decision is None else decision.rates(patients.index)

    def spread(self, variable: str, names: Sequence[str]) -> VariableSpread:
        """Return worst level, largest gaps and whether the levels differ, over the levels that can be estimated."""
        spread = self._spread(variable, names, self.only_question)
        questions = {name: self._spread(variable, names, name) for name in self.measures}
        return VariableSpread(
            variable=variable,
            levels=len(names),
            **dict(spread),
            questions=tuple(QuestionSpread(name=name, **dict(each)) for name, each in questions.items()),
        )

    def _spread(self, variable: str, names: Sequence[str], question: str | None) -> Spread:
        samples = {name: self.samples.get((variable, name, question)) for name in names}
        defined = {name: each for name, each in samples.items() if each is not None and np.isfinite(each.value)}
        results = {name: self.results[variable, name, question] for name in names}
        sensitivities = {name: result.sensitivity for name, result in results.items()}
        # of two cuts, the one that may miss positives and the one that may raise false alarms
        specificities = {name: result.upper_specificity or result.specificity for name, result in results.items()}
        worst = min(defined, key=lambda name: defined[name].value, default=None)
        seed = self.evaluation.seed + crc32(variable.encode())
        return Spread(
            worst=None if worst is None else LevelValue(group=worst, estimate=results[worst].value),
            gap=metric_gap(defined),
            heterogeneity=heterogeneity(list(defined.values())),
            sensitivity_gap=proportion_gap(sensitivities, LEAST),
            specificity_gap=proportion_gap(specificities, LEAST),
            equalised_odds=equalised_odds(sensitivities, specificities, LEAST, self.evaluation.resamples, seed),
        )


def _adjusted(variables: Sequence[VariableSpread]) -> tuple[VariableSpread, ...]:
    """Return the variables with Holm's p, for as many variables as are tested."""
    tests = [each.heterogeneity for each in variables if each.heterogeneity is not None]
    raised = iter(holm([test.p for test in tests]))
    return tuple(
        each
        if each.heterogeneity is None
        else each.model_copy(update={"heterogeneity": each.heterogeneity.model_copy(update={"p_holm": next(raised)})})
        for each in variables
    )


def _worst_of_all(variables: Sequence[VariableSpread]) -> LevelValue | None:
    worst = [each.worst.model_copy(update={"variable": each.variable}) for each in variables if each.worst is not None]
    return min(worst, key=lambda level: level.estimate.value or 0.0, default=None)


def _largest(variables: Sequence[VariableSpread], gap_of: Callable[[Spread], Gap | None]) -> Gap | None:
    """Return the gap of the variable where it is largest."""
    gaps = [gap.model_copy(update={"variable": each.variable}) for each in variables if (gap := gap_of(each))]
    estimable = [gap for gap in gaps if gap.estimate.value is not None]
    return max(estimable, key=lambda gap: gap.estimate.value or 0.0, default=None)


def _largest_odds(variables: Sequence[VariableSpread]) -> VariableEstimate | None:
    odds = [
        VariableEstimate(variable=each.variable, estimate=each.equalised_odds)
        for each in variables
        if each.equalised_odds is not None
    ]
    return max(odds, key=lambda each: each.estimate.value or 0.0, default=None)


def _calibration(evaluation: Evaluation, patients: pd.DataFrame, question: Question | None) -> MeanCalibration | None:
    """Return observed over expected of a question; of a predicted value how far the truth lies above it."""
    endpoint = evaluation.endpoint
    if question is not None:
        truth, probability = question.truth(patients), question.probability(patients)
        answered = ~np.isnan(truth)
        return observed_expected(float(truth[answered].sum()), float(probability[answered].sum()), int(answered.sum()))
    if endpoint.value_column is None or len(patients) < 2:
        return None
    above = endpoint.encode(patients).double().numpy() - patients[endpoint.value_column].to_numpy(np.float64)
    half_width = float(stats.t.ppf((1 + LEVEL) / 2, len(above) - 1) * above.std(ddof=1) / len(above) ** 0.5)
    mean = float(above.mean())
    estimate = Estimate(
        value=mean,
        low=mean - half_width,
        high=mean + half_width,
        method="Student's t, true minus predicted",
        counts={"n": len(above)},
    )
    return MeanCalibration(estimate=estimate)

"""The fixed table of subgroups: how a tool does by sex, age, stage, site, scanner, specimen and a tool's own variables.

No row is left out. One with fewer than 20 positives or 20 negatives (20 events, 40 patients) says so in place of its
metric.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from mil.report.sections.gaps import FoundGap, Gap, equalised_odds, gap_estimate, metric_gap, proportion_gap, seed_of
from mil.report.sections.levels import levels, order
from mil.report.sections.subgroup_metrics import (
    LEAST,
    Heterogeneity,
    MeanCalibration,
    Measure,
    main_measure,
    observed_expected,
    question_measure,
)
from mil.stats.bootstrap_intervals import Sampled
from mil.stats.label_permutation import PermutedGap
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
            variables.append(table.spread(variable, members))
        return cls(
            metric=evaluation.endpoint.metric,
            least=LEAST,
            rows=tuple(rows),
            absent=tuple(absent),
            variables=_adjusted(variables),
            worst=_worst_of_all(variables),
            largest_gap=table.largest("metric"),
            largest_sensitivity_gap=table.largest("sensitivity"),
            largest_specificity_gap=table.largest("specificity"),
            equalised_odds_difference=table.largest_odds(),
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
        self.gaps: dict[str, dict[str, FoundGap | None]] = {}
        self.odds: dict[str, PermutedGap | None] = {}

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

    def spread(self, variable: str, members: Mapping[str, Members]) -> VariableSpread:
        """Return worst level, largest gaps and whether the levels differ, over the levels that can be estimated."""
        spread = self._spread(variable, members, self.only_question, self.main)
        questions = {name: self._spread(variable, members, name, each) for name, each in self.measures.items()}
        return VariableSpread(
            variable=variable,
            levels=len(members),
            **dict(spread),
            questions=tuple(QuestionSpread(name=name, **dict(each)) for name, each in questions.items()),
        )

    def _spread(self, variable: str, members: Mapping[str, Members], question: str | None, measure: Measure) -> Spread:
        samples = {name: self.samples.get((variable, name, question)) for name in members}
        defined = {name: each for name, each in samples.items() if each is not None and np.isfinite(each.value)}
        results = {name: self.results[variable, name, question] for name in members}
        sensitivities = {name: result.sensitivity for name, result in results.items()}
        # of two cuts, the one that may miss positives and the one that may raise false alarms
        specificities = {name: result.upper_specificity or result.specificity for name, result in results.items()}
        worst = min(defined, key=lambda name: defined[name].value, default=None)
        seed = seed_of(self.evaluation.seed, variable, question or "")
        metric = metric_gap(defined, measure, members, seed)
        gaps = {
            "metric": metric,
            "sensitivity": proportion_gap(sensitivities, LEAST, seed),
            "specificity": proportion_gap(specificities, LEAST, seed + 1),
        }
        odds = equalised_odds(sensitivities, specificities, LEAST, seed)
        if question == self.only_question:
            self.gaps[variable], self.odds[variable] = gaps, odds
        shown = {kind: None if gap is None else gap.gap() for kind, gap in gaps.items()}
        return Spread(
            worst=None if worst is None else _worst(worst, results[worst].value, len(defined)),
            gap=shown["metric"],
            heterogeneity=None if metric is None else metric.heterogeneity,
            sensitivity_gap=shown["sensitivity"],
            specificity_gap=shown["specificity"],
            equalised_odds=None if odds is None else gap_estimate(odds),
        )

    def largest(self, kind: str) -> Gap | None:
        """Return the gap of the variable where it is largest, judged for all variables that have one."""
        gaps = {variable: gap for variable, of_kind in self.gaps.items() if (gap := of_kind[kind]) is not None}
        if not gaps:
            return None
        variable = max(gaps, key=lambda name: gaps[name].permuted.value)
        return gaps[variable].gap(variable, len(gaps))

    def largest_odds(self) -> VariableEstimate | None:
        """Return the difference in equalised odds of the variable where it is largest, judged for all of them."""
        odds = {variable: each for variable, each in self.odds.items() if each is not None}
        if not odds:
            return None
        variable = max(odds, key=lambda name: odds[name].value)
        return VariableEstimate(variable=variable, estimate=gap_estimate(odds[variable], len(odds)))


def _worst(level: str, value: Estimate, levels: int) -> LevelValue:
    """Return the lowest of several levels, whose value is too low on average."""
    return LevelValue(group=level, estimate=value.with_caveat(f"the lowest of {levels} levels" if levels > 1 else None))


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

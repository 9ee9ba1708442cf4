"""The fixed table of subgroups: how a tool does by sex, age, stage, site, scanner, specimen and what else it names.

No row is left out. One with fewer than 20 positives or 20 negatives (20 events, 40 patients) says so in the place of
its metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats

from mil.endpoints.question import Question
from mil.endpoints.regression import Regression
from mil.report.as_dict import as_dict
from mil.report.comparison import holm
from mil.report.evaluation import Evaluation
from mil.report.schema import Estimate, Model, Number, Section
from mil.report.sections.calls import Called, called
from mil.report.sections.gaps import equalised_odds, proportion_gap
from mil.report.sections.levels import levels, order
from mil.report.sections.subgroup_metrics import (
    LEAST,
    Measure,
    heterogeneity,
    main_measure,
    observed_expected,
    question_measure,
)
from mil.stats.bootstrap_intervals import Sampled
from mil.stats.estimate import LEVEL

Members = list[str]
GAP = "percentile, of the best level minus the worst, both chosen by the data: too large on average"


class MeanCalibration(Model):
    """Whether predictions are right on average: observed over expected positives, or true minus predicted value."""

    observed: Number = None
    """positives"""
    expected: Number = None
    """sum of their probabilities"""
    estimate: Estimate


class SubgroupResult(Model):
    """What is measured in one subgroup, about the endpoint or about one of its questions."""

    metric: str
    value: Estimate
    calibration: MeanCalibration | None = None
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
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


class Gap(Model):
    """The difference between the best and the worst level."""

    variable: str | None = None
    best: str
    worst: str
    estimate: Estimate


class Heterogeneity(Model):
    """The test that the metric is the same at all levels."""

    test: str
    statistic: float
    freedom: int = Field(title="Degrees of freedom")
    p: float
    p_holm: float | None = Field(default=None, title="p, Holm")


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


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """Rows of the table and what they come to; none where nothing is known of the patients beside the slides."""
    found, absent = levels(evaluation)
    if not found:
        return None
    table = _Table(evaluation)
    rows = [table.row("all", "all", list(evaluation.reported.index))]
    summaries = []
    for name, kinds in found.items():
        own = {level: list(kinds.index[kinds == level]) for level in order(kinds)}
        rows += [table.row(name, level, members) for level, members in own.items()]
        summaries.append(table.summary(name, list(own)))
    _adjust(summaries)
    return {
        "metric": evaluation.endpoint.metric,
        "least": LEAST,
        "rows": rows,
        "absent": absent,
        "variables": summaries,
        "worst": _extreme(summaries, "worst", smallest=True),
        "largest_gap": _extreme(summaries, "gap"),
        "largest_sensitivity_gap": _extreme(summaries, "sensitivity_gap"),
        "largest_specificity_gap": _extreme(summaries, "specificity_gap"),
        "equalised_odds_difference": _extreme(summaries, "equalised_odds"),
    }


class _Table:
    """Remembers what was drawn for each row, so that its summaries draw nothing anew."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.calls = {one.name: one for one in called(evaluation)}
        asked = evaluation.questions
        self.main = main_measure(evaluation)
        self.several = [question_measure(evaluation, one) for one in asked] if len(asked) > 1 else []
        self.asked: Mapping[str, Question] = {one.name: one for one in asked}
        self.drawn: dict[tuple[str, str, str], Sampled] = {}
        self.shown: dict[tuple[str, str, str], dict[str, Any]] = {}

    def row(self, variable: str, level: str, members: Members) -> dict[str, Any]:
        """Everything of one level."""
        evaluation = self.evaluation
        own = evaluation.reported.loc[members]
        head = {"variable": variable, "level": level, "n": len(own)}
        head["counts"] = evaluation.endpoint.counts(evaluation.endpoint.encode(own))
        alone = next(iter(self.asked)) if len(self.asked) == 1 else None
        row = head | self._block(variable, level, members, self.main, alone)
        names = list(self.asked) if self.several else []
        row["questions"] = [
            {"name": name} | self._block(variable, level, members, measure, name)
            for name, measure in zip(names, self.several, strict=True)
        ]
        return row

    def _block(
        self, variable: str, level: str, members: Members, measure: Measure, question: str | None
    ) -> dict[str, Any]:
        # a seed of its own: levels that share their draws would seem to differ less than they may
        seed = self.evaluation.seed + (0 if variable == "all" else crc32(f"{variable}={level}".encode()))
        drawn, value = measure.of(members, self.evaluation.resamples, seed)
        own = self.evaluation.reported.loc[members]
        counted = {key: value[key] for key in ("positives", "negatives", "events") if key in value}
        block = counted | {"metric": measure.name, "value": value | {"n": len(own)}}
        block["calibration"] = _calibration(self.evaluation, own, self.asked.get(question or ""))
        block |= self._decided(question, own)
        if drawn is not None:
            self.drawn[variable, level, question or ""] = drawn
        self.shown[variable, level, question or ""] = block
        return block

    def _decided(self, question: str | None, own: pd.DataFrame) -> dict[str, Any]:
        """What the frozen decision says of these patients."""
        nothing: dict[str, Any] = {"sensitivity": None, "specificity": None, "undecided": None, "calls": None}
        decision = self.calls.get(question or "") or (self._only() if question is None else None)
        if decision is None:
            return nothing
        return nothing | decision.counted(own.index)

    def _only(self) -> Called | None:
        """The decision about the whole endpoint, where there is one: groups of risk, the likeliest class."""
        return next(iter(self.calls.values())) if len(self.calls) == 1 else None

    def summary(self, variable: str, names: Sequence[str]) -> dict[str, Any]:
        """Worst level, largest gaps and whether the levels differ, over the levels that can be estimated."""
        alone = next(iter(self.asked)) if len(self.asked) == 1 else None
        found = {"variable": variable, "levels": len(names)} | self._summed(variable, names, alone)
        several = list(self.asked) if self.several else []
        found["questions"] = [{"name": one} | self._summed(variable, names, one) for one in several]
        return found

    def _summed(self, variable: str, names: Sequence[str], question: str | None) -> dict[str, Any]:
        keys = [(variable, name, question or "") for name in names]
        drawn = {key[1]: self.drawn[key] for key in keys if key in self.drawn and np.isfinite(self.drawn[key].value)}
        rows = {key[1]: self.shown[key] for key in keys}
        seed = self.evaluation.seed + crc32(variable.encode())
        return {
            "worst": _worst(drawn, rows),
            "gap": _gap(drawn),
            "heterogeneity": heterogeneity(list(drawn.values())),
            "sensitivity_gap": proportion_gap(rows, "sensitivity", LEAST),
            "specificity_gap": proportion_gap(rows, "specificity", LEAST),
            "equalised_odds": equalised_odds(rows, LEAST, self.evaluation.resamples, seed),
        }


def _adjust(summaries: Sequence[dict[str, Any]]) -> None:
    """Holm's p beside that of each variable, for as many variables as are tested."""
    tests = [one["heterogeneity"] for one in summaries if one["heterogeneity"]]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p


def _worst(drawn: Mapping[str, Sampled], rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    if not drawn:
        return None
    level = min(drawn, key=lambda name: drawn[name].value)
    return {"group": level, **rows[level]["value"]}


def _gap(drawn: Mapping[str, Sampled]) -> dict[str, Any] | None:
    if len(drawn) < 2:
        return None
    best, worst = (choose(drawn, key=lambda name: drawn[name].value) for choose in (max, min))
    return {"best": best, "worst": worst} | as_dict(drawn[best].minus(drawn[worst]).interval(GAP))


def _extreme(summaries: Sequence[Mapping[str, Any]], key: str, smallest: bool = False) -> dict[str, Any] | None:
    """The variable where this number is largest, or smallest."""
    found = [{"variable": one["variable"]} | one[key] for one in summaries if one[key]]
    known = [one for one in found if one["value"] is not None]
    known.sort(key=lambda one: float(one["value"]), reverse=not smallest)
    return known[0] if known else None


def _calibration(evaluation: Evaluation, own: pd.DataFrame, question: Question | None) -> dict[str, Any] | None:
    """Observed over expected of a question; of a value in units how far the truth lies above what was predicted."""
    if question is not None:
        truth, chance = question.truth(own), question.probability(own)
        known = ~np.isnan(truth)
        return observed_expected(float(truth[known].sum()), float(chance[known].sum()), int(known.sum()))
    if isinstance(evaluation.endpoint, Regression) and len(own) > 1:
        above = evaluation.endpoint.encode(own).double().numpy() - own["value"].to_numpy(np.float64)
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(above) - 1) * above.std(ddof=1) / len(above) ** 0.5)
        mean = float(above.mean())
        return {
            "value": mean,
            "low": mean - half,
            "high": mean + half,
            "level": LEVEL,
            "method": "Student's t, true minus predicted",
            "n": len(above),
        }
    return None

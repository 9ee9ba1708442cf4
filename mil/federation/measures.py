"""Counts of scores on declared grids, from which cuts, calibrations and limits of all hospitals are fitted.

A score is rounded down to a cell of a grid that is the same everywhere. `score >= cut` for a cut at the edge of a cell
is then the same before and after rounding, so that rates on the grid are exact and only the choice of cuts is coarser.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.question import Question
from mil.fitted.decision import total
from mil.fitted.decision_rules import Plan, group_plan, plans
from mil.fitted.specification import Specification

Floats = NDArray[np.float64]
CELLS, REACH = 8000, 20.0
_TINY = 1e-3


class ScoreGrid(BaseModel):
    """The grid on which scores are counted, as a manifest declares it.

    Attributes:
        cells: Of each scale.
        reach: Log odds, or inverse hyperbolic sine of the score divided by `tiny`, at either end.
        tiny: Scores far below it are on an even grid, those far above it on a logarithmic one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cells: int = CELLS
    reach: float = REACH
    tiny: float = _TINY


DECLARED = ScoreGrid()
"""The grid of this version; manifests of 0.2.0 and before do not declare it, and have it."""


@dataclass(frozen=True)
class Grid:
    """Cells of a scale: `logit` for probabilities, `share` for numbers from 0 to 1, `asinh` for any number."""

    scale: str

    def cell(self, scores: Floats) -> NDArray[np.int64]:
        """Return the cell of each score, rounded down, `(p,)`."""
        position = np.searchsorted(self.edges, np.asarray(scores, np.float64), side="right") - 1
        return np.clip(position, 0, CELLS - 1).astype(np.int64)

    @property
    def edges(self) -> Floats:
        """The lower edges of the cells."""
        steps = np.linspace(0, 1, CELLS, endpoint=False)
        if self.scale == "share":
            return steps
        if self.scale == "logit":
            logits = REACH * (2 * steps - 1)
            edges = 1 / (1 + np.exp(-logits))
        else:
            edges = _TINY * np.sinh(REACH * (2 * steps - 1))
        edges[0] = 0.0 if self.scale == "logit" else -math.inf
        return np.asarray(edges)

    def lower(self, cells: NDArray[np.int64]) -> Floats:
        """Return the lower edge of each cell; of the lowest of `asinh`, which has none, its upper edge."""
        edges = self.edges
        edges[0] = edges[0] if math.isfinite(edges[0]) else edges[1]
        return edges[cells]

    def upper(self, cells: NDArray[np.int64]) -> Floats:
        """Return the upper edge of each cell."""
        edges = self.edges
        return np.append(edges[1:], 1.0 if self.scale != "asinh" else 2 * edges[-1])[cells]


@dataclass(frozen=True, eq=False)
class Measure:
    """One score with a yes-or-no answer that is counted."""

    name: str
    role: str
    """whose scores are counted: train or select"""
    grid: Grid
    score: Callable[[pd.DataFrame], Floats]
    answer: Callable[[pd.DataFrame], Floats]
    """1, 0, or NaN for patients who are left out"""

    def counts(self, table: pd.DataFrame) -> Floats:
        """Return the number of patients by answer and cell, `(2, cells)`."""
        counts = np.zeros((2, CELLS))
        if len(table):
            answer, score = self.answer(table), self.score(table)
            counted = ~np.isnan(answer) & ~np.isnan(score)
            np.add.at(counts, (answer[counted].astype(np.int64), self.grid.cell(score[counted])), 1)
        return counts


@dataclass(frozen=True, eq=False)
class PlanMeasure:
    """A decision before it is fitted, with what has to be counted for it; None where the tool states its cuts."""

    prefix: str
    plan: Plan
    measure: Measure | None
    requested: bool
    """by the tool; else risk groups for the report"""


def plan_measures(tool: Specification, endpoint: Endpoint) -> list[PlanMeasure]:
    """Return the decisions of a tool, in the order in which they are fitted."""
    measures = []
    for prefix, decision, single in tool.decisions(endpoint):
        requested = plans(decision, single)
        groups = None if requested else group_plan(None, single)
        measures += [
            PlanMeasure(prefix, plan, _of_plan(prefix, plan, single), bool(requested))
            for plan in requested or ([groups] if groups is not None else [])
        ]
    return measures


def question_measures(endpoint: Endpoint) -> list[Measure]:
    """Return what has to be counted to calibrate yes-or-no questions that do not exclude each other."""
    if len(endpoint.class_columns) > 1 or endpoint.parts():
        return []
    return [_of_question(f"question {question.name}", question, endpoint) for question in endpoint.questions()]


def _of_plan(prefix: str, plan: Plan, endpoint: Endpoint) -> Measure | None:
    if plan.stated:
        return None
    if plan.question is not None:
        return _of_question(f"decision {prefix}{plan.name}", plan.question, endpoint)

    def score(table: pd.DataFrame) -> Floats:
        return total(table[endpoint.has_target(table)], plan.columns)

    def had_event(table: pd.DataFrame) -> Floats:
        with_target = table[endpoint.has_target(table)]
        if endpoint.survival is None:
            return np.zeros(len(with_target))
        codes = endpoint.survival.event_times(endpoint.encode(with_target))[:, 1]
        return np.asarray((codes == 1).double().numpy())

    return Measure(f"decision {prefix}{plan.name}", "train", Grid("asinh"), score, had_event)


def _of_question(name: str, question: Question, endpoint: Endpoint) -> Measure:
    def score(table: pd.DataFrame) -> Floats:
        return question.probability(table[endpoint.has_target(table)])

    def answer(table: pd.DataFrame) -> Floats:
        return question.truth(table[endpoint.has_target(table)])

    return Measure(name, "select", Grid("logit"), score, answer)


def patients_of(plan: Plan, measure: Measure, counts: Floats) -> pd.DataFrame:
    """Return a table of patients with these counts `(2, cells)`, their scores at the lower edges of the cells."""
    return table_of(plan.endpoint, plan.question, plan.columns, measure.grid, counts)


def table_of(
    endpoint: Endpoint, question: Question | None, columns: tuple[str, ...], grid: Grid, counts: Floats
) -> pd.DataFrame:
    """Return a table of patients whose score, the sum of `columns`, and answer have these counts."""
    answer, cell = np.nonzero(counts)
    repeats = counts[answer, cell].round().astype(np.int64)
    answers, scores = np.repeat(answer, repeats), np.repeat(grid.lower(cell), repeats)
    words = _words(endpoint, question)
    targets = {name: [words[int(at)][name] for at in answers] for name in endpoint.columns}
    index = pd.Index([f"cell {number:06d}" for number in range(len(answers))])
    table = pd.DataFrame(targets, index=index, dtype=object)
    for name in sorted(endpoint.prediction_columns):
        table[name] = np.where(name in columns, 0.0, np.nan)
    for name in columns[1:]:
        table[name] = 0.0
    return table.assign(**{columns[0]: scores})


def _words(endpoint: Endpoint, question: Question | None) -> Mapping[int, Mapping[str, object]]:
    """Return the cells of a clinical table for which the answer is no (0) and yes (1)."""
    if question is None:
        return {answer: _unasked(endpoint, answer) for answer in (0, 1)}
    rows = dict[int, dict[str, object]]()
    declared = endpoint.declared_words
    blank: dict[str, object] = dict.fromkeys(endpoint.columns, "")
    for column in endpoint.columns:
        for word in declared.get(column, ()):
            row = blank | {column: word}
            truth = float(question.truth(pd.DataFrame([row]))[0])
            if not math.isnan(truth):
                rows.setdefault(int(truth), row)
    return rows


def _unasked(endpoint: Endpoint, answer: int) -> dict[str, object]:
    """Return the cells of a patient with (1) or without (0) an event; of a number any."""
    view = endpoint.survival
    if view is None:
        return {name: str(answer) for name in endpoint.columns}
    for word in endpoint.declared_words[view.event_column]:
        row = dict.fromkeys(endpoint.columns, "1") | {view.event_column: word}
        if int(endpoint.encode(pd.DataFrame([row]))[0, 1]) == answer:
            return dict(row)
    raise ValueError(f"endpoint {view.event_column}: no word for {answer}")

"""What the tool's frozen decisions did to the reported patients."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.fitted.decision_rules import Plan, plans
from mil.report.evaluation import Evaluation
from mil.report.page.outline import block_of
from mil.report.schema import Block, Confusion, Drawing, Report, Section
from mil.report.sections.applied_cuts import call_patients
from mil.report.sections.operating_point import DecisionFacts, GroupCounts, OperatingPoint, OutputMeaning
from mil.report.sections.output_table import output_table
from mil.report.sections.yes_no import Counts, yes_no
from mil.stats.proportions import proportion


class OperatingPoints(Section):
    """What the tool's frozen decisions did to the reported patients."""

    key: ClassVar[str] = "operating_points"
    title: ClassVar[str] = "Operating points"
    explanation: ClassVar[str] = "What the frozen decisions did; their cuts were set without these patients."
    not_applicable: ClassVar[str] = "The tool states no decision rule."
    position: ClassVar[int] = 20
    captions: ClassVar[Mapping[str, str]] = {
        "confusion": "Confusion matrix: patients of each true class by what was called",
    }

    decisions: tuple[OperatingPoint, ...]

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return a decision for each question or score that the tool decides; None without a rule.

        Raises:
            ConfigError: a rule that does not exist, or a prevalence that is not between 0 and 1.
        """
        requested = plans(evaluation.tool.decision_of_single(), evaluation.endpoint)
        return cls(decisions=tuple(_operating(evaluation, plan) for plan in requested)) if requested else None

    @property
    def confusions(self) -> list[tuple[str, Confusion]]:
        """Name and confusion matrix of each decision about classes."""
        return [(point.name, point.confusion) for point in self.decisions if point.confusion is not None]

    def block(self) -> Block:
        """Return a table of each decision's outputs and what they mean, then everything else by its type."""
        unnamed = tuple(point.model_copy(update={"outputs": ()}) for point in self.decisions)
        block = block_of(self.title, self.model_copy(update={"decisions": unnamed}))
        tables = [table for point in self.decisions if (table := output_table(point, len(self.decisions) > 1))]
        return block.model_copy(update={"tables": (*tables, *block.tables)})

    def drawings(self, evaluation: Evaluation, report: Report) -> Iterator[Drawing]:
        """Yield the confusion matrices of the decisions."""
        from mil.report.figures.confusion import confusion
        from mil.report.figures.style import short

        matrices = [(f"{short(name, 16)}: calls", matrix) for name, matrix in self.confusions]
        if len(matrices) == 1:
            matrices = [("Calls at the frozen decision", matrices[0][1])]
        yield Drawing("confusion", confusion(matrices))


def _operating(evaluation: Evaluation, plan: Plan) -> OperatingPoint:
    endpoint = evaluation.endpoint
    fitted, rows = call_patients(evaluation, plan)
    facts = DecisionFacts(
        name=plan.name,
        rule=plan.rule.terms(),
        outputs=tuple(OutputMeaning(name=output.name, meaning=output.meaning) for output in plan.outputs),
        role=plan.rule.role,
        calls=plan.calls,
        cuts=tuple(each.cuts for each in fitted),
        fitted=fitted,
        undecided_patients=len(evaluation.reported) - len(rows),
    )
    if plan.question is not None:
        truth = plan.question.truth(rows)
        answered = ~np.isnan(truth)
        counts = Counts.of(plan, rows["call"].to_numpy()[answered], truth[answered] == 1)
        return yes_no(facts, counts, evaluation.tool.prevalences)
    if endpoint.classes:
        return _likeliest(facts, plan, rows, endpoint)
    counts_of = {name: endpoint.counts(endpoint.encode(rows[rows["call"] == name])) for name in plan.calls}
    groups = tuple(GroupCounts(name=name, counts=counts) for name, counts in counts_of.items())
    return OperatingPoint(**dict(facts), n=len(rows), groups=groups)


def _likeliest(facts: DecisionFacts, plan: Plan, rows: pd.DataFrame, endpoint: Endpoint) -> OperatingPoint:
    """Return how often the likeliest class is right among patients with a call, over all and within each class."""
    call, label = rows["call"].to_numpy(), endpoint.labels(rows)
    truth = np.array(endpoint.classes, dtype=object)[label]
    decided = call != plan.between
    right = (call == np.array(plan.calls, dtype=object)[label]) & decided
    matrix = tuple(
        tuple(int(((truth == name) & (call == called)).sum()) for called in facts.calls) for name in endpoint.classes
    )
    return OperatingPoint(
        **dict(facts),
        n=len(call),
        primary_interval="Wilson",
        confusion=Confusion(classes=endpoint.classes, calls=facts.calls, rows=matrix),
        accuracy=proportion(int(right.sum()), int(decided.sum())),
        recall={
            name: proportion(int(right[truth == name].sum()), int(decided[truth == name].sum()))
            for name in endpoint.classes
        },
        abstained=proportion(int((~decided).sum()), len(call)),
        coverage=proportion(int(decided.sum()), len(call)),
    )

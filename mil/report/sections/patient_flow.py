"""How many patients came from the clinical table to this report, and why others were left out."""

from collections.abc import Iterator
from typing import ClassVar, Self

from mil.report.evaluation import Evaluation
from mil.report.predictions import fold_name
from mil.report.schema import Block, Model, Section, Table
from mil.splits.roles import ROLES
from mil.study.flow import FlowStep


class FoldRoles(Model):
    """Patients of each role in one fold."""

    fold: int | str
    train: int = 0
    select: int = 0
    report: int = 0


class PatientFlow(Section):
    """The flow of patients from the clinical table to the report."""

    key: ClassVar[str] = "patient_flow"
    title: ClassVar[str] = "Flow of patients"
    explanation: ClassVar[str] = "From the clinical table to this report: who was left out, and why."
    not_applicable: ClassVar[str] = "The predictions do not come from a cohort that was read here, and have one role."
    position: ClassVar[int] = 4

    steps: tuple[FlowStep, ...] = ()
    """none where the cohort was not read here, or before its flow was recorded"""
    roles: tuple[FoldRoles, ...]
    """by fold"""
    reported: int
    """different patients who are reported"""

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the steps of the study and the roles in each fold; None where there is nothing but reported rows."""
        table = evaluation.table
        if not evaluation.flow and set(table["role"]) <= {"report"}:
            return None
        roles = tuple(
            FoldRoles(fold=fold_name(fold), **{role: int((rows["role"] == role).sum()) for role in ROLES})
            for fold, rows in table.drop_duplicates(["patient", "fold", "role"]).groupby("fold", sort=True)
        )
        return cls(steps=evaluation.flow, roles=roles, reported=len(evaluation.reported))

    def block(self) -> Block:
        """Return the steps and the roles as tables."""
        return Block(heading=self.title, tables=tuple(self.tables()))

    def card_sentences(self) -> Iterator[str]:
        """Yield nothing: the card shows the flow with the data."""
        yield from ()

    def tables(self) -> Iterator[Table]:
        """Yield the table of steps, as far as they are known, and that of roles."""
        if self.steps:
            rows = tuple(
                (
                    step.name,
                    str(step.patients),
                    str(step.slides),
                    "" if step.reason is None else f"{step.patients_left_out} patients, {step.slides_left_out} slides",
                    step.reason or "",
                )
                for step in self.steps
            )
            yield Table(columns=("Step", "Patients", "Slides", "Left out", "Reason"), rows=rows)
        folds = tuple((str(each.fold), *(str(getattr(each, role)) for role in ROLES)) for each in self.roles)
        note = f"{self.reported} different patients are reported."
        yield Table(columns=("Fold", "Training", "Model selection", "Report"), rows=folds, note=note)

"""The typed report: what report.json, report.html, cards, gates and index are made from.

A section of the report is one module of `mil.report.sections` with one subclass of `Section`. It owns its numbers, its
title and explanation, what is said where it does not apply, its figures and its rows for the card. Sections are found
by listing that package, so that a new one is a new file and nothing else.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self, TypeVar

from matplotlib.figure import Figure
from pydantic import Field, SerializeAsAny, field_validator

from mil.stats.estimate import LEVEL, Bounds, Estimate, Model, Number

if TYPE_CHECKING:
    from mil.report.evaluation import Evaluation

__all__ = [
    "LEVEL",
    "NOT_OURS",
    "NOT_STATED",
    "PAGE_ONLY",
    "About",
    "Block",
    "Bounds",
    "Confusion",
    "Curve",
    "Drawing",
    "Estimate",
    "FittedOn",
    "GateResult",
    "Model",
    "Number",
    "PredictionWarning",
    "Report",
    "Row",
    "Section",
    "Sentence",
    "Table",
    "section_classes",
]

SCHEMA_VERSION: Final = 3
SENTENCE: Final = "sentence"
NOT_STATED: Final = "not stated"
"""Marks a field that says so where it is None, as its absence could be read as no."""
Sentence = Annotated[str, SENTENCE]
"""A full sentence of a model, which the page shows before any table."""
NOT_OURS: Final = "not ours"
"""`About.model` where predictions come from other software."""
PAGE_ONLY: Final = "page only"
"""Marks a field whose estimates the card does not print."""


class Curve(Model):
    """Values over a grid with a pointwise band; the four sequences have the same length."""

    x: tuple[Number, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    level: float = LEVEL
    method: str | None = None


class Table(Model):
    """Rows of text cells under column heads; the first column says what a row is about."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


class Confusion(Model):
    """Patients by true class, a row each, and by what was called, a column each."""

    classes: tuple[str, ...]
    calls: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


class Row(NamedTuple):
    """One estimate as a row of the card."""

    label: str
    estimate: Estimate
    source: str
    """where it stands in report.json, from the section on, such as `questions[0].auroc`"""


class Drawing(NamedTuple):
    """A figure of a section."""

    name: str
    """of its files, without ending; its caption is in `Section.captions`"""
    figure: Figure | None
    """None where there is nothing to show"""


class Block(Model):
    """A heading with sentences and tables under it, and further blocks below."""

    heading: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    blocks: tuple["Block", ...] = ()


class Section(Model):
    """A part of the report with everything that is shown of it."""

    key: ClassVar[str]
    """in `Report.sections`, and of its anchor on the page"""
    title: ClassVar[str]
    explanation: ClassVar[str]
    """one sentence below the title: the question that the section answers"""
    not_applicable: ClassVar[str]
    """what is said where `compute` returns None; empty: nothing"""
    position: ClassVar[int]
    """sections are read in rising order"""
    captions: ClassVar[Mapping[str, str]] = {}
    """of its figures, by name; a figure of two sections belongs to the later one"""

    @classmethod
    def compute(cls, evaluation: "Evaluation") -> Self | None:
        """Return the section, or None where it does not apply to this endpoint or these data."""
        raise NotImplementedError(f"{cls.__name__}.compute")

    def block(self) -> Block:
        """Return what the page shows below the title; by default every field by its type."""
        from mil.report.page.outline import block_of

        return block_of(self.title, self)

    def card_rows(self) -> Iterator[Row]:
        """Yield what the card prints; by default every estimate."""
        from mil.report.page.outline import rows_of

        return rows_of(self)

    def card_sentences(self) -> Iterator[str]:
        """Yield what the card says above these rows; by default every sentence."""
        from mil.report.page.outline import sentences_of

        return sentences_of(self)

    def drawings(self, evaluation: "Evaluation", report: "Report") -> Iterator[Drawing]:
        """Yield the figures of this section of a report; by default none."""
        yield from ()


SectionType = TypeVar("SectionType", bound=Section)


@cache
def _modules() -> None:
    from mil.report import sections

    for module in pkgutil.iter_modules(sections.__path__, f"{sections.__name__}."):
        importlib.import_module(module.name)


def section_classes() -> tuple[type[Section], ...]:
    """Return the sections of a report in a reader's order."""
    _modules()
    classes = list(Section.__subclasses__())
    for cls in classes:
        classes += cls.__subclasses__()
    return tuple(sorted((cls for cls in classes if hasattr(cls, "key")), key=lambda cls: cls.position))


class About(Model):
    """What was predicted, by what, on whom."""

    tool: str | None = None
    title: str | None = None
    question: str | None = None
    specimen: str | None = None
    ground_truth: str | None = None
    intended_use: str | None = None
    out_of_scope: tuple[str, ...] = ()
    simulated: Annotated[bool | None, NOT_STATED] = None
    """None where nobody stated it"""
    model: str | None = None
    encoder: str | None = None
    external: Annotated[bool | None, NOT_STATED] = None
    """whether the patients are of a cohort that the model was not trained on; None where nobody stated it"""
    withheld: int | None = None
    """patients whose result the tool withheld; of external cohorts"""


class FittedOn(Model):
    """Something that was fitted or chosen, and on which patients."""

    fold: int
    what: str
    on: str
    n: int | None = None
    value: float | int | tuple[int, ...] | tuple[float, ...] | None = None


class GateResult(Model):
    """One gate of a release."""

    number: int
    name: str
    holds: bool | None
    """None: it does not apply"""
    sentence: str
    """with the number that it rests on"""


class PredictionWarning(Model):
    """Something about the predictions that is probably a mistake of the table or of its options."""

    code: Literal["inverse", "frequency", "scale"]
    """a score that is turned round, frequencies ten times as high or low, or scores that are not probabilities"""
    about: str
    """the question, metric or column"""
    sentence: Sentence
    """what was seen, and what to check"""


class Report(Model):
    """Everything that was computed from one table of predictions."""

    schema_version: Literal[3] = SCHEMA_VERSION
    about: About = About()
    seed: int = 0
    resamples: int = 0
    folds: int = 0
    patients: dict[str, int] = Field(default_factory=dict)
    """reported patients: `n`, and the positives, classes or events among them"""
    metrics: dict[str, Estimate] = Field(default_factory=dict)
    """of the endpoint; the first ranks models"""
    remarks: tuple[Sentence, ...] | None = None
    """what happened to the run that its numbers do not show, such as inputs or predictions that changed; None: nothing
    is recorded"""
    warnings: tuple[PredictionWarning, ...] = ()
    """what is implausible about the predictions"""
    sections: dict[str, SerializeAsAny[Section]] = Field(default_factory=dict)
    """by key; a section that does not apply is absent"""
    fitted: tuple[FittedOn, ...] = ()
    parts: dict[str, "Report"] = Field(default_factory=dict)
    """of a tool of several endpoints, the report of each"""
    run: "Report | None" = None
    """in the report of one fold: the report of all folds"""
    looks: int | None = None
    """how often the report patients of the run were evaluated"""
    gates: tuple[GateResult, ...] = ()
    """of a release"""

    @field_validator("sections", mode="before")
    @classmethod
    def _typed(cls, sections: Any) -> Any:
        if not isinstance(sections, Mapping):
            return sections
        classes = {section.key: section for section in section_classes()}
        if unknown := [key for key in sections if key not in classes]:
            raise ValueError(f"section {unknown[0]!r}, expected one of {', '.join(classes)}")
        return {
            key: value if isinstance(value, Section) else classes[key].model_validate(value)
            for key, value in sections.items()
        }

    def all_warnings(self) -> list[str]:
        """Return the warnings of the report and of its parts, in sentences."""
        of_parts = [f"{name}: {sentence}" for name, part in self.parts.items() for sentence in part.all_warnings()]
        return [*(self.remarks or ()), *(warning.sentence for warning in self.warnings), *of_parts]

    def ordered_sections(self) -> list[Section]:
        """Return the sections in a reader's order."""
        return sorted(self.sections.values(), key=lambda section: section.position)

    def section(self, kind: type[SectionType]) -> SectionType | None:
        """Return the section of this class, or None where it does not apply."""
        section = self.sections.get(kind.key)
        return section if isinstance(section, kind) else None

    def __getattr__(self, name: str) -> Any:
        """Return a section by its key, as in `report.discrimination`; None where it does not apply."""
        if name.startswith("_") or name not in {section.key for section in section_classes()}:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.sections.get(name)

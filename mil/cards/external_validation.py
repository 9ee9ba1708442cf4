"""External validations of a release: what they are, and how a card shows them beside the development results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mil.cards.content import Subsection
from mil.report.page.words import named
from mil.report.schema import Estimate, Model, Report, Table
from mil.report.sections.calibration import Calibration
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.time_to_event import TimeToEvent

if TYPE_CHECKING:
    from mil.cards.card_facts import Facts

FOLDER = "external"
"""Of a release; `external/<key>/` holds `report.json` and `cohort.json` of one validation."""
NONE = "no external validation"
_NOT_COMPARED = "not compared: the release holds no list of the patients it was developed on"
_SECTIONS = (OperatingPoints, Calibration, TimeToEvent)
_CALIBRATION = ("slope", "observed_expected")


class ExternalCohort(Model):
    """The cohort of an external validation, as its site described it, and what was counted.

    No patient can be told from it.
    """

    key: str
    """folder name"""
    name: str
    centre: str | None = None
    dates: str | None = None
    """of diagnosis or sampling, as stated"""
    simulated: bool = False
    patients: dict[str, int]
    """`n`, and the positives, classes or events among them"""
    withheld: int | None = None
    """patients whose result the tool withheld; they are not among `n`"""
    overlap: int | None = None
    """patients of the development cohort among them, always 0; None where it could not be determined"""
    sha256: str
    """digest of patients and targets"""
    weights_sha256: str
    """the weights that were evaluated"""
    report_sha256: str


@dataclass(frozen=True, eq=False)
class ExternalValidation:
    """A release evaluated on a cohort that it was not developed on.

    Attributes:
        cohort: The cohort.
        report: The report on it; nothing was fitted there.
    """

    cohort: ExternalCohort
    report: Report

    @property
    def source(self) -> str:
        """File of the report, as the card names sources."""
        return f"{FOLDER}/{self.cohort.key}/report.json: "

    @property
    def title(self) -> str:
        """Name and centre, and whether it is simulated."""
        place = f", {self.cohort.centre}" if self.cohort.centre else ""
        return f"{self.cohort.name}{place}{' (simulated)' if self.cohort.simulated else ''}"

    def counts_for(self, simulated: bool) -> bool:
        """Return whether this is a validation of a tool of simulated or of real patients."""
        return simulated or not self.cohort.simulated


def summary(facts: "Facts") -> str:
    """Return the external validations in one sentence, or that there is none."""
    if not facts.external:
        return NONE
    sentences = []
    for validation in facts.external:
        metric = facts.metric
        estimate = None if metric is None else validation.report.metrics.get(metric)
        result = "" if metric is None or estimate is None else f": {named(metric)} {estimate.described}"
        sentences.append(f"{validation.title}{result}")
    return "; ".join(sentences)


def side_by_side(facts: "Facts") -> list[Subsection]:
    """Return development and external results in one table, and the cohorts in another; empty without any."""
    if not facts.external:
        return []
    note = (
        "The same weights, calibration and cuts; nothing was fitted to an external cohort. Development: "
        f"{facts.cohort}. Every number has its 95% interval."
    )
    return [Subsection("Development and external validation", [note], [_results(facts), _cohorts(facts.external)])]


def _results(facts: "Facts") -> Table:
    development = dict(_estimates(facts.all_folds))
    columns = [dict(_estimates(validation.report)) for validation in facts.external]
    rows = []
    for (place, label), estimate in development.items():
        cells = [_cell(column.get((place, label))) for column in columns]
        sources = "; ".join(f"{source}{place}" for source in _sources(facts))
        rows.append((label, _cell(estimate), *cells, sources))
    heads = ("Measure", "Development", *(validation.title for validation in facts.external), "Source")
    return Table(columns=heads, rows=tuple(rows))


def _sources(facts: "Facts") -> Iterator[str]:
    yield f"{facts.source}{'' if facts.source.endswith(' ') else '.'}"
    for validation in facts.external:
        yield validation.source


def _estimates(report: Report) -> Iterator[tuple[tuple[str, str], Estimate]]:
    """Yield the metrics, what the decisions do, and slopes and ratios of calibration, by place and label."""
    for name, estimate in report.metrics.items():
        yield (f"metrics.{name}", named(name)), estimate
    for kind in _SECTIONS:
        section = report.section(kind)
        for row in () if section is None else section.card_rows():
            if kind is OperatingPoints or any(word in row.source for word in _CALIBRATION):
                yield (f"sections.{kind.key}.{row.source}", row.label), row.estimate


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate} ({estimate.population})" if estimate.population else str(estimate)


def _cohorts(validations: Sequence[ExternalValidation]) -> Table:
    rows = [
        (
            validation.title,
            validation.cohort.dates or "not stated",
            ", ".join(f"{name} {count}" for name, count in validation.cohort.patients.items()),
            "not counted" if validation.cohort.withheld is None else str(validation.cohort.withheld),
            _NOT_COMPARED if validation.cohort.overlap is None else str(validation.cohort.overlap),
            f"{FOLDER}/{validation.cohort.key}/cohort.json",
        )
        for validation in validations
    ]
    heads = ("Cohort", "Dates", "Patients", "Withheld", "Shared with development", "Source")
    return Table(columns=heads, rows=tuple(rows))

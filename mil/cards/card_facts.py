"""What every block of a card is written from: the manifest, the report, and the tool's yaml within the manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mil.cards.content import Absent, Field, not_applicable, not_examined, not_stated
from mil.cards.external_validation import ExternalValidation
from mil.cards.statements import CardStatements
from mil.cards.tier import LOWEST, tier
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest
from mil.report.page.words import below, named
from mil.report.schema import Estimate, Report, Section
from mil.report.sections.comparator import comparators, verdict
from mil.report.sections.oracle import Oracle
from mil.study.tool import Tool

SIMULATED = "SIMULATED DATA, NO CLINICAL MEANING, RESEARCH USE ONLY"
SIMULATED_FR = "DONNÉES SIMULÉES, SANS SIGNIFICATION CLINIQUE, RECHERCHE UNIQUEMENT"
"""The banner before every French text."""
RESEARCH = "RESEARCH USE ONLY, NOT A MEDICAL DEVICE"
RESEARCH_FR = "POUR LA RECHERCHE UNIQUEMENT, N'EST PAS UN DISPOSITIF MÉDICAL"
NOBODY_REPORTED = "no patient was held back to report on"
MANIFEST, REPORT = "manifest.json: ", "report.json: "


@dataclass(frozen=True, eq=False)
class Facts:
    """What a card is written from.

    Attributes:
        manifest: Manifest of the checkpoint.
        report: Report of the checkpoint; for one of several folds, the report of all folds is its `run`.
        endpoint: What is predicted; None for short texts that do not need it.
        figures: Names of the files in `figures/`.
        changelog: What changed in each version; empty in a run.
        external: Validations on other cohorts; none in a run.
        statements: What people state in card.yaml.
    """

    manifest: Manifest
    report: Report
    endpoint: Endpoint | None = None
    figures: Sequence[str] = ()
    changelog: str = field(default="", repr=False)
    external: Sequence[ExternalValidation] = ()
    statements: CardStatements = field(default_factory=CardStatements)

    @property
    def tool(self) -> Tool:
        """The tool's yaml."""
        return self.manifest.tool

    @property
    def simulated(self) -> bool:
        """Whether the cohort is simulated."""
        return self.manifest.data.simulated

    @property
    def banner(self) -> str:
        """The warning above everything else."""
        return SIMULATED if self.simulated else RESEARCH

    @property
    def banner_fr(self) -> str:
        """The warning in French."""
        return SIMULATED_FR if self.simulated else RESEARCH_FR

    @property
    def in_french(self) -> str:
        """The tool in one French line, after the warning; empty if the tool has none."""
        summary = self.tool.summary.fr or ""
        return f"{self.banner_fr}. {summary}" if summary else ""

    @property
    def all_folds(self) -> Report:
        """The report of all folds of the run."""
        return self.report.run or self.report

    @property
    def source(self) -> str:
        """File and key of that report."""
        return f"{REPORT}run" if self.report.run else REPORT

    @property
    def metric(self) -> str | None:
        """The metric that ranks models; None if no patient was reported."""
        return next(iter(self.all_folds.metrics), None)

    @property
    def cohort(self) -> str:
        """Which patients the numbers are computed from."""
        cohort = f"the simulated cohort of {self.tool.name}" if self.simulated else "the training site's cohort"
        folds = self.all_folds.folds
        return f"patients of {cohort} held back from training" + (f", mean of {folds} folds" if folds > 1 else "")

    @property
    def links(self) -> str:
        """Links to the other files of the folder; only a release has tables, those of a run lie above the card."""
        links = [f"[{words}]({name})" for name, words in self.linked.items()]
        note = f" {self.where_predictions_are}" if self.where_predictions_are else ""
        return f"In this folder: {', '.join(links)}.{note}"

    @property
    def linked(self) -> Mapping[str, str]:
        """Other files of the folder, in words."""
        links = {"report.html": "the report as a page", "report.json": "its numbers"}
        if self.simulated and self.changelog:
            links |= {"predictions.csv": "the predictions", "patients.csv": "the patients"}
        return links | {"manifest.json": "what was trained and fitted", "model_card.html": "this card as a page"}

    @property
    def where_predictions_are(self) -> str:
        """Where the predictions of real patients are."""
        return "" if self.simulated else "The predictions stay at the training site."

    def text(self, key: str) -> str:
        """Return what the tool states under this key as a sentence."""
        return as_prose(getattr(self.tool, key)) or not_stated()

    @property
    def origin(self) -> str:
        """Organ and specimen, as far as they are stated."""
        stated = [as_prose(text) for text in (self.tool.organ, self.tool.specimen) if text]
        return " · ".join(stated) or "organ and specimen not stated"

    def lines(self, key: str) -> list[str]:
        """Return what the tool states under this key as a list of lines."""
        stated = getattr(self.tool, key) or ()
        return [as_prose(line) for line in ([stated] if isinstance(stated, str) else stated)]

    def lines_or_gap(self, key: str) -> str | list[str]:
        """Return the lines, or that there are none."""
        return self.lines(key) or not_stated()

    def stated(self, key: str, simulated: str | None = None) -> str:
        """Return what people state in card.yaml under this key.

        Args:
            key: A field of `CardStatements`.
            simulated: Why the item cannot exist for simulated patients; None if it can.
        """
        stated = as_prose(getattr(self.statements, key))
        if stated or not (self.simulated and simulated):
            return stated or not_stated()
        return not_applicable(simulated)

    @property
    def summaries(self) -> Sequence[Field]:
        """What the tool does in one line, in two languages, each below the warning in its language."""
        summary = self.tool.summary
        english = summary.en or self.text("question")
        fields = [Field("In short", f"{self.banner}. {english}")]
        if self.in_french:
            fields.append(Field("En bref", self.in_french))
        return fields

    def choose(self, simulated: str, real: str) -> str:
        """Return the text for simulated or for real patients."""
        return simulated if self.simulated else real

    def main(self) -> Field:
        """Return the main result."""
        if self.metric is None:
            return Field("Main result", not_examined(NOBODY_REPORTED))
        text = f"{named(self.metric)} {self.all_folds.metrics[self.metric].described}; {self.cohort}"
        return Field("Main result", text, below(self.source, "metrics", self.metric))

    def oracle(self) -> Field:
        """Return the result of a perfect reader of the same tiles."""
        name, section = "Best possible (oracle)", self.all_folds.section(Oracle)
        if self.metric is None or section is None:
            return Field(name, _no_oracle(self.simulated))
        best = section.metrics[self.metric]
        text = f"{named(self.metric)} {best.described}; a reader who knows which tiles count"
        shortfall = _distance_to_oracle(self.all_folds.metrics[self.metric], best)
        return Field(name, f"{text}. {shortfall}", below(self.source, "sections", Oracle.key, "metrics", self.metric))

    def verdict(self) -> Field:
        """Return in words whether the model beats simpler models."""
        name = "Against simpler models"
        if self.metric is None:
            return Field(name, not_examined(NOBODY_REPORTED))
        sources = [
            below(self.source, "sections", section.key, "difference", self.metric)
            for section in comparators(self.all_folds)
        ]
        patients = f" Of {self.all_folds.metrics[self.metric].population}." if sources else ""
        return Field(name, verdict(self.all_folds) + patients, "; ".join(sources))

    def hub(self) -> str | None:
        """Return the encoder's id on a model hub, if it is known."""
        return next((name for name in self.manifest.encoder.aliases if "/" in name), None)

    @cached_property
    def tier(self) -> tuple[int | None, str]:
        """The tier of this release's evidence, and why it is not the tier that the question could reach."""
        return tier(self.manifest, self.all_folds, self.metric)

    def evidence(self) -> str:
        """Return class and tier of the evidence, by our own mapping."""
        evidence = self.tool.evidence
        if not evidence.kind:
            return not_stated()
        reached, reason = self.tier
        text = f"ESMO EBAI class {evidence.kind}, tier {'not stated' if reached is None else reached}"
        if reason:
            text += f" of {LOWEST}, the lowest, as {reason}; published work could support tier {evidence.tier}"
        note = "class and tier are our own mapping"
        if self.simulated:
            note += "; weights made on simulated slides are no evidence"
        return f"{text} ({note})"


def missing(section: type[Section]) -> Absent:
    """Return why a report does not have a section."""
    reason = section.not_applicable
    return not_applicable(reason[:1].lower() + reason[1:].rstrip("."))


def _no_oracle(simulated: bool) -> Absent:
    if simulated:
        return not_examined("this report has none")
    return not_applicable("it exists for simulated cohorts alone")


def _distance_to_oracle(metric: Estimate, best: Estimate) -> str:
    """Say how far a model is from the best possible value; the difference has no interval."""
    if metric.value is None or best.value is None:
        return "How far this model is from it is not estimable"
    gap = best.value - metric.value
    if gap <= 0:
        return "This model reaches it"
    text = f"This model is {gap:.3f} short of it"
    if metric.high is None or best.low is None:
        return text
    return f"{text}; their intervals {'overlap' if metric.high >= best.low else 'do not overlap'}"


def component(node: Mapping[str, object] | None) -> str:
    """Return a class and its options on one line: `torch.optim.Adam, lr 0.0002`."""
    if not node:
        return ""
    options = [f"{key} {as_prose(value)}" for key, value in node.items() if key != "_target_" and value is not None]
    return ", ".join([str(node.get("_target_", "")), *options]).removeprefix(", ")


def short_digest(digest: str) -> str:
    """Return the first digits of a sha256, which suffice to tell files apart; the source has all of it."""
    return f"sha256 {digest[:12]}…"


def as_prose(value: Any) -> str:
    """Return a text, a list or a mapping as one sentence."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {as_prose(item)}" for key, item in value.items() if item not in (None, [], ""))
    if isinstance(value, list | tuple):
        return "; ".join(as_prose(item) for item in value)
    return str(value).strip()

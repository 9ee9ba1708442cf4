"""What every block of a card is written from: the manifest, the report, and the tool's yaml within the manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mil.cards.content import Field, absent
from mil.cards.external_validation import ExternalValidation
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
NOBODY_REPORTED = "no patient was held back to report on"
NOT_STATED = "the tool does not say"
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
    """

    manifest: Manifest
    report: Report
    endpoint: Endpoint | None = None
    figures: Sequence[str] = ()
    changelog: str = field(default="", repr=False)
    external: Sequence[ExternalValidation] = ()

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
    def in_french(self) -> str:
        """The tool in one French line, which says that the data are simulated; empty if the tool has none."""
        summary = self.tool.summary.fr or ""
        return f"{SIMULATED_FR}. {summary}" if summary and self.simulated else summary

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
        links = ["[the report as a page](report.html)", "[its numbers](report.json)"]
        if self.simulated and self.changelog:
            links += ["[the predictions](predictions.csv)", "[the patients](patients.csv)"]
        note = "" if self.simulated else " The predictions stay at the training site."
        return f"In this folder: {', '.join(links)}, [what was trained and fitted](manifest.json).{note}"

    def text(self, key: str, reason: str = NOT_STATED) -> str:
        """Return what the tool states under this key as a sentence, or why it is missing."""
        return as_prose(getattr(self.tool, key)) or absent(reason)

    def lines(self, key: str, reason: str = NOT_STATED) -> list[str]:
        """Return what the tool states under this key as a list of lines."""
        stated = getattr(self.tool, key) or ()
        return [as_prose(line) for line in ([stated] if isinstance(stated, str) else stated)] or [absent(reason)]

    def lines_or_reason(self, key: str, reason: str = NOT_STATED) -> str | list[str]:
        """Return the lines, or the reason as a text if there are none."""
        return self.lines(key, reason) if getattr(self.tool, key) else absent(reason)

    def choose(self, simulated: str, real: str) -> str:
        """Return the text for simulated or for real patients."""
        return simulated if self.simulated else real

    def absent(self, simulated: str, real: str) -> str:
        """Return why an item is missing, for simulated or for real patients."""
        return absent(self.choose(simulated, real))

    def main(self) -> Field:
        """Return the main result."""
        if self.metric is None:
            return Field("Main result", absent(NOBODY_REPORTED))
        text = f"{named(self.metric)} {self.all_folds.metrics[self.metric].described}; {self.cohort}"
        return Field("Main result", text, below(self.source, "metrics", self.metric))

    def oracle(self) -> Field:
        """Return the result of a perfect reader of the same tiles."""
        name, section = "Best possible (oracle)", self.all_folds.section(Oracle)
        if self.metric is None or section is None:
            return Field(name, self.absent("this report has none", "it exists for simulated cohorts alone"))
        best = section.metrics[self.metric]
        text = f"{named(self.metric)} {best.described}; a reader who knows which tiles count"
        shortfall = _distance_to_oracle(self.all_folds.metrics[self.metric], best)
        return Field(name, f"{text}. {shortfall}", below(self.source, "sections", Oracle.key, "metrics", self.metric))

    def verdict(self) -> Field:
        """Return in words whether the model beats simpler models."""
        name = "Against simpler models"
        if self.metric is None:
            return Field(name, absent(NOBODY_REPORTED))
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
            return absent(NOT_STATED)
        reached, reason = self.tier
        text = f"ESMO EBAI class {evidence.kind}, tier {'not stated' if reached is None else reached}"
        if reason:
            text += f" of {LOWEST}, the lowest, as {reason}; published work could support tier {evidence.tier}"
        note = "class and tier are our own mapping"
        if self.simulated:
            note += "; weights made on simulated slides are no evidence"
        return f"{text} ({note})"


def missing(section: type[Section]) -> str:
    """Return why a report does not have a section."""
    reason = section.not_applicable
    return absent(reason[:1].lower() + reason[1:].rstrip("."))


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

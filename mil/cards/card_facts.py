"""What every block of a card is written from: the manifest, the report, and the tool's yaml within the manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mil.cards.content import Field, absent
from mil.cards.measured import below, interval, population
from mil.cards.tier import LOWEST, tier
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest
from mil.report.page.html import ABSENT as REASONS
from mil.report.page.words import named, verdict
from mil.report.schema import GateResult

SIMULATED = "SIMULATED DATA, NO CLINICAL MEANING, RESEARCH USE ONLY"
RESEARCH = "RESEARCH USE ONLY, NOT A MEDICAL DEVICE"
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
    """

    manifest: Manifest
    report: Mapping[str, Any]
    endpoint: Endpoint | None = None
    figures: Sequence[str] = ()
    changelog: str = field(default="", repr=False)

    @property
    def tool(self) -> Mapping[str, Any]:
        """The tool's yaml."""
        return self.manifest.tool

    @property
    def simulated(self) -> bool:
        """Whether the cohort is simulated."""
        return bool(self.manifest.data["simulated"])

    @property
    def banner(self) -> str:
        """The warning above everything else."""
        return SIMULATED if self.simulated else RESEARCH

    @property
    def all_folds(self) -> Mapping[str, Any]:
        """The report of all folds of the run."""
        report: Mapping[str, Any] = self.report.get("run") or self.report
        return report

    @property
    def source(self) -> str:
        """File and key of that report."""
        return f"{REPORT}run" if self.report.get("run") else REPORT

    @cached_property
    def metric(self) -> str | None:
        """The metric that ranks models; None if no patient was reported."""
        metrics = self.all_folds["metrics"]
        return self.endpoint.metric if self.endpoint and self.endpoint.metric in metrics else next(iter(metrics), None)

    @cached_property
    def gates(self) -> Sequence[GateResult]:
        """The results of the release gates; empty in a run."""
        return [GateResult.model_validate(gate) for gate in self.report.get("gates") or ()]

    @property
    def cohort(self) -> str:
        """Which patients the numbers are computed from."""
        cohort = f"the simulated cohort of {self.tool['name']}" if self.simulated else "the training site's cohort"
        folds = int(self.all_folds.get("folds") or 1)
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
        return as_prose(self.tool.get(key)) or absent(reason)

    def lines(self, key: str, reason: str = NOT_STATED) -> list[str]:
        """Return what the tool states under this key as a list of lines."""
        stated = self.tool.get(key) or []
        return [as_prose(line) for line in ([stated] if isinstance(stated, str) else stated)] or [absent(reason)]

    def lines_or_reason(self, key: str, reason: str = NOT_STATED) -> str | list[str]:
        """Return the lines, or the reason as a text if there are none."""
        return self.lines(key, reason) if self.tool.get(key) else absent(reason)

    def choose(self, simulated: str, real: str) -> str:
        """Return the text for simulated or for real patients."""
        return simulated if self.simulated else real

    def absent(self, simulated: str, real: str) -> str:
        """Return why an item is missing, for simulated or for real patients."""
        return absent(self.choose(simulated, real))

    def missing(self, key: str) -> str:
        """Return why the report has no such section."""
        none = "this report has none"
        return absent(none if key not in self.all_folds else REASONS.get(key, none))

    def main(self) -> Field:
        """Return the main result."""
        if self.metric is None:
            return Field("Main result", absent("no patient was held back to report on"))
        estimate = self.all_folds["metrics"][self.metric]
        text = f"{named(self.metric)} {interval(estimate)}, {population(estimate)}; {self.cohort}"
        return Field("Main result", text, below(below(self.source, "metrics"), self.metric))

    def oracle(self) -> Field:
        """Return the result of a perfect reader of the same tiles."""
        name = "Best possible (oracle)"
        oracle = self.all_folds.get("oracle") or {}
        best = None if self.metric is None else oracle.get(self.metric)
        if best is None:
            return Field(name, self.absent("this report has none", "it exists for simulated cohorts alone"))
        metric = str(self.metric)
        text = f"{named(metric)} {interval(best)}, {population(best)}; a reader who knows which tiles count"
        shortfall = _distance_to_oracle(self.all_folds["metrics"][metric], best)
        return Field(name, f"{text}. {shortfall}", below(below(self.source, "oracle"), metric))

    def verdict(self) -> Field:
        """Return in words whether the model beats simpler models."""
        name = "Against simpler models"
        if self.metric is None:
            return Field(name, absent("no patient was held back to report on"))
        compared = [key for key in ("baseline", "covariates") if self.all_folds.get(key)]
        sources = [below(below(below(self.source, key), "difference"), self.metric) for key in compared]
        patients = f" Of {population(self.all_folds['metrics'][self.metric])}." if compared else ""
        return Field(name, verdict(self.all_folds, self.metric) + patients, "; ".join(sources))

    def hub(self) -> str | None:
        """Return the encoder's id on a model hub, if it is known."""
        return next((name for name in self.manifest.encoder.get("aliases", ()) if "/" in name), None)

    @cached_property
    def tier(self) -> tuple[int | None, str]:
        """The tier of this release's evidence, and why it is not the tier that the question could reach."""
        return tier(self.manifest, self.all_folds, self.metric)

    def evidence(self) -> str:
        """Return class and tier of the evidence, by our own mapping."""
        evidence = self.tool.get("evidence") or {}
        if not evidence.get("class"):
            return absent(NOT_STATED)
        reached, reason = self.tier
        text = f"ESMO EBAI class {evidence['class']}, tier {'not stated' if reached is None else reached}"
        if reason:
            text += f" of {LOWEST}, the lowest, as {reason}; published work could support tier {evidence['tier']}"
        note = "class and tier are our own mapping"
        if self.simulated:
            note += "; weights made on simulated slides are no evidence"
        return f"{text} ({note})"


def _distance_to_oracle(metric: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Say how far a model is from the best possible value; the difference has no interval."""
    if metric["value"] is None or best["value"] is None:
        return "How far this model is from it is not estimable"
    gap = best["value"] - metric["value"]
    if gap <= 0:
        return "This model reaches it"
    text = f"This model is {gap:.3f} short of it"
    if metric["high"] is None or best["low"] is None:
        return text
    return f"{text}; their intervals {'overlap' if metric['high'] >= best['low'] else 'do not overlap'}"


def component(node: Mapping[str, Any] | None) -> str:
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

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

SIMULATED = "SIMULATED DATA, NO CLINICAL MEANING, RESEARCH USE ONLY"
RESEARCH = "RESEARCH USE ONLY, NOT A MEDICAL DEVICE"
SILENT = "the tool does not say"
MANIFEST, REPORT = "manifest.json: ", "report.json: "


@dataclass(frozen=True, eq=False)
class Facts:
    """One checkpoint, as its card sees it.

    Attributes:
        manifest: Of the checkpoint.
        report: What its report.json holds; that of the whole run is in it under `run` where there are several folds.
        endpoint: What is predicted; none where a short text needs nothing of it.
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
        """Whether no patient stands behind it."""
        return bool(self.manifest.data["simulated"])

    @property
    def banner(self) -> str:
        """What stands above everything."""
        return SIMULATED if self.simulated else RESEARCH

    @property
    def whole(self) -> Mapping[str, Any]:
        """The report of all folds."""
        found: Mapping[str, Any] = self.report.get("run") or self.report
        return found

    @property
    def source(self) -> str:
        """Where that stands."""
        return f"{REPORT}run" if self.report.get("run") else REPORT

    @cached_property
    def metric(self) -> str | None:
        """The one that ranks models; none where nobody was reported."""
        known = self.whole["metrics"]
        return self.endpoint.metric if self.endpoint and self.endpoint.metric in known else next(iter(known), None)

    @property
    def cohort(self) -> str:
        """Of which patients the numbers are."""
        of = f"the simulated cohort of {self.tool['name']}" if self.simulated else "the training site's cohort"
        folds = int(self.whole.get("folds") or 1)
        return f"patients of {of} held back from training" + (f", mean of {folds} folds" if folds > 1 else "")

    @property
    def papers(self) -> str:
        """Links to what lies beside the card. The predictions of a release are there; those of a run lie above it."""
        links = ["[the report to read](report.html)", "[its numbers](report.json)"]
        if self.simulated and self.changelog:
            links += ["[the predictions](predictions.csv)", "[the patients](patients.csv)"]
        kept = "" if self.simulated else " The predictions stay at the training site."
        return f"Beside this card: {', '.join(links)}, [what was trained and fitted](manifest.json).{kept}"

    def said(self, key: str, reason: str = SILENT) -> str:
        """What the tool's yaml says, as a sentence; or that it is missing."""
        return prose(self.tool.get(key)) or absent(reason)

    def listed(self, key: str, reason: str = SILENT) -> list[str]:
        """The same of a list."""
        found = self.tool.get(key) or []
        return [prose(one) for one in ([found] if isinstance(found, str) else found)] or [absent(reason)]

    def items(self, key: str, reason: str = SILENT) -> str | list[str]:
        """The same for a field: a missing list is no list."""
        return self.listed(key, reason) if self.tool.get(key) else absent(reason)

    def either(self, simulated: str, real: str) -> str:
        """Why a thing is missing, of simulated or of real patients."""
        return absent(simulated if self.simulated else real)

    def told(self, simulated: str, real: str) -> str:
        """What is so, of simulated or of real patients."""
        return simulated if self.simulated else real

    def missing(self, key: str) -> str:
        """Why the report has no such section."""
        return absent("this report has none" if key not in self.whole else REASONS.get(key, "this report has none"))

    def main(self) -> Field:
        """The headline."""
        if self.metric is None:
            return Field("Main result", absent("no patient was held back to report on"))
        found = self.whole["metrics"][self.metric]
        said = f"{named(self.metric)} {interval(found)}, {population(found)}; {self.cohort}"
        return Field("Main result", said, below(below(self.source, "metrics"), self.metric))

    def oracle(self) -> Field:
        """What a perfect reader of the same tiles would reach."""
        oracle = self.whole.get("oracle") or {}
        found = None if self.metric is None else oracle.get(self.metric)
        if found is None:
            reason = "it exists for simulated cohorts alone" if not self.simulated else "this report has none"
            return Field("Best possible (oracle)", absent(reason))
        said = f"{named(str(self.metric))} {interval(found)}, {population(found)}; a reader who knows which tiles count"
        place = below(below(self.source, "oracle"), str(self.metric))
        return Field("Best possible (oracle)", f"{said}. {_short_of(self.whole['metrics'][self.metric], found)}", place)

    def verdict(self) -> Field:
        """Whether it beats simpler models, in words."""
        if self.metric is None:
            return Field("Against simpler models", absent("no patient was held back to report on"))
        beside = [key for key in ("baseline", "covariates") if self.whole.get(key)]
        sources = [below(below(below(self.source, key), "difference"), self.metric) for key in beside]
        found = self.whole["metrics"][self.metric]
        whom = f" Of {population(found)}." if beside else ""
        return Field("Against simpler models", verdict(self.whole, self.metric) + whom, "; ".join(sources))

    def hub(self) -> str | None:
        """The encoder's id on a model hub, as far as it is known."""
        return next((name for name in self.manifest.encoder.get("aliases", ()) if "/" in name), None)

    @cached_property
    def tier(self) -> tuple[int | None, str]:
        """Of this release's evidence, and why it is not the tier that the question could reach."""
        return tier(self.manifest, self.whole, self.metric)

    def evidence(self) -> str:
        """Class and tier, our own mapping."""
        found = self.tool.get("evidence") or {}
        if not found.get("class"):
            return absent(SILENT)
        reached, why = self.tier
        said = f"ESMO EBAI class {found['class']}, tier {'not stated' if reached is None else reached}"
        if why:
            said += f" of {LOWEST}, the lowest, as {why}; published work could support tier {found['tier']}"
        ours = "class and tier are our own mapping"
        return (
            f"{said} ({ours}; weights made on simulated slides are no evidence)"
            if self.simulated
            else f"{said} ({ours})"
        )


def _short_of(found: Mapping[str, Any], oracle: Mapping[str, Any]) -> str:
    """How far a model stays below what could be reached, of two values whose difference has no interval."""
    if found["value"] is None or oracle["value"] is None:
        return "How far this model is from it is not estimable"
    gap = oracle["value"] - found["value"]
    if gap <= 0:
        return "This model reaches it"
    said = f"This model is {gap:.3f} short of it"
    if found["high"] is None or oracle["low"] is None:
        return said
    return f"{said}; their intervals {'overlap' if found['high'] >= oracle['low'] else 'do not overlap'}"


def built(node: Mapping[str, Any] | None) -> str:
    """A class and its options: `torch.optim.Adam, lr 0.0002`."""
    if not node:
        return ""
    options = [f"{key} {prose(value)}" for key, value in node.items() if key != "_target_" and value is not None]
    return ", ".join([str(node.get("_target_", "")), *options]).removeprefix(", ")


def shortened(digest: str) -> str:
    """A sha256 by its beginning, which tells two files apart; the whole of it stands at the source."""
    return f"sha256 {digest[:12]}…"


def prose(found: Any) -> str:
    """Words, a list of them or a mapping as one sentence."""
    if found is None:
        return ""
    if isinstance(found, Mapping):
        return "; ".join(f"{key}: {prose(value)}" for key, value in found.items() if value not in (None, [], ""))
    if isinstance(found, list | tuple):
        return "; ".join(prose(one) for one in found)
    return str(found).strip()

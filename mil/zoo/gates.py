"""The ten gates of a release: what a reader may rely on, each with the number that it rests on.

A gate that does not hold stops no release. It is written into the report and the card, and printed by `mil release`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mil.cards.tier import LOWEST, at_new_sites, by_site, tier
from mil.fitted.novelty import Novelty
from mil.manifest import Manifest
from mil.report.page.words import verdict
from mil.runs.run import Run

_FAR = 8.0
Verdict = tuple[bool | None, str]


@dataclass(frozen=True)
class Gate:
    """One gate's outcome."""

    number: int
    name: str
    holds: bool | None
    """none: it does not apply"""
    said: str
    """one sentence, with the number that it rests on"""

    @property
    def line(self) -> str:
        """For a terminal."""
        word = {True: "holds", False: "does not hold", None: "does not apply"}[self.holds]
        return f"gate {self.number:>2}  {word:<14}  {self.name}: {self.said}"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the gates look at."""

    run: Run
    manifest: Manifest
    report: Mapping[str, Any]
    """without gates"""
    card: str
    """the README as it would be without them"""
    missing: list[str]
    """blocks that the card lacks"""
    differing: list[str]
    """numbers of the report that its predictions do not give again"""

    @property
    def whole(self) -> Mapping[str, Any]:
        """The report of all folds."""
        found: Mapping[str, Any] = self.report.get("run") or self.report
        return found


def gates(evidence: Evidence) -> list[dict[str, Any]]:
    """All ten, in order, as `report.json` keeps them."""
    return [asdict(Gate(number, name, *judge(evidence))) for number, (name, judge) in enumerate(GATES.items(), 1)]


def lines(found: list[dict[str, Any]]) -> Iterator[str]:
    """Kept gates for a terminal."""
    for one in found:
        yield Gate(**one).line


def _leakage(evidence: Evidence) -> Verdict:
    table = evidence.run.tables["predictions"]
    shared = int((table.groupby(["fold", "patient"])["role"].nunique() > 1).sum())
    patients, folds = table["patient"].nunique(), table["fold"].nunique()
    known = "said by every feature file" if evidence.manifest.encoder.get("verified") else "not said by every file"
    apart = "kept apart" if by_site(evidence.manifest) else "not kept apart (see gate 2)"
    split = "the split" if folds == 1 else f"one of {folds} splits"
    said = f"{shared} of {patients} patients in two roles of {split}; encoder {known}; sites {apart}."
    return not shared and bool(evidence.manifest.encoder.get("verified")), said


def _detectable(evidence: Evidence) -> Verdict:
    metric = evidence.run.endpoint.metric
    holds, said = at_new_sites(evidence.manifest, evidence.whole, metric)
    reached, _ = tier(evidence.manifest, evidence.whole, metric)
    told = "" if reached is None else f"; evidence of tier {reached} (1 the most, {LOWEST} the least)"
    return holds, f"{said}{told}."


def _baselines(evidence: Evidence) -> Verdict:
    whole = evidence.whole
    missing = [] if whole.get("baseline") else ["mean pooling with a linear model"]
    missing += [] if whole.get("added_value") or whole.get("covariates") else ["the clinical variables"]
    said = verdict(whole, evidence.run.endpoint.metric)
    return not missing, (f"not compared with {' and '.join(missing)}. " if missing else "") + said


def _calibration(evidence: Evidence) -> Verdict:
    parts = [evidence.whole, *(evidence.whole.get("parts") or {}).values()]
    found = [part for part in parts if part.get("calibration") or part.get("survival")]
    if not found:
        return False, "the report says nothing of calibration."
    return True, f"reported on {found[0]['patients'].get('n')} patients."


def _frozen(evidence: Evidence) -> Verdict:
    fitted = [evidence.whole.get("fitted") or [], evidence.report.get("fitted") or []]
    seen = [one for part in fitted for one in part if "report" in str(one.get("on"))]
    if seen:
        return False, f"{seen[0]['what']} was set on report patients, {len(seen)} such."
    if not evidence.manifest.fitted.get("decisions"):
        return None, "the tool has no cut that could be frozen."
    amounts = [f"{one['name']} on {one['n']} {one['on']} patients" for one in evidence.manifest.fitted["decisions"]]
    return (
        True,
        f"fitted before the report patients were predicted: {', '.join(amounts)}.",
    )


def _subgroups(evidence: Evidence) -> Verdict:
    parts = [evidence.whole, *(evidence.whole.get("parts") or {}).values()]
    found = next((part["subgroups"] for part in parts if part.get("subgroups")), None)
    if found is None:
        return False, "no table of subgroups: no clinical table was at hand."
    rows = found["rows"]
    return True, f"{len(rows)} rows, {sum(map(_known, rows))} of them estimable."


def _known(row: Mapping[str, Any]) -> bool:
    return (row.get("value") or {}).get("value") is not None


def _unlike(evidence: Evidence) -> Verdict:
    """Stand-ins for inputs that the tool must withhold: what a mean over tiles of other content would be."""
    said = evidence.manifest.fitted.get("novelty")
    if not said:
        return False, "0 inputs are withheld: the tool asks for no such check."
    known = Novelty.from_state(said)
    tried = dict(_stand_ins(known))
    caught = [name for name, (means, tiles) in tried.items() if known.judge(means, tiles) is not None]
    passed = [name for name in tried if name not in caught]
    told = f"{len(caught)} of {len(tried)} stand-ins withheld" + (f", not {', '.join(passed)}" if passed else "")
    return not passed and len(tried) > 1, f"{told}; neither blurred slides nor slides of another organ were tried."


def _stand_ins(known: Novelty) -> Iterator[tuple[str, tuple[NDArray[np.float64] | None, int]]]:
    if known.min_tiles > 1:
        yield "too few tiles", (None, known.min_tiles - 1)
    if known.features is not None:
        space = known.features.space()
        yield "empty features", (np.zeros_like(space.mean), known.min_tiles)
        yield "channels in another order", (np.roll(space.mean + space.scale, 1), known.min_tiles)
        yield f"features {_FAR:g} standard deviations away", (space.mean + _FAR * space.scale, known.min_tiles)


def _valid(evidence: Evidence) -> Verdict:
    lost = evidence.missing
    return not lost, f"{len(lost)} of the card's blocks missing" + (f": {', '.join(lost)}." if lost else ".")


def _regenerates(evidence: Evidence) -> Verdict:
    amount, lost = _amount(evidence.report), evidence.differing
    if lost:
        return False, f"{len(lost)} of {amount} numbers differ, first {lost[0]}."
    where = "mil zoo verify" if evidence.run.simulated else "mil evaluate RUN where the patients are"
    return True, f"{amount} numbers came again from the stored predictions ({where})."


def _external(evidence: Evidence) -> Verdict:
    if "no external validation" in evidence.card.casefold():
        return True, "the card says that there was no external validation; 0 external cohorts."
    return False, "0 external cohorts, and the card does not say so."


GATES: Mapping[str, Callable[[Evidence], Verdict]] = {
    "no leakage of patients, sites or encoder": _leakage,
    "better than chance at sites it has not seen": _detectable,
    "compared with simple models": _baselines,
    "calibration reported": _calibration,
    "cuts frozen beforehand": _frozen,
    "subgroups reported": _subgroups,
    "unlike inputs withheld": _unlike,
    "card complete": _valid,
    "numbers regenerate": _regenerates,
    "external cohort, or said that there is none": _external,
}


def _amount(node: Any) -> int:
    """Numbers in a document."""
    if isinstance(node, Mapping):
        return sum(map(_amount, node.values()))
    if isinstance(node, list):
        return sum(map(_amount, node))
    return isinstance(node, int | float) and not isinstance(node, bool)

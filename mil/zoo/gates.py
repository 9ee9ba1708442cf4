"""The ten gates of a release: conditions that a reader may rely on, each with the number that it rests on.

A gate that does not hold does not stop a release. It is written into the report and the card, and printed by
`mil release`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mil.cards.tier import LOWEST, by_site, new_site_performance, tier
from mil.fitted.novelty import Novelty
from mil.manifest import Manifest
from mil.report.schema import GateResult, Report
from mil.report.sections.added_value import AddedValue
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.calibration import Calibration
from mil.report.sections.clinical_model import CovariatesAlone
from mil.report.sections.comparator import verdict
from mil.report.sections.subgroups import Subgroups
from mil.report.sections.time_to_event import TimeToEvent
from mil.runs.run import Run

_FAR = 8.0
"""Standard deviations between a stand-in's features and the mean of the training bags."""
Verdict = tuple[bool | None, str]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the gates judge.

    Attributes:
        run: The run or the released folder, with its tables.
        manifest: Manifest of the checkpoint.
        report: Report of the checkpoint, without gates.
        card: The README as it would be without gates.
        missing_blocks: Numbers of the blocks that the card lacks.
        differing: Numbers of the report that could not be recomputed from its predictions, one line each.
    """

    run: Run
    manifest: Manifest
    report: Report
    card: str
    missing_blocks: Sequence[str]
    differing: Sequence[str]

    @property
    def all_folds(self) -> Report:
        """The report of all folds of the run."""
        return self.report.run or self.report

    @property
    def endpoint_reports(self) -> Sequence[Report]:
        """The report of all folds; of a tool of several endpoints also the report of each."""
        return [self.all_folds, *self.all_folds.parts.values()]


def gates(evidence: Evidence) -> list[GateResult]:
    """Judge all gates, in order."""
    results = []
    for number, (name, judge) in enumerate(GATES.items(), 1):
        holds, sentence = judge(evidence)
        results.append(GateResult(number=number, name=name, holds=holds, sentence=sentence))
    return results


def gate_lines(results: Sequence[GateResult]) -> Iterator[str]:
    """Yield a line per gate for a terminal."""
    words = {True: "holds", False: "does not hold", None: "does not apply"}
    for gate in results:
        yield f"gate {gate.number:>2}  {words[gate.holds]:<14}  {gate.name}: {gate.sentence}"


def _leakage(evidence: Evidence) -> Verdict:
    table = evidence.run.tables["predictions"]
    shared = int((table.groupby(["fold", "patient"])["role"].nunique() > 1).sum())
    patients, folds = table["patient"].nunique(), table["fold"].nunique()
    verified = evidence.manifest.encoder.verified
    encoder = "named by every feature file" if verified else "not named by every feature file"
    sites = "kept apart" if by_site(evidence.manifest) else "not kept apart (see gate 2)"
    split = "the split" if folds == 1 else f"one of {folds} splits"
    sentence = f"{shared} of {patients} patients have two roles in {split}; encoder {encoder}; sites {sites}."
    return not shared and verified, sentence


def _better_than_chance(evidence: Evidence) -> Verdict:
    metric = evidence.run.endpoint.metric
    holds, sentence = new_site_performance(evidence.manifest, evidence.all_folds, metric)
    reached, _ = tier(evidence.manifest, evidence.all_folds, metric)
    grade = "" if reached is None else f"; evidence of tier {reached} (1 the most, {LOWEST} the least)"
    return holds, f"{sentence}{grade}."


def _simple_models(evidence: Evidence) -> Verdict:
    report = evidence.all_folds
    missing = [] if report.section(Baseline) else ["mean pooling with a linear model"]
    missing += [] if report.section(AddedValue) or report.section(CovariatesAlone) else ["the clinical variables"]
    return not missing, (f"not compared with {' and '.join(missing)}. " if missing else "") + verdict(report)


def _calibration(evidence: Evidence) -> Verdict:
    for report in evidence.endpoint_reports:
        if report.section(Calibration) or report.section(TimeToEvent):
            return True, f"reported on {report.patients['n']} patients."
    return False, "0 reports contain a calibration."


def _frozen_thresholds(evidence: Evidence) -> Verdict:
    fitted = [*evidence.all_folds.fitted, *evidence.report.fitted]
    late = [row for row in fitted if "report" in row.on]
    if late:
        return False, f"{late[0].what} was set on report patients, {len(late)} such."
    decisions = evidence.manifest.fitted.decisions
    if not decisions:
        return None, "the tool has 0 thresholds that could be frozen."
    sizes = [f"{decision.name} on {decision.n} {decision.on} patients" for decision in decisions]
    return True, f"fitted before the report patients were predicted: {', '.join(sizes)}."


def _subgroups(evidence: Evidence) -> Verdict:
    sections = [section for report in evidence.endpoint_reports if (section := report.section(Subgroups))]
    if not sections:
        return False, "0 rows of subgroups: there was no clinical table."
    rows = sections[0].rows
    return True, f"{len(rows)} rows, {sum(row.value.value is not None for row in rows)} of them estimable."


def _novelty(evidence: Evidence) -> Verdict:
    novelty = evidence.manifest.fitted.novelty
    if novelty is None:
        return False, "0 inputs are withheld: the tool does not ask for this check."
    inputs = dict(_stand_ins(novelty))
    passed = [name for name, (mean, tiles) in inputs.items() if novelty.judge(mean, tiles) is None]
    withheld = f"{len(inputs) - len(passed)} of {len(inputs)} stand-ins withheld"
    exceptions = f", not {', '.join(passed)}" if passed else ""
    untried = "neither blurred slides nor slides of another organ were tried"
    return not passed and len(inputs) > 1, f"{withheld}{exceptions}; {untried}."


def _stand_ins(novelty: Novelty) -> Iterator[tuple[str, tuple[NDArray[np.float64] | None, int]]]:
    """Yield mean features and number of tiles of artificial inputs that the tool must withhold, by name."""
    if novelty.min_tiles > 1:
        yield "too few tiles", (None, novelty.min_tiles - 1)
    if novelty.features is not None:
        space = novelty.features.space()
        yield "empty features", (np.zeros_like(space.mean), novelty.min_tiles)
        yield "channels in another order", (np.roll(space.mean + space.scale, 1), novelty.min_tiles)
        yield f"features {_FAR:g} standard deviations away", (space.mean + _FAR * space.scale, novelty.min_tiles)


def _card_complete(evidence: Evidence) -> Verdict:
    missing = evidence.missing_blocks
    return not missing, f"{len(missing)} of the card's blocks missing" + (
        f": {', '.join(missing)}." if missing else "."
    )


def _regenerates(evidence: Evidence) -> Verdict:
    numbers, differing = _count_numbers(evidence.report.model_dump(mode="json")), evidence.differing
    if differing:
        return False, f"{len(differing)} of {numbers} numbers differ, first {differing[0]}."
    how = "mil zoo verify" if evidence.run.simulated else "mil evaluate RUN where the patients are"
    return True, f"{numbers} numbers were recomputed from the stored predictions ({how})."


def _external(evidence: Evidence) -> Verdict:
    if "no external validation" in evidence.card.casefold():
        return True, "the card says that there was no external validation; 0 external cohorts."
    return False, "0 external cohorts, and the card does not say so."


GATES: Mapping[str, Callable[[Evidence], Verdict]] = {
    "no leakage of patients, sites or encoder": _leakage,
    "better than chance at sites it has not seen": _better_than_chance,
    "compared with simple models": _simple_models,
    "calibration reported": _calibration,
    "thresholds frozen beforehand": _frozen_thresholds,
    "subgroups reported": _subgroups,
    "unlike inputs withheld": _novelty,
    "card complete": _card_complete,
    "numbers regenerate": _regenerates,
    "external cohort, or a statement that there is none": _external,
}


def _count_numbers(node: Any) -> int:
    """Count the numbers in a JSON document."""
    if isinstance(node, Mapping):
        return sum(map(_count_numbers, node.values()))
    if isinstance(node, list):
        return sum(map(_count_numbers, node))
    return isinstance(node, int | float) and not isinstance(node, bool)

"""The ten gates of a release: conditions that a reader may rely on, each with the number that it rests on.

A gate that does not hold does not stop a release. It is written into the report and the card, and printed by
`mil release`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.cards.external_validation import NONE, ExternalValidation
from mil.cards.tier import LOWEST, by_site, new_site_performance, tier
from mil.errors import CheckpointError
from mil.federation.cut_counts import choose_again, count_predictions, declared_grid, read_counts
from mil.federation.measures import ScoreGrid
from mil.fitted.decision import Decision
from mil.fitted.novelty import Novelty
from mil.fitted.state import refit
from mil.manifest import Manifest
from mil.report.schema import Estimate, GateResult, Report
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
_SAME_CUT = 1e-6
"""Relative; fitting a calibration takes sums that other platforms round differently."""
_STATED = (
    "question",
    "organ",
    "specimen",
    "intended_use",
    "users",
    "pathway",
    "ground_truth",
    "out_of_scope",
    "confounders",
    "references",
)
"""What only people can state of a tool, and a user needs; a missing one stands in the card as missing."""
EXTERNAL_GATE = 10
"""Number of the gate that judges external validations."""
Verdict = tuple[bool | None, str]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the gates judge.

    Attributes:
        run: The run or the released folder, with its tables.
        manifest: Manifest of the checkpoint.
        report: Report of the checkpoint, without gates.
        differing: Numbers of the report that could not be recomputed from its predictions, one line each.
        external: Validations of these weights on other cohorts.
    """

    run: Run
    manifest: Manifest
    report: Report
    differing: Sequence[str] = ()
    external: Sequence[ExternalValidation] = ()

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
    if not patients:
        return False, (
            f"0 patients are here: each site divided its own, and one who is known to two sites has two roles unseen; "
            f"encoder {encoder}."
        )
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
    estimates = [estimate for report in evidence.endpoint_reports for estimate in _calibrations(report)]
    estimable = sum(estimate.value is not None for estimate in estimates)
    counted = f"{estimable} of {len(estimates)} slopes and observed/expected ratios are estimable"
    return 0 < estimable == len(estimates), f"{counted}, of {evidence.all_folds.patients.get('n', 0)} patients."


def _calibrations(report: Report) -> Iterator[Estimate]:
    """Yield the calibration slopes of a report, and the observed over expected risks."""
    for section in (report.section(Calibration), report.section(TimeToEvent)):
        for row in () if section is None else section.card_rows():
            if row.source.endswith(("slope", "observed_expected")):
                yield row.estimate


def _frozen_thresholds(evidence: Evidence) -> Verdict:
    fitted = [*evidence.all_folds.fitted, *evidence.report.fitted]
    late = [row for row in fitted if "report" in row.on]
    if late:
        return False, f"{late[0].what} was set on report patients, {len(late)} such."
    decisions = evidence.manifest.fitted.decisions
    if not decisions:
        return None, "the tool has 0 thresholds that could be frozen."
    try:
        refitted, source = _refitted(evidence)
    except CheckpointError as error:
        return False, f"0 of {len(decisions)} decisions could be fitted again: {error}."
    if moved := list(_moved(evidence, refitted)):
        return False, f"{len(moved)} of {len(decisions)} decisions are not those of their patients: {moved[0]}."
    sizes = [f"{decision.name} on {decision.n} {decision.on} patients" for decision in decisions]
    return True, f"fitted without any report patient, and again from {source}: {', '.join(sizes)}."


def _moved(evidence: Evidence, refitted: Sequence[Decision]) -> Iterator[str]:
    """Yield each decision whose cuts are not what its training and selection patients give."""
    again = {decision.name: decision for decision in refitted}
    for decision in evidence.manifest.fitted.decisions:
        if decision.on not in ("select", "train"):
            continue
        expected = again[decision.name].cuts if decision.name in again else ()
        if len(expected) != len(decision.cuts) or not np.allclose(expected, decision.cuts, rtol=_SAME_CUT, atol=0):
            given = " and ".join(f"{cut:.6g}" for cut in expected) or "none"
            yield f"{decision.name} is cut at {decision.cuts[0]:.6g}, its {decision.on} patients give {given}"


def _refitted(evidence: Evidence) -> tuple[Sequence[Decision], str]:
    """Fit decisions again to this fold's training and selection patients, and return them with where these are from.

    Raises:
        CheckpointError: The cuts are of hospitals together, and neither predictions nor counts are here.
    """
    manifest, endpoint = evidence.manifest, evidence.run.endpoint
    table, fold = evidence.run.tables["predictions"], manifest.data.split.fold
    rows = table[table["fold"] == fold]
    grid = declared_grid(manifest)
    if grid is not None:
        return _on_grid(evidence, rows, grid)
    log, level = logging.getLogger(refit.__module__), logging.getLogger(refit.__module__).level
    log.setLevel(logging.ERROR)  # what cannot be fitted was logged in training
    try:
        return refit(rows, endpoint, manifest.tool)[fold].decisions, "the stored scores"
    finally:
        log.setLevel(level)


def _on_grid(evidence: Evidence, rows: pd.DataFrame, grid: ScoreGrid) -> tuple[Sequence[Decision], str]:
    """Choose the cuts of hospitals again by numbers of patients on the grid that their manifest declares.

    Raises:
        CheckpointError: Neither predictions nor counts on this grid are here.
    """
    endpoint, tool = evidence.run.endpoint, evidence.manifest.tool
    source, counts = "the stored scores", None
    if len(rows):
        counts = count_predictions(rows, endpoint, tool)
    else:
        source, counts = "the totals over sites", read_counts(evidence.run.folder, evidence.manifest.data.split.fold)
    if counts is None:
        raise CheckpointError("neither predictions nor counts of all sites are here, expected the coordinator's folder")
    if counts.grid != grid:
        raise CheckpointError(f"counts on a grid of {counts.grid.cells} cells, the manifest declares {grid.cells}")
    return choose_again(counts, endpoint, tool), f"{source} on the declared grid of {grid.cells} cells"


def _subgroups(evidence: Evidence) -> Verdict:
    sections = [section for report in evidence.endpoint_reports if (section := report.section(Subgroups))]
    if not sections:
        return False, "0 rows of subgroups: there was no clinical table."
    rows = [row for section in sections for row in section.rows if row.variable != "all"]
    estimable = sum(row.value.value is not None for row in rows)
    return estimable > 0, f"{len(rows)} subgroups, {estimable} of them estimable."


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


def _stated(evidence: Evidence) -> Verdict:
    tool = evidence.manifest.tool
    missing = [name.replace("_", " ") for name in _STATED if not getattr(tool, name)]
    counted = f"{len(_STATED) - len(missing)} of {len(_STATED)} statements that only people can make"
    return not missing, f"{counted}; not stated: {', '.join(missing)}." if missing else f"{counted}."


def _regenerates(evidence: Evidence) -> Verdict:
    numbers, differing = _count_numbers(evidence.report.model_dump(mode="json")), evidence.differing
    if differing:
        return False, f"{len(differing)} of {numbers} numbers differ, first {differing[0]}."
    how = "mil zoo verify" if evidence.run.simulated else "mil evaluate RUN where the patients are"
    return True, f"{numbers} numbers were recomputed from the stored predictions ({how})."


def _external(evidence: Evidence) -> Verdict:
    return external_verdict(evidence.external, evidence.manifest.data.simulated)


def external_verdict(validations: Sequence[ExternalValidation], simulated: bool) -> Verdict:
    """Return whether a tool was validated on a cohort of other patients, and on how many.

    Args:
        validations: All that are attached to the release.
        simulated: Whether the tool was trained on simulated patients; only then simulated cohorts count.
    """
    if not validations:
        return False, f"0 external cohorts: {NONE}."
    counted = [validation for validation in validations if validation.counts_for(simulated)]
    patients = sum(validation.cohort.patients.get("n", 0) for validation in counted)
    sentence = f"{len(counted)} external cohorts, {patients} patients"
    if uncounted := len(validations) - len(counted):
        sentence += f"; {uncounted} simulated, which do not count for a tool of patients"
    if unchecked := sum(validation.cohort.overlap is None for validation in counted):
        sentence += f"; of {unchecked} it could not be checked that no patient was in the development cohort"
    return bool(counted), f"{sentence}."


GATES: Mapping[str, Callable[[Evidence], Verdict]] = {
    "no leakage of patients, sites or encoder": _leakage,
    "better than chance at sites it has not seen": _better_than_chance,
    "compared with simple models": _simple_models,
    "calibration reported": _calibration,
    "thresholds frozen beforehand": _frozen_thresholds,
    "subgroups reported": _subgroups,
    "unlike inputs withheld": _novelty,
    "purpose and use stated": _stated,
    "numbers regenerate": _regenerates,
    "validated on an external cohort": _external,
}


def _count_numbers(node: Any) -> int:
    """Count the numbers in a JSON document."""
    if isinstance(node, Mapping):
        return sum(map(_count_numbers, node.values()))
    if isinstance(node, list):
        return sum(map(_count_numbers, node))
    return isinstance(node, int | float) and not isinstance(node, bool)

"""Columns of a table of predictions that say where it comes from: tool, version, simulated data, and the cuts."""

from collections.abc import Iterable, Sequence

import pandas as pd

from mil.checkpoint import Checkpoint
from mil.fitted.decision import Decision
from mil.manifest import Manifest
from mil.tables import SIMULATED_COLUMN

TOOL, VERSION, THRESHOLD = "tool", "version", "threshold"
ORIGIN_FILE = "origin.json"
"""The same for a folder of tables of tiles."""
UNRELEASED = "unreleased"
"""Said of a checkpoint of a run, or of a copy with a new cut or calibration, which is no released version."""
_OF_A_RELEASE = "CHANGELOG.md"
"""A file that every release has and no other checkpoint."""
LIKELIEST = "likeliest class"
_IDS = ("patient", "slide", "bag")
_MEMBERS = " | "
"""Between what differs among the members of an ensemble."""


def with_origin(table: pd.DataFrame, checkpoints: Sequence[Checkpoint]) -> pd.DataFrame:
    """Return predictions with columns that say what made them.

    `tool`, `version` and `simulated` (whether the weights were trained on simulated data) follow the ids; `threshold`,
    for several decisions `threshold_<name>` as in `call_<name>`, comes last: the cut as a number, two cuts as
    `0.2; 0.7`. What differs among the members of an ensemble is separated by ` | `.

    Args:
        table: Predictions, one row per patient, slide or bag.
        checkpoints: The model, or the members of the ensemble.
    """
    out = table.copy()
    position = max((list(out).index(name) + 1 for name in _IDS if name in out), default=0)
    for place, (name, value) in enumerate(origin(checkpoints).items(), start=position):
        if name not in out:  # a target of the tool may have this name
            out.insert(place, name, value)
    return out.assign(**_thresholds([checkpoint.manifest.fitted.decisions for checkpoint in checkpoints]))


def origin(checkpoints: Sequence[Checkpoint]) -> dict[str, str | bool]:
    """Return tool, version, and whether the weights of any checkpoint were trained on simulated data."""
    manifests = [checkpoint.manifest for checkpoint in checkpoints]
    return {
        TOOL: _joined(manifest.tool.name for manifest in manifests),
        VERSION: _joined(_version(manifest) for manifest in manifests),
        SIMULATED_COLUMN: any(manifest.data.simulated for manifest in manifests),
    }


def _version(manifest: Manifest) -> str:
    version = manifest.tool.version
    if _OF_A_RELEASE in manifest.files:
        return version
    return f"{version} ({UNRELEASED})" if version else UNRELEASED


def _thresholds(members: Sequence[Sequence[Decision]]) -> dict[str, float | str]:
    """Return the cuts of each decision by column, from the decisions of each member."""
    cuts = dict[str, float | str]()
    by_name = [{decision.name: decision for decision in decisions} for decisions in members]
    for first in members[0]:
        decisions = [named[first.name] for named in by_name if first.name in named]
        name = THRESHOLD if len(members[0]) == 1 else f"{THRESHOLD}_{first.name}"
        alone = len(decisions) == 1 and len(first.cuts) == 1 and not first.likeliest
        cuts[name] = first.cuts[0] if alone else _joined(_cuts(decision) for decision in decisions)
    return cuts


def _cuts(decision: Decision) -> str:
    if decision.likeliest:
        return f"{LIKELIEST}, at least {decision.cuts[0]!r}" if decision.cuts else LIKELIEST
    return "; ".join(map(repr, decision.cuts))


def _joined(values: Iterable[str]) -> str:
    """Return the values of the members, or the value that they share."""
    each = list(values)
    return each[0] if len(set(each)) == 1 else _MEMBERS.join(each)

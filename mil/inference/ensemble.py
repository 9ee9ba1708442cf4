"""Several checkpoints of one tool, folds or seeds, that predict together, and how far they differ.

Every score is the mean over the members, and `spread_<score>` the standard deviation over them:

- probabilities, and risks at a horizon, as they are: the mean of probabilities, not of logits, so that classes still
  sum to one and a member that is sure and wrong cannot outvote the others (Lakshminarayanan et al., NeurIPS 2017).
- log hazards of Cox, each known up to a constant, once every member's constant is taken out by its own baseline hazard:
  members are compared by the logarithm of the cumulative hazard at one time that all have reached. The mean is that of
  the log hazards themselves, since a constant a member orders nobody anew. They are not divided by their spread over
  the training patients: it would make a member that has learnt nothing, whose log hazards hardly differ, as loud as the
  others.
- other risks that order patients as they are: means of incidences, and log times, have a scale of their own.
- numbers and quantiles as they are; the standard deviation that an endpoint writes becomes that of the mixture,
  `sqrt(mean(sd^2) + var(values))`.

Cuts were set on one member's scores and do not hold for their mean: each member calls by its own, the most frequent
call is taken, and `agreement` is the share of the members who gave it; on a tie there is none. A patient whom half of
the members or more withhold is withheld. A member's conformal limits are no limits of the ensemble, and are left out.

Patients of the cohort that the members were trained on are not new to all of them: only others can be evaluated so.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.checkpoint import WEIGHTS, Checkpoint
from mil.endpoints.cox import BaselineHazard
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError
from mil.features.formats import Reading
from mil.fitted.withholding import WITHHELD, withhold
from mil.inference.predict import predict
from mil.stats.weights import ratio

Floats = NDArray[np.float64]
SPREAD, AGREEMENT = "spread_", "agreement"
_NAMES = ("patient", "slide", "tiles")


def ensemble(
    checkpoints: Sequence[Checkpoint],
    features: Path,
    cohort: Path | None = None,
    slides: Path | None = None,
    workers: int = 0,
    reading: Reading | None = None,
) -> pd.DataFrame:
    """The members' table of scores, with spreads; arguments and errors as those of `predict`.

    Features are read once a member, since each prepares covariates in its own way.

    Raises:
        CheckpointError: as in `same_tool`.
    """
    same_tool(checkpoints)
    tables = [predict(one, features, cohort, slides, None, workers, reading) for one in checkpoints]
    return combined([one.endpoint for one in checkpoints], tables)


def same_tool(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuses members that do not predict the same from the same, or are one model twice.

    Raises:
        CheckpointError: fewer than two, another tool, endpoint, encoder or covariates, or the same weights.
    """
    if len(checkpoints) < 2:
        raise CheckpointError(f"ensemble: {len(checkpoints)} checkpoints, expected two or more")
    first, seen = checkpoints[0], dict[str | None, Path]()
    for other in checkpoints:
        for what, ours, theirs in zip(_WHAT, _identity(first), _identity(other), strict=True):
            if ours != theirs:
                expected = f"expected {_short(ours)} as {first.folder}"
                raise CheckpointError(f"{other.folder}: {what} {_short(theirs)}, {expected}")
        digest = other.manifest.files.get(WEIGHTS)
        if digest in seen:
            raise CheckpointError(f"{other.folder}: the weights of {seen[digest]}, expected another member")
        seen[digest] = other.folder


_WHAT = ("tool", "endpoint", "encoder", "covariates")


def _identity(checkpoint: Checkpoint) -> tuple[Any, ...]:
    manifest, beside = checkpoint.manifest, checkpoint.covariates
    encoder = (checkpoint.encoder.name, checkpoint.encoder.dim)
    return manifest.tool.name, manifest.endpoint.model_dump(), encoder, beside and beside.columns


def _short(value: object) -> str:
    return str(value) if len(str(value)) <= 100 else f"{str(value)[:100]}..."


def combined(endpoints: Sequence[Endpoint], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table from those of the members, which name the same patients in the same order.

    Args:
        endpoints: Each member's, fitted.
        tables: Each member's scores and conclusions.
    """
    first, shifts = tables[0], _shifts(endpoints)
    out = first[[name for name in first if name in _NAMES]].copy()
    scores = {name: np.stack([table[name].to_numpy(np.float64) for table in tables]) for name in _scores(first)}
    for name, values in scores.items():
        shifted = values + shifts.get(name, np.zeros(len(tables)))[:, None]  # (m, p)
        out[name] = _mean(shifted)
        out[f"{SPREAD}{name}"] = np.sqrt(_variance(shifted, 1))
    for part in _parts(endpoints[0]):
        value, spread = part.value_column, part.spread_column
        if value in scores and spread in scores:
            out[spread] = np.sqrt(_mean(scores[spread] ** 2) + _variance(scores[value]))
    for name in (one for one in map(str, first) if one == "call" or one.startswith("call_")):
        votes = [_vote(row) for row in zip(*(table[name] for table in tables), strict=True)]
        out[name], out[name.replace("call", AGREEMENT, 1)] = (list(column) for column in zip(*votes, strict=True))
    return _withheld(out, tables) if WITHHELD in first else out


def _scores(table: pd.DataFrame) -> Iterator[str]:
    """Columns that have a mean: not names, nor the ends of a member's conformal interval."""
    for name in table.columns.difference([*_NAMES, "low", "high"], sort=False):
        if pd.api.types.is_numeric_dtype(table[name]):
            yield name


def _mean(values: Floats) -> Floats:
    """Over the members who say something, `(m, p)` to `(p,)`; NaN where none does."""
    there = np.isfinite(values)
    return ratio(np.where(there, values, 0).sum(0), there.sum(0))


def _variance(values: Floats, fewer: int = 0) -> Floats:
    """Over the same members, divided by their number or one fewer."""
    there = np.isfinite(values)
    away = np.where(there, values - _mean(values), 0)
    return ratio((away**2).sum(0), there.sum(0) - fewer)


def _shifts(endpoints: Sequence[Endpoint]) -> Mapping[str, Floats]:
    """Return what to add to the log hazards of each member so that they are comparable, `(m,)`, by column.

    The shifts have a mean of zero.
    """
    for members in zip(*map(_parts, endpoints), strict=True):
        views = [view for member in members if (view := member.survival) is not None]
        baselines = [view.baseline for view in views if view.baseline is not None]
        if len(baselines) == len(endpoints):
            return {views[0].rank_column: _log_baselines(baselines)}
    return {}


def _parts(endpoint: Endpoint) -> list[Endpoint]:
    """Return the endpoints within a tool of several, or the endpoint itself."""
    return list(endpoint.parts().values()) or [endpoint]


def _log_baselines(baselines: Sequence[BaselineHazard]) -> Floats:
    """Return the log of each member's cumulative baseline hazard at the median event time, less the members' mean."""
    times = [np.asarray(baseline.times) for baseline in baselines]
    moment = max(float(np.median(np.concatenate(times))), *(float(own.min()) for own in times))
    logs = np.array([math.log(baseline.at(moment)) for baseline in baselines])
    return np.asarray(logs - logs.mean())


def _vote(calls: Sequence[object]) -> tuple[str, float]:
    """The most frequent call, empty on a tie, and the share of all members who gave it."""
    counted = Counter(str(call) for call in calls if isinstance(call, str) and call).most_common(2)
    if not counted or (len(counted) == 2 and counted[0][1] == counted[1][1]):
        return "", counted[0][1] / len(calls) if counted else 0.0
    return counted[0][0], counted[0][1] / len(calls)


def _withheld(table: pd.DataFrame, members: Sequence[pd.DataFrame]) -> pd.DataFrame:
    said = []
    for reasons in zip(*(member[WITHHELD] for member in members), strict=True):
        given = [reason for reason in reasons if reason]
        half = 2 * len(given) >= len(reasons)
        said.append(f"{len(given)} of {len(reasons)} members: {given[0]}" if half else "")
    return withhold(table, said)

"""Combine the predictions of several checkpoints of one tool, such as folds or seeds, and how far they differ.

Every score is the mean over the members, and `spread_<score>` the standard deviation over them:

- Probabilities, and risks at a horizon: the mean of probabilities, not of logits, so that classes still sum to one and
  a member that is certain and wrong cannot outvote the others (Lakshminarayanan et al., NeurIPS 2017).
- Log hazards of Cox models are defined up to a constant. Each member's is removed by its own baseline hazard, so that
  members agree on the logarithm of the cumulative hazard at one time that all have reached; the shifts have mean zero,
  and the mean orders patients as the members' log hazards do. They are not divided by their spread over the training
  patients, which would give a member that has learnt nothing, whose log hazards hardly differ, as much weight as the
  others.
- Other risks that order patients: the mean, since mean incidences and log times have a scale.
- Values and quantiles: the mean; a standard deviation becomes that of the mixture, `sqrt(mean(sd^2) + var(values))`.

Cuts were set on one member's scores and do not hold for the mean: each member calls by its own cuts, the most frequent
call is taken, and `agreement` is the share of members with that call; on a tie there is none. A patient whom half of
the members or more withhold is withheld. Conformal limits of a member do not hold for the ensemble and are left out.

Patients of the cohort that the members were trained on are not new to all of them: only others can be evaluated.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.checkpoint import WEIGHTS, Checkpoint
from mil.cohort.columns import Columns
from mil.endpoints.cox import BaselineHazard
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError, FeatureError
from mil.features.feature_folders import feature_folders
from mil.features.formats import DETECTED, Reading
from mil.findings import warnings_once
from mil.fitted.withholding import WITHHELD, withhold
from mil.inference.bad_slides import SKIPPED, OnBad
from mil.inference.cohort_shards import Shard
from mil.inference.predict import PredictionInputs, predict_each, readings_of
from mil.stats.weights import ratio
from mil.tables import listed

logger = logging.getLogger(__name__)
Floats = NDArray[np.float64]
SPREAD, AGREEMENT = "spread_", "agreement"
_NAMES = ("patient", "slide", "tiles")


def ensemble(
    checkpoints: Sequence[Checkpoint],
    features: Path,
    cohort: Path | None = None,
    slides: Path | None = None,
    workers: int = 0,
    reading: Reading = DETECTED,
    on_bad: OnBad = "error",
    max_tiles: int | None = None,
    ids: Columns | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return the mean scores of the members with their spreads; arguments and errors are those of `predict`.

    Every slide is read once, for all members. Where `features` names those of several encoders, members of different
    encoders predict together, each from its own. What `reading` leaves open is read as in training, see `readings_of`.

    Raises:
        CheckpointError: as in `same_tool`.
        FeatureError: members of different encoders have features of different slides.
    """
    same_tool(checkpoints, any_encoder=bool(feature_folders(features)))
    inputs = PredictionInputs(features, cohort, slides, on_bad, max_tiles, ids, workers, shard)
    with warnings_once():
        tables = predict_each(checkpoints, readings_of(checkpoints, reading), inputs)
    return together(checkpoints, [table for table in tables if table is not None])


def together(members: Sequence[Checkpoint], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the table of one tool: that of a single member, or the combined one of several.

    Args:
        members: Checkpoints of one tool.
        tables: The predictions of each.

    Raises:
        FeatureError: members of different encoders have features of different slides.
    """
    if len(members) == 1:
        return tables[0]
    predicted = [set(map(str, table.iloc[:, 0])) for table in tables]
    if differing := sorted(set[str]().union(*predicted) - predicted[0].intersection(*predicted)):
        raise FeatureError(
            f"{len(differing)} slides have no features for every member of the ensemble: {listed(differing)}; expected "
            "the same slides, or a table of the patients"
        )
    scores = [table.drop(columns=SKIPPED, errors="ignore") for table in tables]
    mean = combined([member.endpoint for member in members], scores)
    skipped = [table[SKIPPED] for table in tables if SKIPPED in table]
    return mean.assign(**{SKIPPED: _reasons(skipped)}) if skipped else mean


def _reasons(columns: Sequence["pd.Series[str]"]) -> list[str]:
    """Return what was left out by any member, row by row."""
    return ["; ".join(dict.fromkeys(filter(None, reasons))) for reasons in zip(*columns, strict=True)]


def same_tool(checkpoints: Sequence[Checkpoint], any_encoder: bool = False) -> None:
    """Check that checkpoints can be members of one ensemble.

    Args:
        checkpoints: The members.
        any_encoder: Whether members may read features of different encoders.

    Raises:
        CheckpointError: fewer than two members, another tool, endpoint, encoder or covariates, or the same weights.
    """
    if len(checkpoints) < 2:
        raise CheckpointError(f"ensemble: {len(checkpoints)} checkpoints, expected two or more")
    first, seen = checkpoints[0], dict[str | None, Path]()
    for member in checkpoints:
        for what, expected, value in zip(_WHAT, _identity(first), _identity(member), strict=True):
            if value != expected and not (any_encoder and what == "encoder"):
                raise CheckpointError(
                    f"{member.folder}: {what} {_shortened(value)}, expected {_shortened(expected)} as {first.folder}"
                )
        digest = member.manifest.files.get(WEIGHTS)
        if digest in seen:
            raise CheckpointError(f"{member.folder}: the weights of {seen[digest]}, expected another member")
        seen[digest] = member.folder


_WHAT = ("tool", "endpoint", "encoder", "covariates")


def _identity(checkpoint: Checkpoint) -> tuple[Any, ...]:
    manifest, covariates = checkpoint.manifest, checkpoint.covariates
    encoder = (checkpoint.encoder.name, checkpoint.encoder.dim)
    return manifest.tool.name, manifest.endpoint.model_dump(), encoder, covariates and covariates.columns


def _shortened(value: object) -> str:
    return str(value) if len(str(value)) <= 100 else f"{str(value)[:100]}..."


def combined(endpoints: Sequence[Endpoint], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return one table from the members' tables, which have the same patients in the same order.

    Columns that a member lacks, such as a calibration that its patients could not carry, are left out with a warning.

    Args:
        endpoints: The fitted endpoint of each member.
        tables: The predictions of each member.
    """
    first, shifts = _shared(tables), _shifts(endpoints)
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
    for name in (column for column in map(str, first) if column == "call" or column.startswith("call_")):
        votes = [_vote(row) for row in zip(*(table[name] for table in tables), strict=True)]
        out[name], out[name.replace("call", AGREEMENT, 1)] = map(list, zip(*votes, strict=True))
    return _withheld(out, tables) if WITHHELD in first else out


def _shared(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the first table with the columns that all have: a member may lack a calibration or a decision."""
    first = tables[0]
    shared = [name for name in first if all(name in table for table in tables)]
    partial = dict.fromkeys(str(name) for table in tables for name in table if name not in shared)
    if partial:
        logger.warning("ensemble: left out %s, which not every member has", ", ".join(partial))
    return first[shared]


def _scores(table: pd.DataFrame) -> Iterator[str]:
    """Yield the columns that have a mean: not names, nor the ends of a conformal interval."""
    for name in table.columns.difference([*_NAMES, "low", "high"], sort=False):
        if pd.api.types.is_numeric_dtype(table[name]):
            yield name


def _mean(values: Floats) -> Floats:
    """Return the mean over the members that have a number, `(m, p)` to `(p,)`; NaN where none has."""
    finite = np.isfinite(values)
    return ratio(np.where(finite, values, 0).sum(0), finite.sum(0))


def _variance(values: Floats, fewer: int = 0) -> Floats:
    """Return the variance over the same members, divided by their number less `fewer`."""
    finite = np.isfinite(values)
    deviation = np.where(finite, values - _mean(values), 0)
    return ratio((deviation**2).sum(0), finite.sum(0) - fewer)


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
    moment = max(float(np.median(np.concatenate(times))), *(float(moments.min()) for moments in times))
    logs = np.array([math.log(baseline.at(moment)) for baseline in baselines])
    return np.asarray(logs - logs.mean())


def _vote(calls: Sequence[object]) -> tuple[str, float]:
    """Return the most frequent call, empty on a tie, and the share of all members with it."""
    counted = Counter(str(call) for call in calls if isinstance(call, str) and call).most_common(2)
    if not counted or (len(counted) == 2 and counted[0][1] == counted[1][1]):
        return "", counted[0][1] / len(calls) if counted else 0.0
    return counted[0][0], counted[0][1] / len(calls)


def _withheld(table: pd.DataFrame, members: Sequence[pd.DataFrame]) -> pd.DataFrame:
    by_row = []
    for reasons in zip(*(member[WITHHELD] for member in members), strict=True):
        given = [reason for reason in reasons if reason]
        half = 2 * len(given) >= len(reasons)
        by_row.append(f"{len(given)} of {len(reasons)} members: {given[0]}" if half else "")
    return withhold(table, by_row)

"""Rank many runs in one table; only runs that reported the same patients are ranked against each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.report.comparison import BOOTSTRAP, Comparison, ScoredModel, adjusted, compare, scored_models, targets
from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import area_estimate
from mil.report.paired_difference import shown_sign
from mil.stats.corrected_resampled import all_pairs_p
from mil.stats.estimate import Estimate, Number
from mil.stats.max_type import max_type_p


class LeaderboardRow(NamedTuple):
    """One run of a leaderboard; numbers that cannot be estimated are None."""

    group: int
    """number of the group of runs that reported the same patients"""
    rank: int | None
    run: str
    tool: str
    model: str
    encoder: str
    n: int
    counts: str
    """positives, classes or events among the patients"""
    metric: str
    value: Number
    low: Number
    high: Number
    behind: Number
    """the run minus the best of its group"""
    behind_low: Number
    behind_high: Number
    behind_zero_excluded: bool | None
    over_baseline: Number
    """the run minus mean pooling"""
    over_baseline_low: Number
    over_baseline_high: Number
    over_baseline_zero_excluded: bool | None
    simulated: bool
    """whether the run's patients are simulated"""


COLUMNS = LeaderboardRow._fields


@dataclass(frozen=True, eq=False)
class Entry:
    """One run of a leaderboard."""

    name: str
    evaluation: Evaluation
    model: str = ""
    encoder: str = ""
    baseline: Evaluation | None = None
    """mean pooling on the same patients"""
    simulated: bool = False

    @property
    def ranked_on(self) -> tuple[object, ...]:
        """What runs must share to be ranked against each other: metric, reported patients and their targets."""
        names = sorted(self.evaluation.reported.index)
        return (self.evaluation.endpoint.metric, tuple(names), targets(self.evaluation, names).numpy().tobytes())


def leaderboard(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row per run, best first within each group of the same patients, larger groups first.

    `behind` is the run minus the best of its group, `over_baseline` the run minus mean pooling, both on the same
    resamples, and whether they are shown to differ: the interval excludes zero and p is below 0.05, for `behind`
    adjusted for all pairs of runs, as the best one is chosen by the same patients. A run whose metric is not estimable
    has no rank. Resamples and seed are those of the group's first run.

    Args:
        entries: Runs of any tools.

    Returns:
        A table with the columns `COLUMNS`.
    """
    rows = [row for number, group in enumerate(groups(entries), start=1) for row in _ranked(number, group)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"rank": "Int64"})


def groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group runs that reported the same patients and targets, larger groups first."""
    by_patients: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        by_patients.setdefault(entry.ranked_on, []).append(entry)
    return sorted(by_patients.values(), key=lambda group: -len(group))


def against_best(entries: Sequence[Entry]) -> list[Comparison]:
    """Compare the best run of each group with every other run of it.

    The best run is chosen by the same patients: p values are adjusted for all pairs of runs.

    Raises:
        ConfigError: if a tool asks for a decision rule that does not exist.
    """
    comparisons = list[Comparison]()
    for group in groups(entries):
        models = _scored(group)
        order, adjustment = _order(models), _all_pairs(models)
        best = group[order[0]]
        for at in order[1:]:
            pair = compare(best.evaluation, group[at].evaluation, (best.name, group[at].name))
            comparisons.append(adjusted(pair, *adjustment.of(order[0], at, pair.p)) if len(group) > 2 else pair)
    return comparisons


@dataclass(frozen=True, eq=False)
class _Adjustment:
    """P values of all pairs of runs, adjusted for there being so many."""

    words: str
    p: NDArray[np.float64] | None
    """`(m, m)`; None: by Bonferroni"""
    pairs: int

    def of(self, first: int, second: int, p: float | None) -> tuple[float | None, str]:
        """Return the adjusted p value of two runs, and how it was adjusted."""
        if self.p is not None:
            return float(self.p[first, second]), self.words
        return (None if p is None else min(1.0, self.pairs * p)), self.words


def _all_pairs(models: Sequence[ScoredModel]) -> _Adjustment:
    """Return p values by the studentised range over shared folds, or by the largest deviation among resamples."""
    count = len(models)
    pairs = count * (count - 1) // 2
    shared = {(model.ratio, model.partition) for model in models}
    if all(model.ratio is None for model in models):
        upper = np.triu_indices(count, 1)
        values = np.array([model.sampled.value for model in models])
        samples = np.stack([model.sampled.samples for model in models], axis=1)
        adjusted_p = np.ones((count, count))
        adjusted_p[upper] = max_type_p(values[upper[0]] - values[upper[1]], samples[:, upper[0]] - samples[:, upper[1]])
        return _Adjustment("max-t of all pairs", np.fmin(adjusted_p, adjusted_p.T), pairs)
    if len(shared) == 1 and models[0].ratio is not None:
        by_fold = np.stack([model.sampled.folds for model in models], axis=1)
        return _Adjustment("studentised range of all pairs", all_pairs_p(by_fold, models[0].ratio), pairs)
    return _Adjustment("Bonferroni of all pairs", None, pairs)


def _scored(group: Sequence[Entry], resamples: int | None = None) -> list[ScoredModel]:
    """Return the metric of each run, all on the same resamples."""
    metric = group[0].evaluation.endpoint.metric
    return [each[metric] for each in scored_models([entry.evaluation for entry in group], resamples=resamples)]


def _order(models: Sequence[ScoredModel]) -> list[int]:
    """Return the places of the runs, best first."""
    return sorted(range(len(models)), key=lambda at: -_sortable(models[at].sampled.value))


def _ranked(number: int, group: Sequence[Entry]) -> Iterator[LeaderboardRow]:
    models, baselines = _scored(group), _baselines(group)
    order, adjustment = _order(models), _all_pairs(models)
    for rank, at in enumerate(order, start=1):
        entry, model, baseline = group[at], models[at], baselines[at]
        estimable = bool(np.isfinite(model.sampled.value))
        value, counts = _interval(model), entry.evaluation.counts
        behind = model.minus(models[order[0]], counts) if estimable and at != order[0] else None
        p = adjustment.of(at, order[0], None if behind is None else behind.p)[0] if len(group) > 2 else None
        yield LeaderboardRow(
            number,
            rank if estimable else None,
            entry.name,
            entry.evaluation.tool.name,
            entry.model,
            entry.encoder,
            counts["n"],
            ", ".join(f"{name} {count}" for name, count in counts.items() if name != "n"),
            entry.evaluation.endpoint.metric,
            value.value,
            value.low,
            value.high,
            *_difference(behind, p),
            *_difference(None if baseline is None else baseline[0].minus(baseline[1], counts)),
            entry.simulated,
        )


def _baselines(group: Sequence[Entry]) -> list[tuple[ScoredModel, ScoredModel] | None]:
    """Return each run and its baseline, on the same resamples; None for a run without a baseline."""
    metric = group[0].evaluation.endpoint.metric
    pairs = list[tuple[ScoredModel, ScoredModel] | None]()
    for entry in group:
        if entry.baseline is None:
            pairs.append(None)
            continue
        ours, theirs = scored_models([entry.evaluation, entry.baseline])
        pairs.append((ours[metric], theirs[metric]))
    return pairs


def _interval(model: ScoredModel) -> Estimate:
    estimate = model.sampled.interval(BOOTSTRAP)
    return estimate if model.area is None else area_estimate(model.area, estimate)


def _difference(difference: Estimate | None, p: float | None = None) -> tuple[Number, Number, Number, bool | None]:
    """Return value and bounds of a difference, and whether it is shown to be one."""
    if difference is None:
        return None, None, None, None
    low, high = difference.low, difference.high
    shown = None if low is None or high is None else bool(shown_sign(difference, p))
    return difference.value, low, high, shown


def _sortable(value: float) -> float:
    return value if np.isfinite(value) else -np.inf

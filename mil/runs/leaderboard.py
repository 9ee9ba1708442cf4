"""Rank many runs in one table; only runs that reported the same patients are ranked against each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from mil.report.comparison import BOOTSTRAP, Comparison, adjusted, compare, targets
from mil.report.evaluation import Evaluation
from mil.stats.bootstrap_intervals import Sampled, sampled
from mil.stats.estimate import Number


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

    @property
    def ranked_on(self) -> tuple[object, ...]:
        """What runs must share to be ranked against each other: metric, reported patients and their targets."""
        names = sorted(self.evaluation.reported.index)
        return (self.evaluation.endpoint.metric, tuple(names), targets(self.evaluation, names).numpy().tobytes())


def leaderboard(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row per run, best first within each group of the same patients, larger groups first.

    `behind` is the run minus the best of its group, `over_baseline` the run minus mean pooling, both on the same
    resamples, and whether their intervals exclude zero. A run whose metric is not estimable has no rank. Resamples and
    seed are those of the group's first run.

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
    """Compare the best run of each group with every other run of it, with Holm's correction of the p values.

    The best run is chosen by the same patients, so its lead is too large on average.

    Raises:
        ConfigError: if a tool asks for a decision rule that does not exist.
    """
    comparisons = list[Comparison]()
    for group in groups(entries):
        best, *others = _by_value(group)
        pairs = [compare(best.evaluation, entry.evaluation, (best.name, entry.name)) for entry in others]
        comparisons += adjusted(pairs)
    return comparisons


def _by_value(group: Sequence[Entry]) -> list[Entry]:
    values = [_sortable(metric.value) for metric, _ in _sampled_metrics(group, resamples=1)]
    return [group[at] for at in sorted(range(len(group)), key=lambda at: -values[at])]


def _ranked(number: int, group: Sequence[Entry]) -> Iterator[LeaderboardRow]:
    metrics = _sampled_metrics(group, group[0].evaluation.resamples)
    order = sorted(range(len(group)), key=lambda at: -_sortable(metrics[at][0].value))
    best, _ = metrics[order[0]]
    for rank, at in enumerate(order, start=1):
        entry, (metric, baseline) = group[at], metrics[at]
        estimable = bool(np.isfinite(metric.value))
        value = metric.interval(BOOTSTRAP)
        counts = entry.evaluation.counts
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
            *_difference(metric.minus(best) if estimable and at != order[0] else None),
            *_difference(None if baseline is None else metric.minus(baseline)),
        )


def _difference(sample: Sampled | None) -> tuple[Number, Number, Number, bool | None]:
    """Return value and bounds of a difference, and whether its interval excludes zero."""
    if sample is None:
        return None, None, None, None
    difference = sample.interval(BOOTSTRAP)
    low, high = difference.low, difference.high
    return difference.value, low, high, None if low is None or high is None else bool(low > 0 or high < 0)


def _sampled_metrics(group: Sequence[Entry], resamples: int) -> list[tuple[Sampled, Sampled | None]]:
    """Return each run's metric and its baseline's, all on the same resamples."""
    evaluations = [evaluation for entry in group for evaluation in (entry.evaluation, entry.baseline) if evaluation]
    scored_folds = [(evaluation.endpoint.score, evaluation.folds) for evaluation in evaluations]
    samples = iter(sampled(scored_folds, resamples, group[0].evaluation.seed))
    metric = group[0].evaluation.endpoint.metric
    return [(next(samples)[metric], None if entry.baseline is None else next(samples)[metric]) for entry in group]


def _sortable(value: float) -> float:
    return value if np.isfinite(value) else -np.inf

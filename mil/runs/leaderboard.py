"""Rank many runs in one table; only runs that reported the same patients are ranked against each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mil.report.comparison import BOOTSTRAP, Comparison, adjusted, compare, targets
from mil.report.evaluation import Evaluation
from mil.stats.bootstrap_intervals import Sampled, sampled
from mil.stats.estimate import Estimate

COLUMNS = (
    *("group", "rank", "run", "tool", "model", "encoder", "n", "counts", "metric", "value", "low", "high"),
    *("behind", "behind_low", "behind_high", "behind_zero_excluded"),
    *("over_baseline", "over_baseline_low", "over_baseline_high", "over_baseline_zero_excluded"),
)


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


def _ranked(number: int, group: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    metrics = _sampled_metrics(group, group[0].evaluation.resamples)
    order = sorted(range(len(group)), key=lambda at: -_sortable(metrics[at][0].value))
    best, _ = metrics[order[0]]
    for rank, at in enumerate(order, start=1):
        entry, (metric, baseline) = group[at], metrics[at]
        estimable = np.isfinite(metric.value)
        yield {
            **_description(number, entry),
            "rank": rank if estimable else None,
            **_columns("", metric),
            **_columns("behind", metric.minus(best) if estimable and at != order[0] else None),
            **_columns("over_baseline", None if baseline is None else metric.minus(baseline)),
        }


def _description(number: int, entry: Entry) -> dict[str, Any]:
    counts = entry.evaluation.counts
    return {
        "group": number,
        "run": entry.name,
        "tool": entry.evaluation.tool.name,
        "model": entry.model,
        "encoder": entry.encoder,
        "n": counts["n"],
        "counts": ", ".join(f"{name} {count}" for name, count in counts.items() if name != "n"),
        "metric": entry.evaluation.endpoint.metric,
    }


def _sampled_metrics(group: Sequence[Entry], resamples: int) -> list[tuple[Sampled, Sampled | None]]:
    """Return each run's metric and its baseline's, all on the same resamples."""
    evaluations = [evaluation for entry in group for evaluation in (entry.evaluation, entry.baseline) if evaluation]
    scored_folds = [(evaluation.endpoint.score, evaluation.folds) for evaluation in evaluations]
    samples = iter(sampled(scored_folds, resamples, group[0].evaluation.seed))
    metric = group[0].evaluation.endpoint.metric
    return [(next(samples)[metric], None if entry.baseline is None else next(samples)[metric]) for entry in group]


def _columns(name: str, sample: Sampled | None) -> dict[str, Any]:
    """Return value and bounds as columns, and for a difference also whether its interval excludes zero."""
    interval = Estimate(value=None) if sample is None else sample.interval(BOOTSTRAP)
    value, low, high = interval.value, interval.low, interval.high
    if not name:
        return {"value": value, "low": low, "high": high}
    excluded = None if low is None or high is None else bool(low > 0 or high < 0)
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_zero_excluded": excluded}


def _sortable(value: float) -> float:
    return value if np.isfinite(value) else -np.inf

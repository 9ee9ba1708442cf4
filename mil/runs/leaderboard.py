"""Many runs in one table: ranked where they reported the same patients, and never across."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mil.report.comparison import BOOTSTRAP, adjusted, compare, targets
from mil.report.evaluation import Evaluation
from mil.stats.bootstrap_intervals import Sampled, sampled
from mil.stats.estimate import Estimate

BASELINE = "mean pooling, linear"
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
    def patients(self) -> tuple[object, ...]:
        """What runs have to share to be ranked against each other: metric, reported patients and their targets."""
        names = sorted(self.evaluation.reported.index)
        return (self.evaluation.endpoint.metric, tuple(names), targets(self.evaluation, names).numpy().tobytes())


def leaderboard(entries: Sequence[Entry]) -> pd.DataFrame:
    """A row a run, best first within each group of the same patients, larger groups first.

    `behind` is the run minus the best of its group, `over_baseline` the run minus mean pooling, both on the same
    resamples, with whether their intervals leave out zero. A run whose metric is not estimable has no rank. Resamples
    and seed are those of the group's first run.

    Args:
        entries: Runs of any tools.

    Returns:
        The columns of `COLUMNS`.
    """
    rows = [row for number, group in enumerate(groups(entries), start=1) for row in _ranked(number, group)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"rank": "Int64"})


def groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Runs that reported the same patients of the same question, the larger groups first."""
    found: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.patients, []).append(entry)
    return sorted(found.values(), key=lambda group: -len(group))


def against_best(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Within each group the best run compared with every other, p-values after Holm where there are several.

    The best is chosen by the same patients, so that its lead is too large on average.

    Raises:
        ConfigError: a tool's rule that does not exist.
    """
    found = []
    for group in groups(entries):
        best, *others = _by_value(group)
        pairs = [compare(best.evaluation, one.evaluation, (best.name, one.name)) for one in others]
        found += adjusted(pairs)
    return found


def _by_value(group: Sequence[Entry]) -> list[Entry]:
    drawn = [one for one, _ in _drawn(group, resamples=1)]
    order = sorted(range(len(group)), key=lambda at: -_or_least(drawn[at].value))
    return [group[at] for at in order]


def _ranked(number: int, group: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    drawn = _drawn(group, group[0].evaluation.resamples)
    order = sorted(range(len(group)), key=lambda at: -_or_least(drawn[at][0].value))
    best = drawn[order[0]][0]
    for rank, at in enumerate(order, start=1):
        entry, (own, baseline) = group[at], drawn[at]
        known = np.isfinite(own.value)
        yield {
            **_described(number, entry),
            "rank": rank if known else None,
            **_flat("", own),
            **_flat("behind", own.minus(best) if known and at != order[0] else None),
            **_flat("over_baseline", None if baseline is None else own.minus(baseline)),
        }


def _described(number: int, entry: Entry) -> dict[str, Any]:
    counts = entry.evaluation.counts
    return {
        "group": number,
        "run": entry.name,
        "tool": str(entry.evaluation.tool.get("name", "")),
        "model": entry.model,
        "encoder": entry.encoder,
        "n": counts["n"],
        "counts": ", ".join(f"{name} {amount}" for name, amount in counts.items() if name != "n"),
        "metric": entry.evaluation.endpoint.metric,
    }


def _drawn(group: Sequence[Entry], resamples: int) -> list[tuple[Sampled, Sampled | None]]:
    """Each run's metric and its baseline's, all on the same resamples."""
    evaluations = [one for entry in group for one in (entry.evaluation, entry.baseline) if one is not None]
    parts = [(one.endpoint.score, one.folds) for one in evaluations]
    found = iter(sampled(parts, resamples, group[0].evaluation.seed))
    metric = group[0].evaluation.endpoint.metric
    return [(next(found)[metric], None if entry.baseline is None else next(found)[metric]) for entry in group]


def _flat(name: str, drawn: Sampled | None) -> dict[str, Any]:
    """Value and bounds as columns, and of a difference whether zero is left out."""
    estimate = Estimate(value=None) if drawn is None else drawn.interval(BOOTSTRAP)
    value, low, high = estimate.value, estimate.low, estimate.high
    if not name:
        return {"value": value, "low": low, "high": high}
    excluded = None if low is None or high is None else bool(low > 0 or high < 0)
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_zero_excluded": excluded}


def _or_least(value: float) -> float:
    return value if np.isfinite(value) else -np.inf

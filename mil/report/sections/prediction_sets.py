"""Conformal sets and intervals, of each fold's select patients or frozen: how often they hold the reported truth.

Folds are pooled, since a set is a decision. The interval of a coverage is that of these limits on further patients
like the reported ones; other select patients would give other limits, whose coverage has the spread of a
Beta(k, n + 1 - k) of its own, k the rank of n select patients.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.fitted import conformal
from mil.fitted.conformal import Conformal, Interval, Sets
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import intervals
from mil.stats.proportions import proportion
from mil.stats.weights import as_given, as_rows, ratio

Floats = NDArray[np.float64]


class _Held(NamedTuple):
    """One part's sets or intervals of the reported patients of all folds whose truth is known."""

    size: Floats
    """classes in the set, or width of the interval, `(p,)`"""
    right: NDArray[np.bool_]
    """the truth lies within, `(p,)`"""
    truth: NDArray[np.int64]
    """place of the true class, `(p,)`; zeros of a number"""


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """Coverage, size and emptiness of sets against what was asked; none where the tool asks for none.

    Keys: `coverage_asked`, `needed`, `on`, and `parts`: one for classes that exclude each other, one a label, or one of
    a number, each with its limits by fold.

    Raises:
        ConfigError: what the tool asks cannot be.
    """
    fitted = _fitted(evaluation)
    if not fitted:
        return None
    first = next(iter(fitted.values()))
    parts = []
    for place, part in enumerate(first.parts):
        held = [_held(fitted[fold].parts[place], place, rows, evaluation) for fold, rows in _once(evaluation)]
        pooled = _Held(*(np.concatenate(column) for column in zip(*held, strict=True)))
        cuts = [{"fold": fold, **one.model_dump()} for fold, own in fitted.items() for one in own.parts[place].limits]
        parts.append(_part(part, pooled, first.coverage, evaluation) | {"fitted": cuts})
    notes = [f"fold {fold}: {note}" for fold, own in fitted.items() for note in own.notes()]
    return {"coverage_asked": first.coverage, "needed": first.needed, "on": first.on, "parts": parts, "notes": notes}


def _fitted(evaluation: Evaluation) -> dict[Hashable, Conformal]:
    each = ((fold, evaluation.state(fold).conformal) for fold, _ in rows_of(evaluation.table, "report"))
    return {fold: own for fold, own in each if own is not None}


def _once(evaluation: Evaluation) -> Iterator[tuple[Hashable, pd.DataFrame]]:
    """Each fold's reported patients whom no earlier fold has."""
    yield from evaluation.reported.groupby("fold", sort=False)


def _held(part: Sets | Interval, place: int, rows: pd.DataFrame, evaluation: Evaluation) -> _Held:
    known = rows[evaluation.endpoint.known(rows)]
    if isinstance(part, Interval):
        true = evaluation.endpoint.encode(known).double().numpy()
        ends = part.apply(known)
        low, high = ends["low"].to_numpy(), ends["high"].to_numpy()
        return _Held(high - low, (low <= true) & (true <= high), np.zeros(len(true), dtype=np.int64))
    truth = conformal.truths(evaluation.endpoint, known)[place]
    members, there = part.members(known), truth >= 0
    inside = members[np.arange(len(truth)), truth]
    return _Held(members.sum(1).astype(np.float64)[there], inside[there], truth[there])


def _part(part: Sets | Interval, held: _Held, asked: float, evaluation: Evaluation) -> dict[str, Any]:
    coverage = _covered(held.right)
    found = {"method": part.method, "n": len(held.right), "coverage": coverage, "verdict": verdict(coverage, asked)}
    if isinstance(part, Interval):
        return {"name": None, "kind": "interval"} | found | {"mean_width": _mean(held.size, evaluation)}
    one, none = (int((held.size == classes).sum()) for classes in (1, 0))
    by_class = [
        {"class": name, "coverage": _covered(held.right[held.truth == at])} for at, name in enumerate(part.classes)
    ]
    sizes = {
        "mean_size": _mean(held.size, evaluation),
        "singletons": as_dict(proportion(one, len(held.size))),
        "empty": as_dict(proportion(none, len(held.size))),
        "by_class": by_class,
    }
    return {"name": part.name or None, "kind": "sets", "classes": list(part.classes)} | found | sizes


def _covered(right: NDArray[np.bool_]) -> dict[str, Any]:
    return as_dict(proportion(int(right.sum()), len(right)))


def verdict(coverage: Mapping[str, Any], asked: float) -> str:
    """What the exact interval of a coverage says of the one asked."""
    if coverage["value"] is None:
        return "not estimable"
    if coverage["exact"]["high"] < asked:
        return "below what was asked"
    return "above what was asked" if coverage["exact"]["low"] > asked else "as asked, within its interval"


def _mean(size: Floats, evaluation: Evaluation) -> dict[str, Any]:
    """With the interval of resampled patients."""
    endless = int(np.isinf(size).sum())
    if endless or not len(size):
        reason = f"{endless} of {len(size)} intervals have no end." if endless else "No reported patient is known."
        return {"value": None, "low": None, "high": None, "n": len(size), "reason": reason}
    one = Fold(torch.from_numpy(size).unsqueeze(1), torch.zeros(len(size)))
    found = intervals(_weighted_mean, [one], evaluation.resamples, evaluation.seed)["mean"]
    ends = {"value": found.value, "low": found.low, "high": found.high}
    return ends | {"level": found.level, "method": "percentile, patients resampled", "n": len(size)}


def _weighted_mean(size: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
    rows = as_rows(weight, len(target))
    return {"mean": as_given(ratio(rows @ size[:, 0].numpy(), rows.sum(1)), weight)}

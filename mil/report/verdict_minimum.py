"""How many patients a verdict needs: with fewer, intervals and p values are not to be trusted and none is given."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mil.endpoints.endpoint import Endpoint
from mil.stats.bootstrap import Fold

FEWEST_PATIENTS = 20
FEWEST_OF_EACH = 10
"""Positives, negatives, patients of a class, or events."""
MINIMUM = f"{FEWEST_PATIENTS} patients, and {FEWEST_OF_EACH} of each class or {FEWEST_OF_EACH} events"


def shortage(endpoint: Endpoint, folds: Sequence[Fold], metric: str) -> str | None:
    """Return why these patients allow no verdict by a metric, or None where they do.

    Args:
        endpoint: What is predicted.
        folds: The reported patients; one of several folds counts once.
        metric: Key of `Endpoint.score`.
    """
    rows = _first_of_each(folds)
    counts = {"patients": (sum(map(len, rows)), FEWEST_PATIENTS)}
    for name, amount in _of_each(endpoint, folds, rows, metric).items():
        counts[name] = (amount, FEWEST_OF_EACH)
    short = [f"{amount} {name}" for name, (amount, fewest) in counts.items() if amount < fewest]
    return f"too few for a verdict: {', '.join(short)}, expected {MINIMUM}" if short else None


def _of_each(
    endpoint: Endpoint, folds: Sequence[Fold], rows: Sequence[NDArray[np.intp]], metric: str
) -> dict[str, int]:
    targets = [fold.target[members] for fold, members in zip(folds, rows, strict=True)]
    if endpoint.survival is not None:
        codes = [endpoint.survival.event_times(target)[:, 1] for target in targets]
        return {"events": sum(int((code == 1).sum()) for code in codes)}
    rankings = [
        endpoint.rankings(fold.logits[members], target)
        for fold, members, target in zip(folds, rows, targets, strict=True)
    ]
    fewest = dict[str, int]()
    for name in [metric] if rankings and metric in rankings[0] else list(rankings[0] if rankings else []):
        for same in zip(*(each[name] for each in rankings), strict=True):
            truth = np.concatenate([ranking.truth for ranking in same])
            for side, answer in (("positives", 1), ("negatives", 0)):
                fewest[side] = min(fewest.get(side, len(truth)), int((truth == answer).sum()))
    return fewest


def _first_of_each(folds: Sequence[Fold]) -> list[NDArray[np.intp]]:
    """Return the rows of each fold whose patients no earlier fold has."""
    seen, rows = set[str](), []
    for fold in folds:
        names = [str(name) for name in np.asarray(fold.patients)]
        rows.append(np.array([at for at, name in enumerate(names) if name not in seen], dtype=np.intp))
        seen.update(names)
    return rows

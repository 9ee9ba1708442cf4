"""Conformal prediction sets and intervals: how often they contain the reported truth.

Folds are pooled, since a set is a decision. The interval of a coverage is that of these limits on further patients
like the reported ones; other select patients would give other limits, whose coverage has the spread of a
Beta(k, n + 1 - k) of its own, k the rank of n select patients.
"""

from collections.abc import Hashable, Iterator
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from mil.fitted import conformal
from mil.fitted.conformal import Conformal, Interval, Sets
from mil.report.evaluation import Evaluation
from mil.report.predictions import fold_name, rows_of
from mil.report.schema import Estimate, Model, Number, Section
from mil.stats.bootstrap import Floats, Fold
from mil.stats.bootstrap_intervals import intervals
from mil.stats.estimate import Bounds
from mil.stats.proportions import proportion
from mil.stats.weights import as_given, as_rows, ratio


class ClassCoverage(Model):
    """How often the sets of the patients of one class contain that class."""

    name: str
    coverage: Estimate


class FoldLimit(Model):
    """How far a patient of a fold may deviate to be covered."""

    fold: int | str
    of: str
    """the class that the limit is for; `all` for every class, `value` for a number"""
    n: int
    """select patients it was fitted to"""
    cut: Number
    """None: so few patients that nothing is left out"""


class PredictionSet(Model):
    """The sets of exclusive classes or of one label, or the intervals of a number."""

    name: str | None = None
    """the label; None where there is one set for each patient"""
    kind: Literal["sets", "interval"]
    classes: tuple[str, ...] = ()
    method: str
    n: int
    coverage: Estimate
    verdict: str
    mean_width: Estimate | None = None
    """of intervals"""
    mean_size: Estimate | None = None
    """classes in a set"""
    singletons: Estimate | None = Field(default=None, title="Sets of one class")
    empty: Estimate | None = Field(default=None, title="Empty sets")
    by_class: tuple[ClassCoverage, ...] = Field(default=(), title="Coverage by class")
    fitted: tuple[FoldLimit, ...] = Field(default=(), title="Limits by fold")


class PredictionSets(Section):
    """Coverage and size of conformal sets and intervals, against the coverage that the tool asks for."""

    key: ClassVar[str] = "conformal"
    title: ClassVar[str] = "Conformal prediction"
    explanation: ClassVar[str] = "Whether prediction sets or intervals contain the truth as often as was asked."
    not_applicable: ClassVar[str] = "The tool asks for no prediction sets."
    position: ClassVar[int] = 90

    coverage_asked: float
    needed: int = Field(title="Fewest select patients")
    """below which a limit leaves nothing out"""
    on: str = Field(title="Fitted on")
    parts: tuple[PredictionSet, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the section, or None where the tool asks for no sets or nothing was fitted."""
        fitted = _fitted(evaluation)
        if not fitted:
            return None
        first = next(iter(fitted.values()))
        return cls(
            coverage_asked=first.coverage,
            needed=first.needed,
            on=first.on,
            parts=tuple(_prediction_set(index, fitted, evaluation) for index in range(len(first.parts))),
            notes=tuple(f"fold {fold}: {note}" for fold, limits in fitted.items() for note in limits.notes()),
        )


class _Covered(NamedTuple):
    """The sets or intervals of the reported patients of all folds whose truth is known."""

    size: Floats
    """classes in the set, or width of the interval, `(p,)`"""
    right: NDArray[np.bool_]
    """whether the truth is inside, `(p,)`"""
    truth: NDArray[np.int64]
    """index of the true class, `(p,)`; zeros for a number"""


def _fitted(evaluation: Evaluation) -> dict[Hashable, Conformal]:
    by_fold = ((fold, evaluation.state(fold).conformal) for fold, _ in rows_of(evaluation.table, "report"))
    return {fold: conformal_limits for fold, conformal_limits in by_fold if conformal_limits is not None}


def _patients_by_fold(evaluation: Evaluation) -> Iterator[tuple[Hashable, pd.DataFrame]]:
    """Yield each fold's reported patients whom no earlier fold has."""
    yield from evaluation.reported.groupby("fold", sort=False)


def _prediction_set(index: int, fitted: dict[Hashable, Conformal], evaluation: Evaluation) -> PredictionSet:
    """Return what one of the fitted sets or intervals covers."""
    first = next(iter(fitted.values()))
    by_fold = [
        _covered(fitted[fold].parts[index], index, rows, evaluation) for fold, rows in _patients_by_fold(evaluation)
    ]
    covered = _Covered(*(np.concatenate(column) for column in zip(*by_fold, strict=True)))
    cuts = tuple(
        FoldLimit(fold=fold_name(fold), **limit.model_dump())
        for fold, conformal_limits in fitted.items()
        for limit in conformal_limits.parts[index].limits
    )
    part, n, coverage = first.parts[index], len(covered.right), _coverage(covered.right)
    verdict = coverage_verdict(coverage, first.coverage)
    mean = _mean(covered.size, evaluation)
    if isinstance(part, Interval):
        return PredictionSet(
            kind="interval", method=part.method, n=n, coverage=coverage, verdict=verdict, mean_width=mean, fitted=cuts
        )
    return PredictionSet(
        name=part.name or None,
        kind="sets",
        classes=tuple(part.classes),
        method=part.method,
        n=n,
        coverage=coverage,
        verdict=verdict,
        mean_size=mean,
        singletons=proportion(int((covered.size == 1).sum()), n),
        empty=proportion(int((covered.size == 0).sum()), n),
        by_class=tuple(
            ClassCoverage(name=name, coverage=_coverage(covered.right[covered.truth == index]))
            for index, name in enumerate(part.classes)
        ),
        fitted=cuts,
    )


def _covered(part: Sets | Interval, index: int, rows: pd.DataFrame, evaluation: Evaluation) -> _Covered:
    labelled = rows[evaluation.endpoint.has_target(rows)]
    if isinstance(part, Interval):
        true = evaluation.endpoint.encode(labelled).double().numpy()
        bounds = part.apply(labelled)
        low, high = bounds["low"].to_numpy(), bounds["high"].to_numpy()
        return _Covered(high - low, (low <= true) & (true <= high), np.zeros(len(true), dtype=np.int64))
    truth = conformal.truths(evaluation.endpoint, labelled)[index]
    members, has_label = part.members(labelled), truth >= 0
    inside = members[np.arange(len(truth)), truth]
    return _Covered(members.sum(1).astype(np.float64)[has_label], inside[has_label], truth[has_label])


def _coverage(right: NDArray[np.bool_]) -> Estimate:
    return proportion(int(right.sum()), len(right))


def coverage_verdict(coverage: Estimate, expected: float) -> str:
    """Return whether the exact interval of a coverage contains the coverage that the tool asks for, in words."""
    exact = coverage.second or Bounds(low=None, high=None, method="none")
    if exact.low is None or exact.high is None:
        return "not estimable"
    if exact.high < expected:
        return "below what was asked"
    return "above what was asked" if exact.low > expected else "as asked, within its interval"


def _mean(size: Floats, evaluation: Evaluation) -> Estimate:
    """Return the mean with the interval of resampled patients."""
    counts, endless = {"n": len(size)}, int(np.isinf(size).sum())
    if endless or not len(size):
        reason = f"{endless} of {len(size)} intervals have no end." if endless else "No reported patient is known."
        return Estimate.missing(reason, counts)
    patients = Fold(torch.from_numpy(size).unsqueeze(1), torch.zeros(len(size)))
    mean = intervals(_weighted_mean, [patients], evaluation.resamples, evaluation.seed, counts=counts)["mean"]
    return mean.model_copy(update={"method": "percentile, patients resampled", "folds": ()})


def _weighted_mean(size: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
    rows = as_rows(weight, len(target))
    return {"mean": as_given(ratio(rows @ size[:, 0].numpy(), rows.sum(1)), weight)}

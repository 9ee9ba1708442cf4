"""ROC curves: one a fold, their vertical average, and how far it moves with the patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mil.endpoints.classification import Binary, Multiclass
from mil.evaluation.bootstrap import Floats, Fold, draws
from mil.evaluation.style import COLOURS, GREY, compared, interval
from mil.metrics import auroc

GRID = np.linspace(0, 1, 201)
RESAMPLES = 500
"""Of the band: enough for a line that is drawn."""


@dataclass(frozen=True)
class Curves:
    """True positive rates of one question at the false positive rates of the grid, `g` points."""

    folds: Floats
    """`(f, g)`, of the folds that have both classes."""
    area: float
    """Mean of the folds' AUROC."""
    low: Floats
    """`(g,)`, the 95% bootstrap band of the mean curve, point by point."""
    high: Floats


def curves(folds: Sequence[Fold], column: int, label: int, seed: int = 0) -> Curves | None:
    """The curves of logit `column` for class `label` against the rest; none where no fold has both."""
    solvable = [fold for fold in folds if len(np.unique(fold.target.numpy() == label)) == 2]
    if not solvable:
        return None
    questions = [(fold.logits[:, column].double().numpy(), fold.target.numpy() == label) for fold in solvable]
    drawn = [
        np.mean([_rates(*question, weight) for question, weight in zip(questions, weights, strict=True)], axis=0)
        for weights in draws(solvable, RESAMPLES, seed)
    ]
    low, high = np.nanquantile(np.concatenate(drawn), [0.025, 0.975], axis=0)
    area = float(np.mean([auroc(*question) for question in questions]))
    return Curves(np.concatenate([_rates(*question) for question in questions]), area, low, high)


def _rates(score: Floats, positive: NDArray[np.bool_], weight: Floats | None = None) -> Floats:
    """True positive rates at the grid, `(r, g)` for weights `(r, p)`; NaN where a resample lost a class."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]), 1))  # patients of one score are called together
    weight = (np.ones((1, len(score))) if weight is None else weight)[:, order]
    true, false = (_shares(weight * side[order], ends) for side in (positive, ~positive))
    return np.stack([np.interp(GRID, *rates) for rates in zip(false, true, strict=True)])


def _shares(weight: Floats, ends: NDArray[np.intp]) -> Floats:
    """The share of a class that is called at each cut, from none to all, `(r, cuts + 1)`."""
    called = np.pad(weight.cumsum(1)[:, ends], ((0, 0), (1, 0)))
    total = called[:, -1:]
    return called / np.where(total > 0, total, np.nan)


def draw_binary(axes: Axes, folds: Sequence[Fold], endpoint: Binary, report: Mapping[str, Any]) -> None:
    """A thin line a fold, the mean with its band, the chance line, and the numbers of the report."""
    _frame(axes)
    found = curves(folds, 0, 1)
    if found is None:
        axes.plot([], [], color=COLOURS[0], label=_summary(endpoint, report))
        axes.legend(loc="lower right")
        return
    for number, rates in enumerate(found.folds if len(found.folds) > 1 else ()):
        _line(axes, rates, color=GREY, linewidth=0.6, alpha=0.7, label="single folds" if number == 0 else None)
    axes.fill_between(GRID, found.low, found.high, color=COLOURS[0], alpha=0.18, linewidth=0, label="95% band")
    _line(axes, found.folds.mean(axis=0), color=COLOURS[0], label=_summary(endpoint, report))
    lines, names = axes.get_legend_handles_labels()
    axes.legend(
        lines[::-1], names[::-1], loc="lower right", title="\n".join(compared(report, "auroc")), alignment="left"
    )


def draw_multiclass(axes: Axes, folds: Sequence[Fold], endpoint: Multiclass, report: Mapping[str, Any]) -> None:
    """The mean curve of each class against the rest."""
    _frame(axes)
    styles = ("-", "--", "-.", ":")
    for at, name in enumerate(endpoint.classes):
        found = curves(folds, at, at)
        if found is not None:
            label = f"{name}: {found.area:.2f}, {report['patients'][name]} of {report['patients']['n']}"
            turn = styles[at // len(COLOURS) % len(styles)]
            _line(axes, found.folds.mean(axis=0), color=COLOURS[at % len(COLOURS)], linestyle=turn, label=label)
    axes.set_title(f"Macro AUROC {interval(report['metrics']['macro_auroc'])}, {_folds(report)}", loc="left")
    notes = [*compared(report, "macro_auroc"), "one class against the rest: AUROC, patients"]
    axes.legend(loc="lower right", title="\n".join(notes), alignment="left")


def _frame(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="chance")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set(xlabel="False positive rate (1 − specificity)", ylabel="True positive rate (sensitivity)")


def _line(axes: Axes, rates: Floats, **look: Any) -> None:
    axes.plot(np.append(0, GRID), np.append(0, rates), **look)


def _summary(endpoint: Binary, report: Mapping[str, Any]) -> str:
    patients = report["patients"]
    positives = f"{patients[endpoint.positive]} of {patients['n']} positive"
    return f"AUROC {interval(report['metrics']['auroc'])}\n{positives}, {_folds(report)}"


def _folds(report: Mapping[str, Any]) -> str:
    return "1 fold" if report["folds"] == 1 else f"{report['folds']} folds"

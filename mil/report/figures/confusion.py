"""Confusion matrices: what was called of patients of each class."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mil.report.evaluation import Evaluation
from mil.report.figures.style import canvas, short


class Matrix(NamedTuple):
    """Patients by their class and by what was called."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: NDArray[np.float64]


def confusion(evaluation: Evaluation, report: Mapping[str, Any]) -> Figure | None:
    """Counts and shares of each row: at each frozen decision where there are any, else by the likeliest class."""
    found = _matrices(report)
    if not found:
        return None
    columns = 1 if len(found) == 1 else 2
    rows = -(-len(found) // columns)
    figure = canvas(rows * (1.1 + 0.55 * max(2, *(len(one.rows) for one in found))))
    for at, one in enumerate(found):
        draw_matrix(figure.add_subplot(rows, columns, at + 1), one)
    return figure


def draw_matrix(axes: Axes, matrix: Matrix) -> None:
    """A cell a pair: count, and share of its row by darkness and in words."""
    title, rows, columns, counts = matrix
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect=0.6)
    for (row, column), amount in np.ndenumerate(counts):
        dark = "white" if share[row, column] > 0.55 else "black"
        said = f"{int(amount)}\n{share[row, column]:.0%}" if total[row, 0] else "0\n–"
        axes.text(column, row, said, ha="center", va="center", color=dark, fontsize=8)
    axes.set_xticks(range(len(columns)), [short(name, 16) for name in columns], rotation=0 if len(columns) < 7 else 45)
    axes.set_yticks(
        range(len(rows)), [f"{short(name, 20)} ({int(n)})" for name, n in zip(rows, total[:, 0], strict=True)]
    )
    axes.set(xlabel="Called", ylabel="True (patients)", anchor="W")
    axes.set_title(f"{title}, {int(counts.sum())} patients")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _matrices(report: Mapping[str, Any]) -> list[Matrix]:
    decisions = (report.get("operating_points") or {}).get("decisions") or []
    decided = [one for one in decisions if one.get("confusion")]
    if len(decided) == 1:
        return [_read(decided[0]["confusion"], "Calls at the frozen decision")]
    if decided:
        return [_read(one["confusion"], f"{short(str(one['name']), 16)}: calls") for one in decided]
    found = (report.get("discrimination") or {}).get("confusion")
    return [_read(found, "Likeliest class")] if found else []


def _read(found: Mapping[str, Any], title: str) -> Matrix:
    """`classes` name the rows; `calls` the columns where they differ."""
    rows = [str(name) for name in found["classes"]]
    columns = [str(name) for name in found.get("calls", rows)]
    return Matrix(title, rows, columns, np.asarray(found["rows"], dtype=np.float64))

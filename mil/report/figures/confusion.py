"""Confusion matrices: what was called of patients of each class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mil.report.evaluation import Evaluation
from mil.report.figures.style import canvas, short
from mil.report.schema import Confusion, Report
from mil.report.sections.discrimination import Discrimination
from mil.report.sections.operating_points import OperatingPoints


class Matrix(NamedTuple):
    """Patients by their class and by what was called."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: NDArray[np.float64]


def confusion(evaluation: Evaluation, report: Report) -> Figure | None:
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


def _matrices(report: Report) -> list[Matrix]:
    points, areas = report.section(OperatingPoints), report.section(Discrimination)
    decisions = () if points is None else points.decisions
    decided = [(point.name, point.confusion) for point in decisions if point.confusion is not None]
    if len(decided) == 1:
        return [_matrix(decided[0][1], "Calls at the frozen decision")]
    if decided:
        return [_matrix(counts, f"{short(name, 16)}: calls") for name, counts in decided]
    if areas is None or areas.confusion is None:
        return []
    return [_matrix(areas.confusion, "Likeliest class")]


def _matrix(counts: Confusion, title: str) -> Matrix:
    return Matrix(title, counts.classes, counts.calls, np.asarray(counts.rows, dtype=np.float64))

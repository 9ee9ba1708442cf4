"""Confusion matrices: what was called of patients of each class."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.figures.style import canvas, in_lines, short
from mil.report.schema import Confusion


def confusion(matrices: Sequence[tuple[str, Confusion]]) -> Figure | None:
    """Draw counts and shares of each row of matrices with their titles; None without any."""
    if not matrices:
        return None
    columns = 1 if len(matrices) == 1 else 2
    rows = -(-len(matrices) // columns)
    figure = canvas(rows * (1.2 + 0.48 * max(2, *(len(matrix.rows) for _, matrix in matrices))))
    for index, (title, matrix) in enumerate(matrices):
        draw_matrix(figure.add_subplot(rows, columns, index + 1), title, matrix)
    return figure


def draw_matrix(axes: Axes, title: str, matrix: Confusion) -> None:
    """Draw a cell for each pair: count, and share of its row by darkness and in words."""
    counts = np.asarray(matrix.rows, dtype=np.float64)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.55 else "black"
        text = f"{int(count)}\n{share[row, column]:.0%}" if total[row, 0] else "0\n–"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    turn = len(matrix.calls) > 5 and max(map(len, matrix.calls)) > 8
    calls = [short(name, 20) if turn else in_lines(name, max(10, 48 // len(matrix.calls))) for name in matrix.calls]
    turned: Mapping[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if turn else {}
    axes.set_xticks(range(len(calls)), calls, **turned)
    names = [f"{in_lines(name, 18)} ({int(n)})" for name, n in zip(matrix.classes, total[:, 0], strict=True)]
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="Called", ylabel="True (patients)")
    axes.set_title(f"{title}, {int(counts.sum())} patients")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def within_one(matrix: Confusion) -> float:
    """Return the share of patients whose ordered class is called right or as its neighbour."""
    counts = np.asarray(matrix.rows, dtype=np.float64)
    row, column = np.indices(counts.shape)
    return float(counts[abs(row - column) <= 1].sum() / counts.sum())

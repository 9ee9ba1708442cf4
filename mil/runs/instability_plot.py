"""Draw the predictions of several models for the same patients: Riley and Collins's instability plot."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.figures.style import COLOURS, GREY, canvas, short
from mil.stats.instability import Floats, prediction_instability

_HEIGHT = 2.9


def draw_instability(matrices: Mapping[str, Floats], simulated: bool) -> Figure:
    """Draw for each number the models' predictions against their mean, and each patient's mean absolute error.

    Args:
        matrices: Predictions by model and patient, `(m, p)`, by name.
        simulated: Whether the patients are simulated, which the title says.
    """
    figure = canvas(_HEIGHT * len(matrices))
    axes = figure.subplots(len(matrices), 2, squeeze=False)
    for (left, right), (name, matrix) in zip(axes, matrices.items(), strict=True):
        _draw(left, right, short(name, 24), matrix)
    patients = "simulated patients" if simulated else "patients"
    figure.suptitle(f"Prediction instability: models not trained on the {patients}", fontsize=9, x=0.01, ha="left")
    return figure


def _draw(left: Axes, right: Axes, name: str, matrix: Floats) -> None:
    result = prediction_instability(matrix)
    mean = np.broadcast_to(result.mean, matrix.shape)
    drawn = np.isfinite(matrix) & np.isfinite(mean)
    ends = [float(np.min(matrix[drawn])), float(np.max(matrix[drawn]))]
    left.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    left.plot(mean[drawn], matrix[drawn], "o", color=COLOURS[0], markersize=2.5, alpha=0.4, markeredgewidth=0)
    left.set(xlabel=f"{name}: mean of the models", ylabel="Each model")
    right.plot(result.mean, result.error, "o", color=COLOURS[1], markersize=3, alpha=0.5, markeredgewidth=0)
    right.set(xlabel=f"{name}: mean of the models", ylabel="Mean absolute error")
    right.set_ylim(bottom=0)

"""Net benefit over the thresholds at which a patient would be treated. Vickers and Elkin, Med Decis Making 26, 2006."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.figures.style import COLOURS, GREY, LINES, floats, panels, shared_legend, short
from mil.report.sections.utility import DecisionCurve


def decision_curve(curves: Sequence[DecisionCurve]) -> Figure | None:
    """Draw a panel for each question or horizon that has a curve; None without any."""
    drawn = [curve for curve in curves if curve.model is not None]
    if not drawn:
        return None
    figure, all_axes = panels(len(drawn))
    for axes, curve in zip(all_axes, drawn, strict=True):
        draw_benefit(axes, curve)
    shared_legend(figure, all_axes)
    return figure


def draw_benefit(axes: Axes, curve: DecisionCurve) -> None:
    """Draw lines over the thresholds; strategies much worse than treating nobody run out of the picture."""
    thresholds = floats(curve.thresholds)
    everybody = floats(curve.all)
    top = float(np.nanmax(everybody))
    if curve.model is not None:
        model = floats(curve.model.value)
        low, high = floats(curve.model.low), floats(curve.model.high)
        axes.plot(thresholds, model, color=COLOURS[0], linestyle=LINES[0], linewidth=1.8, label="model")
        axes.fill_between(thresholds, low, high, color=COLOURS[0], alpha=0.18, linewidth=0)
        top = max(top, float(np.nanmax(model)))
    if curve.clinical is not None:
        clinical = floats(curve.clinical.value)
        axes.plot(thresholds, clinical, color=COLOURS[1], linestyle=LINES[1], linewidth=1.4, label="clinical variables")
    axes.plot(thresholds, everybody, color=GREY, linestyle=LINES[2], linewidth=1.2, label="call everybody")
    axes.axhline(0, color="black", linewidth=0.8, label="call nobody")
    axes.set(ylim=(-0.3 * max(top, 0.01), 1.1 * max(top, 0.01)), xlim=(thresholds.min(), thresholds.max()))
    axes.set(xlabel="Threshold probability", ylabel="Net benefit")
    if curve.horizon is not None:
        axes.set_title(f"risk at {curve.horizon}: {curve.events} events of {curve.n}")
    else:
        axes.set_title(f"{short(curve.name, 22)}: {curve.positives} of {curve.n}")

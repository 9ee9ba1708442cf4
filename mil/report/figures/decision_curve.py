"""Net benefit over the thresholds at which a patient would be treated. Vickers and Elkin, Med Decis Making 26, 2006."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, LINES, panels, shared_legend, short
from mil.report.schema import Report
from mil.report.sections.utility import DecisionCurve, Utility
from mil.stats.bootstrap import Floats


def decision_curve(evaluation: Evaluation, report: Report) -> Figure | None:
    """A panel a question or horizon: model, all, none, and the clinical baseline where the report has it."""
    section = report.section(Utility)
    curves = [] if section is None else [curve for curve in section.questions or section.horizons if curve.thresholds]
    if not curves:
        return None
    figure, every = panels(len(curves))
    for axes, curve in zip(every, curves, strict=True):
        draw_benefit(axes, curve)
    shared_legend(figure, every)
    return figure


def draw_benefit(axes: Axes, curve: DecisionCurve) -> None:
    """Lines over the thresholds; strategies much worse than doing nothing run out of the picture."""
    at, everybody = _floats(curve.thresholds), _floats(curve.all)
    lines = [
        (curve.model, "model", COLOURS[0], LINES[0], 1.8),
        (curve.clinical, "clinical variables", COLOURS[1], LINES[1], 1.4),
    ]
    for band, name, colour, line, width in lines:
        if band is not None:
            axes.plot(at, _floats(band.value), color=colour, linestyle=line, linewidth=width, label=name)
    axes.plot(at, everybody, color=GREY, linestyle=LINES[2], linewidth=1.2, label="call everybody")
    axes.axhline(0, color="black", linewidth=0.8, label="call nobody")
    top = float(np.nanmax(everybody))
    if (model := curve.model) is not None:
        axes.fill_between(at, _floats(model.low), _floats(model.high), color=COLOURS[0], alpha=0.18, linewidth=0)
        top = max(top, float(np.nanmax(_floats(model.value))))
    axes.set(ylim=(-0.3 * max(top, 0.01), 1.1 * max(top, 0.01)), xlim=(at.min(), at.max()))
    axes.set(xlabel="Threshold probability", ylabel="Net benefit")
    if curve.horizon is not None:
        axes.set_title(f"risk at {curve.horizon}: {curve.events} events of {curve.n}")
    else:
        axes.set_title(f"{short(curve.name, 22)}: {curve.positives} of {curve.n}")


def _floats(values: Sequence[float | None]) -> Floats:
    return np.asarray(values, dtype=np.float64)

"""Predicted against true numbers, and their difference against their mean."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, LINES, canvas, folds, interval, minus
from mil.report.schema import Report
from mil.report.sections.calibration import Calibration
from mil.stats.bootstrap import Floats


def regression(evaluation: Evaluation, report: Report) -> Figure | None:
    """Return a scatter plot, and one with Bland-Altman's limits of agreement (Lancet 1986); None without values."""
    endpoint = evaluation.endpoint
    if endpoint.value_column is None:
        return None
    [column] = endpoint.columns
    value = evaluation.reported[endpoint.value_column].to_numpy(np.float64)
    true = endpoint.encode(evaluation.reported).double().numpy()
    unit = f" ({endpoint.unit})" if endpoint.unit else ""
    figure = canvas(3.5)
    left, right = figure.subplots(1, 2)
    draw_scatter(left, value, true, report)
    left.set(xlabel=f"Predicted {column}{unit}", ylabel=f"True {column}{unit}")
    draw_agreement(right, value, true)
    right.set(xlabel=f"Mean of predicted and true{unit}", ylabel=f"Predicted − true{unit}")
    metrics = report.metrics
    words = f"R² {interval(metrics.get('r2'))}, mean absolute error {interval(metrics.get('mae'))}"
    figure.suptitle(f"{words}, {report.patients['n']} patients, {folds(report)}", fontsize=9.5, x=0.01, ha="left")
    return figure


def draw_scatter(axes: Axes, value: Floats, true: Floats, report: Report) -> None:
    """A point a patient, the line where both agree, and the smooth calibration where the report has it."""
    ends = [min(value.min(), true.min()), max(value.max(), true.max())]
    axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="agreement")
    axes.plot(value, true, "o", color=COLOURS[0], markersize=3.5, alpha=0.6, markeredgewidth=0)
    section = report.section(Calibration)
    if section is not None and section.predicted_value is not None and (curve := section.predicted_value.curve):
        x, y, low, high = (np.asarray(values, np.float64) for values in (curve.x, curve.y, curve.low, curve.high))
        axes.plot(x, y, color=COLOURS[1], label="calibration, 95% band")
        axes.fill_between(x, low, high, color=COLOURS[1], alpha=0.18, linewidth=0)
    axes.legend(loc="upper left")


def draw_agreement(axes: Axes, value: Floats, true: Floats) -> None:
    """A point a patient; bias and bias ± 1.96 standard deviations of the differences."""
    difference = value - true
    bias, spread = float(difference.mean()), float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    axes.plot((value + true) / 2, difference, "o", color=COLOURS[0], markersize=3.5, alpha=0.6, markeredgewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    for height, name in ((bias, "bias"), (bias + 1.96 * spread, "+1.96 SD"), (bias - 1.96 * spread, "−1.96 SD")):
        line = LINES[0] if name == "bias" else LINES[1]
        axes.axhline(height, color=COLOURS[1], linewidth=1.2, linestyle=line)
        place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "fontsize": 8}
        axes.annotate(
            f"{name}\n{minus(f'{height:.3g}')}", (1, height), (4, 0), ha="left", va="center", color=COLOURS[1], **place
        )
    axes.margins(y=0.12)

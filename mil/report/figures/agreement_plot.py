"""Predicted against true numbers, and their difference against their mean."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, LINES, canvas, count_folds, floats, interval, minus
from mil.report.schema import Curve, Report
from mil.report.sections.calibration import Calibration
from mil.stats.bootstrap import Floats


def agreement(evaluation: Evaluation, report: Report) -> Figure | None:
    """Draw a scatter, and Bland-Altman's limits of agreement (Lancet 1986); None where no value is predicted."""
    endpoint = evaluation.endpoint
    if endpoint.value_column is None:
        return None
    value = evaluation.reported[endpoint.value_column].to_numpy(np.float64)
    true = endpoint.encode(evaluation.reported).double().numpy()
    name, unit = endpoint.columns[0], f" ({endpoint.unit})" if endpoint.unit else ""
    figure = canvas(3.5)
    left, right = figure.subplots(1, 2)
    calibration = report.section(Calibration)
    predicted = None if calibration is None else calibration.predicted_value
    draw_scatter(left, value, true, None if predicted is None else predicted.curve)
    left.set(xlabel=f"Predicted {name}{unit}", ylabel=f"True {name}{unit}")
    draw_differences(right, value, true)
    right.set(xlabel=f"Mean of predicted and true{unit}", ylabel=f"Predicted − true{unit}")
    r2, error = (interval(report.metrics.get(metric)) for metric in ("r2", "mae"))
    words = f"R² {r2}, mean absolute error {error}, {report.patients['n']} patients, {count_folds(report)}"
    figure.suptitle(words, fontsize=9, x=0.01, ha="left")
    return figure


def draw_scatter(axes: Axes, value: Floats, true: Floats, curve: Curve | None) -> None:
    """Draw a point for each patient, the line where both agree, and the smooth calibration where there is one."""
    ends = [min(value.min(), true.min()), max(value.max(), true.max())]
    axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="agreement")
    axes.plot(value, true, "o", color=COLOURS[0], markersize=3.5, alpha=0.6, markeredgewidth=0)
    if curve is not None:
        predicted = floats(curve.x)
        axes.plot(predicted, floats(curve.y), color=COLOURS[1], label="calibration, 95% band")
        axes.fill_between(predicted, floats(curve.low), floats(curve.high), color=COLOURS[1], alpha=0.18, linewidth=0)
    axes.legend(loc="upper left")


def draw_differences(axes: Axes, value: Floats, true: Floats) -> None:
    """Draw a point for each patient; bias and bias ± 1.96 standard deviations of the differences."""
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

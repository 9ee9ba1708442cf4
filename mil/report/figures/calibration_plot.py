"""Observed against predicted: of probabilities, with and without recalibration, and of risks at a horizon."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, LINES, floats, interval, panels, shared_legend, short
from mil.report.schema import Curve, Number
from mil.report.sections.calibration import QuestionCalibration
from mil.report.sections.horizon import HorizonCalibration
from mil.report.sections.pooled import CalibrationBin

_EDGES = np.linspace(0, 1, 31)
IN_TWO_COLUMNS, CROWDED = 4, 6.8
"""Panels that stand in two columns, and the size of titles in points where there are more, in three."""
_LOWEST_TOP = 0.02
"""Where the axes of risks end that are lower still."""


def calibration(evaluation: Evaluation, calibrations: Sequence[QuestionCalibration]) -> Figure | None:
    """Draw a panel for each question, with the distribution of its predictions; None without questions."""
    if not calibrations:
        return None
    questions = {question.name: question for question in evaluation.questions}
    figure, all_axes = panels(len(calibrations), height=3.4)
    for axes, question in zip(all_axes, calibrations, strict=True):
        draw_question(axes, question, CROWDED if len(calibrations) > IN_TWO_COLUMNS else None)
        draw_histogram(axes, questions[question.name], evaluation)
        axes.set(xlabel="Predicted probability", ylabel=f"Share of {short(question.name, 18)}")
    shared_legend(figure, all_axes)
    return figure


def calibration_horizon(horizons: Sequence[HorizonCalibration]) -> Figure | None:
    """Draw a panel for each horizon: fifths of the patients and the smooth curve; None without horizons."""
    if not horizons:
        return None
    figure, all_axes = panels(len(horizons), height=3.2)
    for axes, horizon in zip(all_axes, horizons, strict=True):
        draw_horizon(axes, horizon)
    shared_legend(figure, all_axes)
    return figure


def draw_question(axes: Axes, question: QuestionCalibration, size: float | None = None) -> None:
    """Draw the smooth curve with its band, bins of patients with intervals, and the curve after recalibration.

    Args:
        axes: Of one question.
        question: Its calibration.
        size: Of the title, in points.
    """
    _diagonal(axes, 1.0)
    _smooth(axes, question.curve, "model, 95% band")
    _points(axes, question.bins)
    if question.calibrated is not None:
        _after(axes, question.calibrated.curve, f"after {question.calibrated.method}")
    counts = f"{question.positives} of {question.n}"
    axes.set_title(f"{short(question.name, 22)}\n{counts}\nslope {interval(question.slope)}", fontsize=size)


def draw_histogram(axes: Axes, question: Question, evaluation: Evaluation) -> None:
    """Draw the distribution of the predictions below the diagonal: positives above the line, negatives below it."""
    score, truth = question.probability(evaluation.reported), question.truth(evaluation.reported)
    baseline, height = -0.2, 0.13
    axes.axhline(baseline, color=GREY, linewidth=0.6)
    bars = [np.histogram(score[truth == answer], _EDGES)[0].astype(np.float64) for answer in (1, 0)]
    highest = max(float(bar.max()) for bar in bars) or 1.0
    for bar, sign, colour in zip(bars, (1, -1), (COLOURS[1], GREY), strict=True):
        heights = sign * height * bar / highest
        axes.bar(_EDGES[:-1], heights, 1 / 30, baseline, align="edge", color=colour, linewidth=0, alpha=0.85)
    axes.set(ylim=(baseline - height - 0.02, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1])


def draw_horizon(axes: Axes, horizon: HorizonCalibration) -> None:
    """Draw curves and fifths on axes that end a little above the highest risk, however low it is."""
    after = None if horizon.calibrated is None else horizon.calibrated.curve
    curves = [curve for curve in (horizon.curve, after) if curve is not None]
    heights: list[Number] = [_LOWEST_TOP, *(value for curve in curves for value in (*curve.x, *curve.y))]
    heights += [fifth.observed.high for fifth in horizon.quintiles]
    top = min(1.0, 1.05 * max(height for height in heights if height is not None))
    _diagonal(axes, top)
    _smooth(axes, horizon.curve, "smooth, 95% band")
    _after(axes, after, "recalibrated")
    _points(axes, horizon.quintiles)
    counts = f"{horizon.events} events, {horizon.n} patients"
    axes.set_title(f"risk at {horizon.horizon}\n{counts}\nO/E {interval(horizon.observed_expected)}")
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="Predicted risk", ylabel="Observed risk")


def _diagonal(axes: Axes, top: float) -> None:
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="perfect")
    axes.set(xlim=(-0.01 * top, 1.01 * top), ylim=(-0.01 * top, 1.01 * top))


def _smooth(axes: Axes, curve: Curve | None, name: str) -> None:
    if curve is None:
        return
    predicted = floats(curve.x)
    if curve.low and curve.high:
        axes.fill_between(predicted, floats(curve.low), floats(curve.high), color=COLOURS[0], alpha=0.18, linewidth=0)
    axes.plot(predicted, floats(curve.y), color=COLOURS[0], label=name)


def _after(axes: Axes, curve: Curve | None, name: str) -> None:
    """Draw the smooth curve after recalibration, where there is one."""
    if curve is not None:
        axes.plot(floats(curve.x), floats(curve.y), color=COLOURS[1], linestyle=LINES[1], label=name)


def _points(axes: Axes, bins: Sequence[CalibrationBin]) -> None:
    defined = [group for group in bins if group.observed.value is not None]
    if not defined:
        return
    observed = floats([group.observed.value for group in defined])
    low, high = floats([group.observed.low for group in defined]), floats([group.observed.high for group in defined])
    axes.errorbar(
        floats([group.predicted for group in defined]),
        observed,
        np.stack([np.nan_to_num(observed - low), np.nan_to_num(high - observed)]).clip(min=0),
        fmt="o",
        label="equal groups of patients",
        markersize=4,
        markerfacecolor="white",
        elinewidth=0.8,
        color=COLOURS[0],
    )

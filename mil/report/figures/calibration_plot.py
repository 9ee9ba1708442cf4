"""Observed against predicted: of probabilities, with and without recalibration, and of risks at a horizon."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, LINES, interval, panels, shared_legend, short
from mil.report.schema import Curve, Report
from mil.report.sections.calibration import Calibration, QuestionCalibration
from mil.report.sections.horizon import HorizonCalibration
from mil.report.sections.pooled import CalibrationBin
from mil.report.sections.time_to_event import TimeToEvent
from mil.stats.bootstrap import Floats

_BARS = np.linspace(0, 1, 31)


def calibration(evaluation: Evaluation, report: Report) -> Figure | None:
    """Return a panel per question, with a strip of the predictions; None without a calibration."""
    section = report.section(Calibration)
    results = {} if section is None else {each.name: each for each in section.questions}
    questions = [question for question in evaluation.questions if question.name in results]
    if not questions:
        return None
    figure, every = panels(len(questions), height=3.4)
    for axes, question in zip(every, questions, strict=True):
        draw_question(axes, results[question.name])
        draw_strip(axes, question, evaluation)
        axes.set(xlabel="Predicted probability", ylabel=f"Share of {short(question.name, 18)}")
    shared_legend(figure, every)
    return figure


def calibration_horizon(evaluation: Evaluation, report: Report) -> Figure | None:
    """Return a panel per horizon: fifths of the patients and the smooth curve; None without predicted risks."""
    section = report.section(TimeToEvent)
    if section is None or not section.calibration:
        return None
    figure, every = panels(len(section.calibration), height=3.2)
    for axes, horizon in zip(every, section.calibration, strict=True):
        draw_horizon(axes, horizon)
    shared_legend(figure, every)
    return figure


def draw_question(axes: Axes, question: QuestionCalibration) -> None:
    """Draw the smooth curve with its band, bins of patients with their intervals, and the recalibrated curve."""
    after = question.calibrated
    _diagonal(axes, 1.0)
    _smooth(axes, question.curve, COLOURS[0], "model, 95% band")
    _points(axes, question.bins, COLOURS[0])
    _after(axes, None if after is None else after.curve, f"after {'recalibration' if after is None else after.method}")
    title = f"{short(question.name, 20)}: {question.positives} of {question.n}"
    axes.set_title(f"{title}\nslope {interval(question.slope)}")


def draw_strip(axes: Axes, question: Question, evaluation: Evaluation) -> None:
    """How the predictions lie, under the diagonal's foot: patients who are above, who are not below the line."""
    score, truth = question.probability(evaluation.reported), question.truth(evaluation.reported)
    foot, tall = -0.2, 0.13
    axes.axhline(foot, color=GREY, linewidth=0.6)
    bars = [np.histogram(score[truth == answer], _BARS)[0].astype(np.float64) for answer in (1, 0)]
    most = max(float(bar.max()) for bar in bars) or 1.0
    for bar, way, colour in zip(bars, (1, -1), (COLOURS[1], GREY), strict=True):
        axes.bar(_BARS[:-1], way * tall * bar / most, 1 / 30, foot, align="edge", color=colour, linewidth=0, alpha=0.85)
    axes.set(ylim=(foot - tall - 0.02, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1])


def draw_horizon(axes: Axes, horizon: HorizonCalibration) -> None:
    """Draw one horizon on axes as long as the risks are high."""
    after = None if horizon.calibrated is None else horizon.calibrated.curve
    curves = [curve for curve in (horizon.curve, after) if curve is not None]
    tops = [value for curve in curves for value in (*curve.x, *curve.y)]
    tops += [fifth.observed.high for fifth in horizon.quintiles]
    top = min(1.0, 1.05 * max([0.1, *(value for value in tops if value is not None)]))
    _diagonal(axes, top)
    _smooth(axes, horizon.curve, COLOURS[0], "smooth, 95% band")
    _after(axes, after, "recalibrated")
    _points(axes, horizon.quintiles, COLOURS[0])
    title = f"risk at {horizon.horizon}, {horizon.events} events, {horizon.n} patients"
    axes.set_title(f"{title}\nobserved/expected {interval(horizon.observed_expected)}")
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="Predicted risk", ylabel="Observed risk")


def _after(axes: Axes, curve: Curve | None, name: str) -> None:
    """Draw the smooth curve after recalibration, where there is one."""
    if curve is not None:
        axes.plot(_floats(curve.x), _floats(curve.y), color=COLOURS[1], linestyle=LINES[1], label=name)


def _diagonal(axes: Axes, top: float) -> None:
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="perfect")
    axes.set(xlim=(-0.01 * top, 1.01 * top), ylim=(-0.01 * top, 1.01 * top))


def _smooth(axes: Axes, curve: Curve | None, colour: str, name: str) -> None:
    if curve is None:
        return
    if curve.low and curve.high:
        axes.fill_between(
            _floats(curve.x), _floats(curve.low), _floats(curve.high), color=colour, alpha=0.18, linewidth=0
        )
    axes.plot(_floats(curve.x), _floats(curve.y), color=colour, label=name)


def _points(axes: Axes, bins: Sequence[CalibrationBin], colour: str) -> None:
    known = [each for each in bins if each.observed.value is not None]
    if not known:
        return
    predicted, observed = _floats([each.predicted for each in known]), _floats([each.observed.value for each in known])
    low, high = _floats([each.observed.low for each in known]), _floats([each.observed.high for each in known])
    reach = np.stack([np.nan_to_num(observed - low), np.nan_to_num(high - observed)]).clip(min=0)
    axes.errorbar(
        predicted,
        observed,
        reach,
        fmt="o",
        label="equal groups of patients",
        markersize=4,
        markerfacecolor="white",
        elinewidth=0.8,
        color=colour,
    )


def _floats(values: Sequence[float | None]) -> Floats:
    return np.asarray(values, dtype=np.float64)

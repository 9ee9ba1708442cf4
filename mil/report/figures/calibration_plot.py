"""Observed against predicted: of probabilities, with and without recalibration, and of risks at a horizon."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, LINES, interval, panels, shared_legend, short
from mil.stats.bootstrap import Floats

_BARS = np.linspace(0, 1, 31)


def calibration(evaluation: Evaluation, report: Mapping[str, Any]) -> Figure | None:
    """A panel a question, with a strip of the predictions; none where the report has no calibration."""
    known = {found["name"]: found for found in (report.get("calibration") or {}).get("questions") or []}
    asked = [question for question in evaluation.questions if question.name in known]
    if not asked:
        return None
    figure, every = panels(len(asked), height=3.4)
    for axes, question in zip(every, asked, strict=True):
        draw_question(axes, known[question.name])
        draw_strip(axes, question, evaluation)
        axes.set(xlabel="Predicted probability", ylabel=f"Share of {short(question.name, 18)}")
    shared_legend(figure, every)
    return figure


def calibration_horizon(evaluation: Evaluation, report: Mapping[str, Any]) -> Figure | None:
    """A panel a horizon: fifths of the patients and the smooth curve; none without predicted risks."""
    horizons = (report.get("survival") or {}).get("calibration") or []
    if not horizons:
        return None
    figure, every = panels(len(horizons), height=3.2)
    for axes, found in zip(every, horizons, strict=True):
        draw_horizon(axes, found)
    shared_legend(figure, every)
    return figure


def draw_question(axes: Axes, found: Mapping[str, Any]) -> None:
    """The smooth curve with its band, bins of patients with their intervals, and the curve after recalibration."""
    _diagonal(axes, 1.0)
    _smooth(axes, found.get("curve"), COLOURS[0], "model, 95% band")
    _points(axes, found.get("bins") or [], COLOURS[0])
    _after(axes, found, f"after {(found.get('calibrated') or {}).get('method', 'recalibration')}")
    axes.set_title(f"{short(found['name'], 20)}: {found['positives']} of {found['n']}\nslope {_known(found, 'slope')}")


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


def draw_horizon(axes: Axes, found: Mapping[str, Any]) -> None:
    """On axes as long as the risks are high."""
    fifths = [
        point | {"observed": point["observed"]["value"]} | _bounds(point["observed"])
        for point in found.get("quintiles") or []
    ]
    curve = found.get("curve") or {"predicted": [], "observed": [], "high": []}
    after = (found.get("calibrated") or {}).get("curve") or {"predicted": [], "observed": []}
    tops = [*curve["predicted"], *curve["observed"], *after["predicted"], *after["observed"]]
    tops += [point["high"] for point in fifths]
    top = min(1.0, 1.05 * max([0.1, *(value for value in tops if value is not None)]))
    _diagonal(axes, top)
    _smooth(axes, found.get("curve"), COLOURS[0], "smooth, 95% band")
    _after(axes, found, "recalibrated")
    _points(axes, fifths, COLOURS[0])
    ratio = _known(found, "observed_expected")
    axes.set_title(
        f"risk at {found['horizon']}, {found['events']} events, {found['n']} patients\nobserved/expected {ratio}"
    )
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="Predicted risk", ylabel="Observed risk")


def _after(axes: Axes, found: Mapping[str, Any], name: str) -> None:
    """The smooth curve after recalibration, where there is one."""
    curve = (found.get("calibrated") or {}).get("curve")
    if curve:
        axes.plot(curve["predicted"], _floats(curve["observed"]), color=COLOURS[1], linestyle=LINES[1], label=name)


def _diagonal(axes: Axes, top: float) -> None:
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="perfect")
    axes.set(xlim=(-0.01 * top, 1.01 * top), ylim=(-0.01 * top, 1.01 * top))


def _smooth(axes: Axes, curve: Mapping[str, Any] | None, colour: str, name: str) -> None:
    if not curve:
        return
    predicted = _floats(curve["predicted"])
    if curve.get("low") and curve.get("high"):
        low, high = _floats(curve["low"]), _floats(curve["high"])
        axes.fill_between(predicted, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(predicted, _floats(curve["observed"]), color=colour, label=name)


def _points(axes: Axes, bins: Sequence[Mapping[str, Any]], colour: str) -> None:
    known = [one for one in bins if one["observed"] is not None]
    if not known:
        return
    predicted, observed = (_floats([one[key] for one in known]) for key in ("predicted", "observed"))
    low, high = (_floats([one.get(key) for one in known]) for key in ("low", "high"))
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


def _known(found: Mapping[str, Any], key: str) -> str:
    return interval(found.get(key))


def _bounds(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: found.get(key) for key in ("low", "high")}


def _floats(values: Sequence[float | None]) -> Floats:
    return np.asarray(values, dtype=np.float64)

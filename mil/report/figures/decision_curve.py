"""Net benefit over the thresholds at which a patient would be treated. Vickers and Elkin, Med Decis Making 26, 2006."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, LINES, panels, shared_legend, short
from mil.stats.bootstrap import Floats


def decision_curve(evaluation: Evaluation, report: Mapping[str, Any]) -> Figure | None:
    """A panel a question or horizon: model, all, none, and the clinical baseline where the report has it."""
    utility = report.get("utility") or {}
    asked = [found for found in utility.get("questions") or utility.get("horizons") or [] if found.get("thresholds")]
    if not asked:
        return None
    figure, every = panels(len(asked))
    for axes, found in zip(every, asked, strict=True):
        draw_benefit(axes, found)
    shared_legend(figure, every)
    return figure


def draw_benefit(axes: Axes, found: Mapping[str, Any]) -> None:
    """Lines over the thresholds; strategies much worse than doing nothing run out of the picture."""
    at = _floats(found["thresholds"])
    shown = [
        ("model", "model", COLOURS[0], LINES[0], 1.8),
        ("clinical", "clinical variables", COLOURS[1], LINES[1], 1.4),
    ]
    for key, name, colour, line, width in [*shown, ("all", "call everybody", GREY, LINES[2], 1.2)]:
        if found.get(key) is not None:
            axes.plot(at, _heights(found[key]), color=colour, linestyle=line, linewidth=width, label=name)
    axes.axhline(0, color="black", linewidth=0.8, label="call nobody")
    band = found["model"] if isinstance(found["model"], Mapping) else {}
    if band.get("low") is not None:
        axes.fill_between(at, _floats(band["low"]), _floats(band["high"]), color=COLOURS[0], alpha=0.18, linewidth=0)
    top = max(float(np.nanmax(_heights(found[key]))) for key in ("model", "all") if found.get(key) is not None)
    axes.set(ylim=(-0.3 * max(top, 0.01), 1.1 * max(top, 0.01)), xlim=(at.min(), at.max()))
    axes.set(xlabel="Threshold probability", ylabel="Net benefit")
    if "horizon" in found:
        axes.set_title(f"risk at {found['horizon']}: {found['events']} events of {found['n']}")
    else:
        axes.set_title(f"{short(found['name'], 22)}: {found['positives']} of {found['n']}")


def _heights(found: Any) -> Floats:
    return _floats(found["value"] if isinstance(found, Mapping) else found)


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)

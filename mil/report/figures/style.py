"""One look for every figure: readable in print, safe for colour-blind readers, the same bytes for the same numbers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.schema import Estimate, Number, Report
from mil.report.sections.comparator import comparators
from mil.report.sections.oracle import Oracle
from mil.stats.bootstrap import Floats
from mil.stats.estimate import format_p

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, the darker hues first; yellow is left out, it fades on paper."""
LINES = ("-", "--", ":", "-.")
"""Dashes that distinguish curves without colour."""
GREY = "#666666"
WIDTH = 6.3
"""Width of every figure in inches: 160 mm, the text of an A4 page."""
_RULES: dict[str, Any] = {
    "font.family": "sans-serif",
    # the first comes with matplotlib, so that every machine draws the same; the others are for readers of an SVG
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.dashed_pattern": [5, 2],
    "lines.dotted_pattern": [1, 1.2],
    "lines.dashdot_pattern": [6, 2, 1, 2],
    "legend.frameon": False,
    "legend.title_fontsize": 8,
    "legend.fontsize": 8,
    "legend.handlelength": 2.6,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "svg.hashsalt": "mil",
    "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and edited
}


def styled() -> AbstractContextManager[None]:
    """Return the context in which figures are made and saved; nothing outside it changes."""
    return style.context(["default", _RULES])


def canvas(height: float) -> Figure:
    """Return an empty figure of the common width, `height` inches tall."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def panels(amount: int, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """Return a figure with this many axes: one alone, else in two columns, or three where there are more than four."""
    if amount == 1:
        figure = canvas(4.0)
        return figure, [figure.add_subplot()]
    columns = 2 if amount <= 4 else 3
    rows = -(-amount // columns)
    figure = canvas(height * rows)
    return figure, [figure.add_subplot(rows, columns, at + 1) for at in range(amount)]


def side_legend(axes: Axes, notes: list[str] | None = None, **look: Any) -> None:
    """Put the legend to the right of the axes, where it covers no curve, with further lines as its title."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.02, 1.0), title="\n".join(notes or []), alignment="left", **look
        )


def shared_legend(figure: Figure, all_axes: Sequence[Axes]) -> None:
    """Put one legend for all panels below them; that of a single panel to its right."""
    if len(all_axes) == 1:
        side_legend(all_axes[0])
        return
    shown: dict[str, Any] = {}
    for axes in all_axes:
        lines, names = axes.get_legend_handles_labels()
        shown |= {name: line for name, line in zip(names, lines, strict=True) if name not in shown}
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=len(shown))


def look(place: int) -> dict[str, Any]:
    """Return colour and dashes of the curve with this number, different for the first 28."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": LINES[(place + place // len(COLOURS)) % len(LINES)],
    }


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.svg` and return them; neither contains the date or the software."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, for both files alike
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def interval(estimate: Estimate | None) -> str:
    """Return `0.912 (0.870–0.950)`, as the text of a figure writes a value and its interval."""
    if estimate is None or estimate.value is None:
        return "not estimable"
    text = str(estimate)
    return minus(text if estimate.low is not None and estimate.low < 0 else text.replace(" to ", "–"))


def floats(values: Sequence[Number]) -> Floats:
    """Return numbers as an array, NaN where there is none."""
    return np.asarray(values, dtype=np.float64)


def minus(text: str) -> str:
    """Replace hyphens by minus signs, which are as wide as a plus."""
    return text.replace("-", "−")


def p_value(p: float) -> str:
    """Return `p = 0.012`, or `p < 0.001`."""
    text = format_p(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def compared(report: Report, metric: str, what: str = "") -> list[str]:
    """Return the metric of the oracle and of each model that the report compares with, in two lines each."""
    oracle = report.section(Oracle)
    metrics = [] if oracle is None else [("oracle", oracle.metrics)]
    metrics += [(comparator.name, comparator.metrics) for comparator in comparators(report)]
    return [
        line
        for name, estimates in metrics
        for line in (f"{what}{short(name)}:", f"    {interval(estimates.get(metric))}")
    ]


def count_folds(report: Report) -> str:
    """Return `1 fold`, `5 folds`."""
    return "1 fold" if report.folds == 1 else f"{report.folds} folds"


def short(text: str, most: int = 28) -> str:
    """Return a name cut to what fits beside an axis, with dollar signs escaped."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return cut.replace("$", r"\$")

"""One look for every figure: readable in print, safe for colour-blind readers, the same bytes for the same numbers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.schema import Report
from mil.report.sections.comparator import comparators
from mil.report.sections.oracle import Oracle
from mil.stats.estimate import Estimate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, the darker hues first; yellow is left out, it fades on paper."""
LINES = ("-", "--", ":", "-.")
"""Dashes that tell curves apart without colour."""
GREY = "#666666"
WIDTH = 6.3
"""Of every figure in inches: 160 mm, the text of an A4 page."""
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
    """The context in which a figure is made and saved; nothing outside it changes."""
    return style.context(["default", _RULES])


def canvas(height: float) -> Figure:
    """An empty figure of the one width, `height` inches tall."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def panels(amount: int, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A figure of as many axes: one beside its legend, two abreast, or three where there are more than four."""
    if amount == 1:
        figure = canvas(4.0)
        return figure, [figure.add_subplot()]
    columns = 2 if amount <= 4 else 3
    rows = -(-amount // columns)
    figure = canvas(height * rows)
    return figure, [figure.add_subplot(rows, columns, at + 1) for at in range(amount)]


def beside(axes: Axes, notes: list[str] | None = None, **look: Any) -> None:
    """The legend to the right of the axes, where it covers no curve, with further lines as its title."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.02, 1.0), title="\n".join(notes or []), alignment="left", **look
        )


def shared_legend(figure: Figure, every: Sequence[Axes]) -> None:
    """What any panel shows, once: beside the panel where it is alone, else below them."""
    if len(every) == 1:
        beside(every[0])
        return
    shown: dict[str, Any] = {}
    for axes in every:
        lines, names = axes.get_legend_handles_labels()
        shown |= {name: line for name, line in zip(names, lines, strict=True) if name not in shown}
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=len(shown))


def look(place: int) -> dict[str, Any]:
    """Colour and dashes of the curve at a place, different for the first 28."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": LINES[(place + place // len(COLOURS)) % len(LINES)],
    }


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """`<name>.png` and `<name>.svg`, without the date or the software in them."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, for both files alike
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def interval(estimate: Estimate | None, digits: int = 2) -> str:
    """Return `0.91 (0.87–0.95)`, as figures write a value and its interval."""
    if estimate is None or estimate.value is None:
        return "not estimable"
    value, low, high = estimate.value, estimate.low, estimate.high
    if low is None or high is None:
        return minus(f"{value:.{digits}f}")
    dash = " to " if low < 0 else "–"
    return minus(f"{value:.{digits}f} ({low:.{digits}f}{dash}{high:.{digits}f})")


def minus(text: str) -> str:
    """With the sign as long as a plus."""
    return text.replace("-", "−")


def p_value(p: float) -> str:
    """`p = 0.012`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def compared(report: Report, metric: str, what: str = "") -> list[str]:
    """Return the metric of the oracle and of the baselines, two lines each."""
    oracle = report.section(Oracle)
    metrics = {} if oracle is None else {"oracle": oracle.metrics}
    metrics |= {other.name: other.metrics for other in comparators(report)}
    return [
        line for name, of in metrics.items() for line in (f"{what}{short(name)}:", f"    {interval(of.get(metric))}")
    ]


def folds(report: Report) -> str:
    """Return `1 fold` or `5 folds`."""
    return "1 fold" if report.folds == 1 else f"{report.folds} folds"


def short(text: str, most: int = 28) -> str:
    """A name cut to what fits beside an axis; a dollar sign is no formula."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return cut.replace("$", r"\$")

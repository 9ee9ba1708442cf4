"""One look for every figure: readable in print, safe for colour-blind readers, the same bytes for the same numbers."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil import files
from mil.report.schema import Estimate, Number, Report
from mil.report.sections.comparator import comparators
from mil.report.sections.oracle import Oracle
from mil.stats.bootstrap import Floats
from mil.stats.estimate import format_number, format_p

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, the darker hues first; yellow is left out, it fades on paper."""
LINES = ("-", "--", ":", "-.")
"""Dashes that distinguish curves without colour."""
RISK_COLOURS = ("#3A9BD9", "#C2410C", "#2B0A3D")
"""Groups from low to high risk, each darker than the one before: they differ in grey and for colour-blind readers."""
GREY = "#666666"
WIDTH = 6.3
"""Width of every figure in inches: 160 mm, the text of an A4 page."""
_LEGEND_SIZES = (7.5, 7.0, 6.5, 6.0)
"""Points of a legend's text, tried in turn where 8 is too wide."""
_SMALL_TITLE, _SMALL_LABEL = 8.5, 8.0
"""Points of the titles and axis labels of many panels."""
FORMATS: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""Files of a figure by ending, and what is left out of each: the date and the software."""
_EDGE = 4.0
"""Dots that stay free at the edge of a figure and between texts of panels."""
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
    rows, columns = _grid(amount)
    figure = canvas(height * rows)
    return figure, [figure.add_subplot(rows, columns, at + 1) for at in range(amount)]


def _grid(amount: int) -> tuple[int, int]:
    columns = 2 if amount <= 4 else 3
    return -(-amount // columns), columns


def side_legend(axes: Axes, notes: list[str] | None = None, **look: Any) -> None:
    """Put the legend to the right of the axes, where it covers no curve, with further lines as its title."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.02, 1.0), title="\n".join(notes or []), alignment="left", **look
        )


def shared_legend(figure: Figure, all_axes: Sequence[Axes]) -> None:
    """Put one legend for all panels into an empty place of the last row, else below; of a single panel to its right."""
    if len(all_axes) == 1:
        side_legend(all_axes[0])
        return
    shown: dict[str, Any] = {}
    for axes in all_axes:
        lines, names = axes.get_legend_handles_labels()
        shown |= {name: line for name, line in zip(names, lines, strict=True) if name not in shown}
    rows, columns = _grid(len(all_axes))
    if rows * columns == len(all_axes):
        figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=min(len(shown), 4))
        return
    empty = figure.add_subplot(rows, columns, len(all_axes) + 1)
    empty.set_axis_off()
    legend = empty.legend(list(shown.values()), list(shown), loc="center left")
    legend.set_in_layout(False)  # it may be wider than a panel without pushing the others aside


def look(place: int) -> dict[str, Any]:
    """Return colour and dashes of the curve with this number, different for the first 28."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": LINES[(place + place // len(COLOURS)) % len(LINES)],
    }


def save(figure: Figure, folder: Path, name: str, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Write `<name>.png` and `<name>.svg`, or the given formats only, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    fit_texts(figure)
    figure.set_layout_engine("none")  # laid out once, for all files alike
    return [save_figure(figure, folder / f"{name}.{ending}", metadata=FORMATS[ending]) for ending in formats]


def save_figure(figure: Figure, path: Path, **options: Any) -> Path:
    """Write a figure in the format of the file's ending, completely or not at all; options as `Figure.savefig`."""
    content = BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), **options)
    files.write(path, content.getvalue())
    return path


def fit_texts(figure: Figure) -> None:
    """Break titles that reach into the next panel or out of the figure into lines, and shrink legends that do not fit.

    The panels are first laid out without their titles, which would make them of different widths.
    """
    titles = {axes: axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")}
    if len(titles) > 1:
        for axes in titles:
            axes.set_title("", loc="left")
    for axes in titles if len(titles) > 4 else ():
        axes.xaxis.label.set_fontsize(_SMALL_LABEL)
        axes.yaxis.label.set_fontsize(_SMALL_LABEL)
    _lay_out(figure)
    for axes, text in titles.items():
        _set_title(axes, text, len(titles))
    _lay_out(figure)
    figure.draw_without_rendering()  # lays out from the sizes of the layout before, which no longer moves anything
    for legend in (*(axes.get_legend() for axes in figure.axes), *figure.legends):
        for size in _LEGEND_SIZES:
            if legend is None or legend.get_window_extent().x1 <= figure.bbox.x1 - _EDGE:
                break
            for entry in (*legend.get_texts(), legend.get_title()):
                entry.set_fontsize(size)
            figure.draw_without_rendering()


def _lay_out(figure: Figure) -> None:
    """Place axes and their texts; unlike a drawing, which does this first, without passing through every line."""
    if figure.axes and (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)


def _set_title(axes: Axes, text: str, panels_drawn: int) -> None:
    """Write a title in lines that are no wider than their panel; that of a single panel ends with the figure."""
    title, box = axes.set_title(text, loc="left"), axes.get_window_extent()
    if panels_drawn > 4:
        title.set_fontsize(_SMALL_TITLE)
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = box.width * 1.05 if panels_drawn > 1 else figure.bbox.x1 - _EDGE - title.get_window_extent().x0
    lines = list[str]()
    for line in text.split("\n"):
        title.set_text(line)
        width = title.get_window_extent().width
        letters = len(line) if width <= room else max(8, int(len(line) * room / width))
        lines += wrap(line, letters, break_long_words=False)
    title.set_text("\n".join(lines))


def interval(estimate: Estimate | None) -> str:
    """Return `0.912 (0.870–0.950)`, as the text of a figure writes a value and its interval.

    Why there is none stands in the report: a sentence in a legend or beside a row would leave no room for the axes.
    """
    if estimate is None or estimate.value is None:
        return "not estimable"
    if estimate.low is None and estimate.high is None:
        return minus(f"{format_number(estimate.value)} (no interval)" if estimate.reason else str(estimate))
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


def in_words(name: str) -> str:
    """Return a cause or count of a table as it stands in a figure, without underscores."""
    return name.replace("_", " ")


def in_lines(name: str, letters: int, most: int = 3) -> str:
    """Return a name in lines of so many letters, broken at blanks and hyphens; what is beyond the last line is cut."""
    lines = wrap(name, letters, max_lines=most, placeholder=" …")
    return "\n".join(lines).replace("$", r"\$")


def short(text: str, most: int = 28) -> str:
    """Return a name cut to what fits beside an axis, with dollar signs escaped."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return cut.replace("$", r"\$")

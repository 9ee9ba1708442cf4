"""One look for every figure: readable in print, safe for colour-blind readers, the same bytes for the same numbers."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, the darker hues first; yellow is left out, it fades on paper."""
GREY = "#666666"
_RULES: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "legend.facecolor": "white",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.title_fontsize": 8,
    "legend.fontsize": 8,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
    "svg.hashsalt": "mil",
}


def styled() -> AbstractContextManager[None]:
    """The context in which a figure is made and saved; nothing outside it changes."""
    return style.context(["default", _RULES])


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """`<name>.png` and `<name>.svg`, without the date or the software in them."""
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def interval(found: Mapping[str, Any]) -> str:
    """`0.91 (0.87–0.95)`, as the text of a figure writes a value and its interval."""
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None:
        return "not estimable"
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} ({low:.2f}–{high:.2f})"


def compared(report: Mapping[str, Any], metric: str) -> list[str]:
    """The oracle's and the baseline's metric beside the model's, a line each where the report has them."""
    lines = []
    if report["oracle"]:
        lines.append(f"oracle {interval(report['oracle'][metric])}")
    if report["baseline"]:
        lines.append(f"{report['baseline']['name']} {interval(report['baseline']['metrics'][metric])}")
    return lines

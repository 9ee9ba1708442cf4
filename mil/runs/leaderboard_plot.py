"""Draw the leaderboard: one point per run with its interval, best first, baselines as open squares."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.comparison import NAMES
from mil.report.figures.style import COLOURS, GREY, canvas, interval, short
from mil.stats.estimate import Estimate

_LINE = 0.26
"""Inches per row."""


def draw_leaderboard(table: pd.DataFrame) -> Figure:
    """Draw runs from the best down, one panel per group of the same patients; call it within `style.styled()`.

    Args:
        table: The table of `leaderboard`.
    """
    groups = [rows for _, rows in table.groupby("group", sort=True)]
    heights = [_LINE * len(rows) + 0.75 for rows in groups]
    figure = canvas(sum(heights))
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, rows in zip(panels, groups, strict=True):
        _draw_group(axes, rows.reset_index(drop=True))
    return figure


def _draw_group(axes: Axes, rows: pd.DataFrame) -> None:
    best = rows["value"].iloc[0]
    if pd.notna(best):
        axes.axvline(best, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    records = rows.to_dict("records")
    for at, row in enumerate(records):
        _draw_run(axes, at, row)
    names = [f"{'–' if pd.isna(row['rank']) else row['rank']}  {short(str(row['run']), 34)}" for row in records]
    axes.set(ylim=(len(rows) - 0.4, -0.6), yticks=range(len(rows)), yticklabels=names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    metric, counts = str(records[0]["metric"]), str(records[0]["counts"])
    note = "; square: mean pooling on the same patients" if rows["over_baseline"].notna().any() else ""
    axes.set_xlabel(f"{NAMES.get(metric, metric)}, 95% interval{note}")
    patients = ", ".join([f"n {records[0]['n']}", *([counts] if counts else [])])
    axes.set_title(f"{short(str(records[0]['tool']), 40)}: {short(patients, 60)}")


def _draw_run(axes: Axes, at: int, row: Mapping[Any, Any]) -> None:
    estimable, bounded = pd.notna(row["value"]), pd.notna(row["low"])
    colour = GREY if not estimable else COLOURS[0] if row["rank"] == 1 else "black"
    if bounded:
        axes.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=1.3, solid_capstyle="butt")
    if pd.notna(row["over_baseline"]):
        axes.plot(row["value"] - row["over_baseline"], at, "s", color=GREY, markersize=4, fillstyle="none")
    if estimable:
        axes.plot(row["value"], at, "o", color=colour, markersize=5)
    low, high = (float(row[side]) if bounded else None for side in ("low", "high"))
    shown = interval(Estimate(value=float(row["value"]) if estimable else None, low=low, high=high))
    axes.text(1.02, at, shown, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=colour)

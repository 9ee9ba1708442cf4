"""Loss by epoch, from the metrics that Lightning's CSV logger wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.figures.style import COLOURS, GREY, LINES, canvas
from mil.report.page.words import named
from mil.storage import read_bytes


@dataclass(frozen=True)
class Course:
    """The course of one training.

    Attributes:
        log: Its `metrics.csv`.
        best: The epochs whose weights count, from one; empty for the last.
    """

    log: Path
    best: Sequence[int] = ()


def learning_curve(courses: Sequence[Course], metric: str) -> Figure | None:
    """Draw training and selection loss, and the metric of the select patients; None where nothing was logged.

    Args:
        courses: Of each fold.
        metric: `Endpoint.metric`, logged as `select_<metric>`.
    """
    read = [(_epochs(course.log), course.best) for course in courses]
    lines = [Line(table, best) for table, best in read if len(table)]
    if not lines:
        return None
    tables = [line.table for line in lines]
    names = [name for name in ("train_loss", "select_loss") if any(name in table for table in tables)]
    scored = any(f"select_{metric}" in table for table in tables)
    figure = canvas(4.4 if scored else 3.0)
    rows = figure.subplots(1 + scored, 1, sharex=True, squeeze=False)[:, 0]
    _draw_epochs(rows[0], lines, names)
    rows[0].set(ylabel="Loss")
    if scored:
        _draw_epochs(rows[1], lines, [f"select_{metric}"])
        rows[1].set(ylabel=f"{named(metric)}, select patients")
    rows[-1].set(xlabel="Epoch")
    rows[-1].xaxis.get_major_locator().set_params(integer=True)
    fits = "1 fit" if len(tables) == 1 else f"{len(tables)} folds"
    rows[0].set_title(f"Learning curve, {fits}; {_dots(lines)}")
    rows[0].legend(loc="best")
    return figure


class Line(NamedTuple):
    """What one training logged, a row an epoch, and the epochs whose weights count."""

    table: pd.DataFrame
    best: Sequence[int]


def _dots(lines: Sequence[Line]) -> str:
    """Return what the dots stand for."""
    if any(len(line.best) > 1 for line in lines):
        return "dots: the epochs whose weights are averaged"
    lowest = all(list(line.best) == _lowest(line.table) for line in lines)
    return f"dots: the epoch kept{' (lowest select loss)' if lowest else ''}"


def _draw_epochs(axes: Axes, lines: Sequence[Line], names: Sequence[str]) -> None:
    """Draw a line for each training and name, and dots at the epochs whose weights count."""
    for place, name in enumerate(names):
        colour = COLOURS[0] if name == "train_loss" else COLOURS[1] if name == "select_loss" else COLOURS[2]
        for number, (table, best) in enumerate(lines):
            if name not in table:
                continue
            values = table[name].dropna()
            label = name.replace("_", " ") if number == 0 else None
            width = 1.6 if len(lines) == 1 else 0.9
            axes.plot(values.index, values, color=colour, linestyle=LINES[place], linewidth=width, label=label)
            for epoch in best if name != "train_loss" else ():
                if epoch in values.index:
                    look: dict[str, Any] = {"color": colour, "markersize": 6, "markeredgecolor": "black"}
                    axes.plot(epoch, values[epoch], "o", **look)
                    axes.axvline(float(epoch), color=GREY, linewidth=0.5, zorder=0)


def _lowest(table: pd.DataFrame) -> list[int]:
    """Return the epoch of the lowest loss of the select patients; none where there is none."""
    return [cast(int, table["select_loss"].idxmin())] if "select_loss" in table else []


def _epochs(path: Path) -> pd.DataFrame:
    """Return one row for each epoch, counted from 1: training and validation are in different rows of the log.

    Logs of earlier versions count from 0.
    """
    table = pd.read_csv(BytesIO(read_bytes(path)))
    if "epoch" not in table:
        return table.head(0)
    columns = [name for name in table.columns if name == "train_loss" or name.startswith("select_")]
    epochs = table.groupby("epoch")[columns].last().dropna(how="all")
    return epochs.set_axis(epochs.index + 1) if 0 in epochs.index else epochs

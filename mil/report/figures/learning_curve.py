"""Loss by epoch, from the metrics that Lightning's CSV logger wrote."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.figures.style import COLOURS, GREY, LINES, canvas
from mil.report.page.words import named
from mil.storage import read_bytes


def learning_curve(logs: Path | Mapping[str, Path], metric: str) -> Figure | None:
    """Draw training and selection loss, and the metric of the select patients; None where nothing was logged.

    Args:
        logs: `metrics.csv` of one fit, or of each fold's by name.
        metric: `Endpoint.metric`, logged as `select_<metric>`.
    """
    tables = [_epochs(path) for path in ([logs] if isinstance(logs, Path) else logs.values())]
    tables = [table for table in tables if len(table)]
    if not tables:
        return None
    names = [name for name in ("train_loss", "select_loss") if any(name in table for table in tables)]
    scored = any(f"select_{metric}" in table for table in tables)
    figure = canvas(4.4 if scored else 3.0)
    rows = figure.subplots(1 + scored, 1, sharex=True, squeeze=False)[:, 0]
    draw_epochs(rows[0], tables, names)
    rows[0].set(ylabel="Loss")
    if scored:
        draw_epochs(rows[1], tables, [f"select_{metric}"])
        rows[1].set(ylabel=f"{named(metric)}, select patients")
    rows[-1].set(xlabel="Epoch")
    rows[-1].xaxis.get_major_locator().set_params(integer=True)
    fits = "1 fit" if len(tables) == 1 else f"{len(tables)} folds"
    rows[0].set_title(f"Learning curve, {fits}; dots: the epoch kept (lowest select loss)")
    rows[0].legend(loc="best")
    return figure


def draw_epochs(axes: Axes, tables: Sequence[pd.DataFrame], names: Sequence[str]) -> None:
    """Draw a line for each table and name, and a dot at the lowest loss of the select patients."""
    for place, name in enumerate(names):
        colour = COLOURS[0] if name == "train_loss" else COLOURS[1] if name == "select_loss" else COLOURS[2]
        for number, table in enumerate(tables):
            if name not in table:
                continue
            values = table[name].dropna()
            label = name.replace("_", " ") if number == 0 else None
            width = 1.6 if len(tables) == 1 else 0.9
            axes.plot(values.index, values, color=colour, linestyle=LINES[place], linewidth=width, label=label)
            if name != "train_loss" and "select_loss" in table:
                best = int(table["select_loss"].fillna(np.inf).to_numpy().argmin())
                look: dict[str, Any] = {"color": colour, "markersize": 6, "markeredgecolor": "black"}
                axes.plot(table.index[best], table[name].iloc[best], "o", **look)
                axes.axvline(float(table.index[best]), color=GREY, linewidth=0.5, zorder=0)


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

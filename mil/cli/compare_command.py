"""`mil compare`: compare runs on the same patients."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from mil import files
from mil.cards import SIMULATED
from mil.cli.terminal_lines import add_row, print_tables, terminal_width, write_lines
from mil.errors import ConfigError, printable
from mil.output_places import check_output_folder
from mil.report.comparison import Comparison
from mil.report.comparison import compare as compare_two
from mil.report.figures.style import save, styled
from mil.runs.leaderboard import Entry, against_best, groups, leaderboard
from mil.runs.leaderboard_plot import draw_leaderboard
from mil.runs.run import open_run, titles
from mil.runs.run_inputs import warn_of_changes, with_recorded
from mil.tables import csv_text

WIDTH = 140
"""Width of a printed table in characters, unless the terminal is wider."""
LEADERBOARD = "leaderboard.csv"
DESCRIBED = ("tool", "model", "encoder")
NUMBERS = {"": "metric", "behind": "minus the best", "over_baseline": "minus mean pooling"}


def compare(runs: list[Path], out: Path | None = None, resamples: int | None = None) -> None:
    """Print a table of the runs, and a verdict on each pair of the best run and another.

    Two runs are compared on the patients that both report; more are ranked within groups that report the same patients.

    Args:
        runs: Folders of finished runs.
        out: Folder for `leaderboard.csv`, `comparison.json` and the figure `leaderboard`; None writes nothing.
        resamples: Bootstrap resamples; by default as the runs.

    Raises:
        ConfigError: Fewer than two runs, the same run twice, or a folder that holds no run.
        PredictionsError: The runs share no patient, or differ in the patients' labels.
    """
    if out is not None:
        check_output_folder(out, with_recorded(runs), LEADERBOARD)
    entries = _entries(runs, resamples)
    table = leaderboard(entries)
    comparisons = _comparisons(entries)
    simulated = any(entry.simulated for entry in entries)
    if simulated:
        sys.stderr.write(f"{SIMULATED}\n")
    print_tables(*_tables(table), width=terminal_width(WIDTH))
    write_lines(*_notes(table), *(comparison.verdict for comparison in comparisons))
    if out is not None:
        files.write(out / LEADERBOARD, csv_text(table))
        stored = [comparison.model_dump(mode="json") for comparison in comparisons]
        files.write_json(out / "comparison.json", {"schema": 3, "simulated": simulated, "comparisons": stored})
        with styled():
            save(draw_leaderboard(table), out, "leaderboard")


def _entries(runs: list[Path], resamples: int | None) -> list[Entry]:
    if len({run.resolve() for run in runs}) < len(runs) or len(runs) < 2:
        raise ConfigError(f"mil compare: {len(runs)} runs, {len(set(runs))} of them different, expected two or more")
    opened = [open_run(run) for run in runs]
    for folder in runs:
        warn_of_changes(folder)
    for run in opened:
        if not run.reports:
            raise ConfigError(f"{run.folder}: reports nobody, expected a run with report patients")
    return [run.entry(name, resamples) for run, name in zip(opened, titles(runs), strict=True)]


def _comparisons(entries: list[Entry]) -> list[Comparison]:
    """Compare two runs on the patients they share; of more than two, each with the best of its group."""
    if len(entries) == 2 and len(groups(entries)) == 2:
        first, second = entries
        return [compare_two(first.evaluation, second.evaluation, (first.name, second.name))]
    return against_best(entries)


def _tables(table: pd.DataFrame) -> Iterator[Table]:
    """Yield one table per group; what all its runs share is in the title."""
    for number, rows in table.groupby("group", sort=True):
        fixed = [key for key in DESCRIBED if rows[key].nunique() == 1]
        first = rows.iloc[0]
        shared = [*(first[key] for key in fixed), first["metric"], f"n {first['n']}", first["counts"]]
        prefix = f"group {number}: " if table["group"].nunique() > 1 else ""
        title = prefix + ", ".join(str(value) for value in shared if value != "")
        yield _group_table(title, rows, [key for key in DESCRIBED if key not in fixed])


def _group_table(title: str, rows: pd.DataFrame, described: list[str]) -> Table:
    group = Table(title=printable(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for head in ("rank", "run", *described, *NUMBERS.values()):
        group.add_column(head, no_wrap=True)
    for row in rows.to_dict("records"):
        rank = "-" if pd.isna(row["rank"]) else str(row["rank"])
        words = [str(row[key]) for key in ("run", *described)]
        add_row(group, (rank, *words, *(_interval(row, name) for name in NUMBERS)))
    return group


def _notes(table: pd.DataFrame) -> Iterator[str]:
    if any(table[f"{name}_zero_excluded"].eq(True).any() for name in NUMBERS if name):
        yield "* shown to differ: the interval excludes zero and p < 0.05 (against the best: adjusted for all pairs)"
    if (amount := table["group"].nunique()) > 1:
        yield f"{amount} groups of different patients or targets: no rank holds across them."


def _interval(row: Mapping[Any, Any], name: str) -> str:
    """Format `0.912 (0.870 to 0.950)`; differences with their sign, and a star where they are shown to differ."""
    prefix = f"{name}_" if name else ""
    value, low, high = row[name or "value"], row[f"{prefix}low"], row[f"{prefix}high"]
    if pd.isna(value):
        return "-" if name else "not estimable"
    sign = "+" if name else ""
    star = " *" if row.get(f"{prefix}zero_excluded") is True else ""
    return f"{value:{sign}.3f}" if pd.isna(low) else f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f}){star}"

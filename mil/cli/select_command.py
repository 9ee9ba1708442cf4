"""`mil select`: the configuration of a sweep that predicts each outer fold."""

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pandas as pd

from mil.runs.selection import select as choose_among
from mil.storage import read_bytes


def select(sweep: Path) -> None:
    """Choose among the jobs of a sweep; print the choices, and last the folder of the resulting run.

    Raises:
        ConfigError: The folder holds fewer than two finished jobs of one question.
        PredictionsError: The jobs cannot be compared.
    """
    out = choose_among(sweep)
    selection = pd.read_csv(BytesIO(read_bytes(out / "selection.csv")), dtype={"config": str})
    sys.stdout.writelines(f"{line}\n" for line in (*choice_lines(selection), out))


def choice_lines(selection: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each outer fold, and one for each configuration."""
    for row in selection[selection["chosen"]].itertuples():
        judged = f"{row.metric} {row.value:.3f} among {row.patients} select patients"
        yield f"outer part {row.outer}: job {row.config}, {judged}"
    outer_folds = selection["outer"].nunique()
    for config, rows in selection.groupby("config", sort=False):
        chosen = f"chosen in {int(rows['chosen'].sum())} of {outer_folds}"
        yield f"job {config}: {chosen}, mean {rows['value'].mean():.3f}"

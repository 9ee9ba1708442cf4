"""`mil select`: which configuration of a sweep each outer part is predicted by."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mil.runs.selection import select as choose_among


def select(sweep: Path) -> None:
    """Chooses in the folder of a multirun, says what was chosen, prints the folder with the result last.

    Raises:
        ConfigError: no two finished jobs of one question lie there.
        PredictionsError: jobs that cannot be compared.
    """
    out = choose_among(sweep)
    sys.stdout.writelines(
        f"{line}\n" for line in (*said(pd.read_csv(out / "selection.csv", dtype={"config": str})), out)
    )


def said(selection: pd.DataFrame) -> Iterator[str]:
    """A line for each outer part, and one for each configuration."""
    for row in selection[selection["chosen"]].itertuples():
        judged = f"{row.metric} {row.value:.3f} among {row.patients} select patients"
        yield f"outer part {row.outer}: job {row.config}, {judged}"
    parts = selection["outer"].nunique()
    for config, own in selection.groupby("config", sort=False):
        yield f"job {config}: chosen in {int(own['chosen'].sum())} of {parts}, mean {own['value'].mean():.3f}"

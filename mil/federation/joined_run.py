"""Predictions of all sites in the coordinator's run folder, where the patients are simulated and belong to nobody.

Such a run is explained and released as one of `mil train` is: with its predictions, the clinical table, the oracle and
the linear model on mean tiles. A federation of real sites has none of these in one place.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd

from mil import files
from mil.errors import ConfigError
from mil.federation.federation_options import FederationOptions
from mil.federation.site_sources import SITES, SiteSource
from mil.runs.describe import describe_run
from mil.runs.fit_run import write_inputs
from mil.runs.run_inputs import SPLIT
from mil.splits.folds import Split
from mil.storage import read_bytes
from mil.study.pipeline import read_study
from mil.study.run_config import RunConfig
from mil.tables import csv_text
from mil.training.fold import cut
from mil.training.train import write_baselines


def check_joinable(config: RunConfig, options: FederationOptions) -> None:
    """Check that the patients may be brought together.

    Raises:
        ConfigError: They may not: they are real, or there is no common model.
    """
    if options.sites or config.data.cohort is not None:
        raise ConfigError(
            "federation.together: brings the patients of all sites together, which only simulated ones may be; "
            "expected a tool's simulated cohort, without federation.sites"
        )
    if options.algorithm in ("local", "pooled"):
        raise ConfigError(f"federation.together: algorithm={options.algorithm} has no common model of separate sites")


def join_predictions(config: RunConfig, sources: Sequence[SiteSource], folder: Path) -> None:
    """Write what the sites predicted for simulated patients to the coordinator's run folder, and describe it again."""
    study = read_study(config)
    split = Split(pd.concat([source.split.table for source in sources], ignore_index=True))
    write_inputs(config, study, split, folder)
    split = Split.read(folder / SPLIT, list(study.patients.index))
    several = len(split.folds) > 1
    names = ["predictions.csv", *(f"fold_{fold}/predictions.csv" for fold in split.folds if several)]
    for name in names:
        paths = [folder / SITES / source.name / "run" / name for source in sources]
        tables = [pd.read_csv(BytesIO(read_bytes(path)), dtype=str, keep_default_na=False) for path in paths]
        joined = pd.concat(tables, ignore_index=True).sort_values(["fold", "patient"], kind="stable")
        files.write(folder / name, csv_text(joined))
    places = {fold: folder / f"fold_{fold}" if several else folder for fold in split.folds}
    write_baselines(config, study, [cut(config, study, split, fold, place) for fold, place in places.items()], folder)
    describe_run(folder)

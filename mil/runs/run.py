"""A finished run's folder, opened: its configuration, its tables of predictions, and what is known of its patients."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mil import files
from mil.cards import BESIDE
from mil.cohort.columns import Columns, identified
from mil.config import described
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.report.evaluation import Evaluation
from mil.report.prediction_files import read
from mil.runs.leaderboard import Entry
from mil.study import build
from mil.study.compose import read_config
from mil.study.config import RunConfig
from mil.tables import MISSING, read_table

PATIENTS = "patients.csv"
"""The clinical table as the run read it, one row a patient; older runs have none."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds."""

    folder: Path
    tool: Mapping[str, Any]
    """its yaml, in plain types"""
    endpoint: Endpoint
    model: str
    """the class, as the options or the manifest have it"""
    encoder: str
    simulated: bool
    resamples: int
    seed: int
    tables: Mapping[str, pd.DataFrame]
    """`predictions`, and where the run has them `baseline`, `covariates` and `oracle`"""
    patients: pd.DataFrame | None
    """the clinical table, text cells, indexed by patient; none where it is not at hand"""
    config: RunConfig | None = None
    """all options; none of a released folder, which has a manifest in their place"""

    @property
    def reports(self) -> bool:
        """Whether any patient is reported."""
        return bool((self.tables["predictions"]["role"] == "report").any())

    @property
    def figures(self) -> bool:
        """Whether the user wants them drawn."""
        return self.config is None or self.config.figures

    def evaluation(self, name: str = "predictions", resamples: int | None = None) -> Evaluation:
        """What sections and comparisons read, of the model's predictions or of those of a model beside it.

        Raises:
            PredictionsError: a table that cannot be evaluated.
        """
        amount = self.resamples if resamples is None else resamples
        return Evaluation.of(self.tables[name], self.endpoint, self.tool, self.patients, amount, self.seed)

    def entry(self, name: str, resamples: int | None = None) -> Entry:
        """The run as a leaderboard's row."""
        return Entry(
            name,
            self.evaluation(resamples=resamples),
            model=self.model.rpartition(".")[2] if self.config is None else _model(self.config),
            encoder=self.encoder,
            baseline=self.evaluation("baseline", resamples) if "baseline" in self.tables else None,
        )


def open_run(folder: Path) -> Run:
    """Reads a run's folder; writes nothing.

    Raises:
        ConfigError: no finished run lies there.
        PredictionsError: a file that is no table of predictions.
    """
    for name in ("config.yaml", "predictions.csv"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: holds no {name}, expected a finished run")
    config = read_config(folder / "config.yaml")
    endpoint = build.endpoint(config)
    return Run(
        folder,
        config.tool.plain(),
        endpoint,
        config.model.target,
        _encoder(folder, config),
        config.data.cohort is None,
        config.resamples,
        config.seed,
        tables_in(folder, endpoint),
        _patients(folder, config),
        config,
    )


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Where each fold's checkpoint lies, in order; empty where a run was chosen out of several."""
    found = {int(path.parent.name.removeprefix("fold_")): path for path in folder.glob("fold_*/checkpoint")}
    alone = folder / "checkpoint"
    return dict(sorted(found.items())) or ({0: alone} if alone.is_dir() else {})


def tables_in(folder: Path, endpoint: Endpoint) -> dict[str, pd.DataFrame]:
    """A folder's tables of predictions, by name."""
    found = {name: folder / f"{name}.csv" for name in ("predictions", *BESIDE, "oracle")}
    return {name: read(path, endpoint.columns) for name, path in found.items() if path.is_file()}


def by_patient(table: pd.DataFrame) -> pd.DataFrame:
    """A clinical table with one row a patient, indexed by it: the first value of each column that says anything."""
    known = table.drop(columns="slide", errors="ignore").astype(str)
    said = known.mask(known.apply(lambda column: column.str.strip().str.casefold().isin(MISSING)))
    rows = said.assign(patient=known["patient"]).groupby("patient", sort=True).first()
    return rows.fillna("")


def _model(config: RunConfig) -> str:
    """The choice of `conf/model/` that says the most of what the run's options say, else the name of the class."""
    own = config.model.plain()
    fits = {
        name: len(said)
        for name, said in described("model").items()
        if all(own.get(key) == value for key, value in said.items())
    }
    return max(fits, key=lambda name: fits[name]) if fits else config.model.target.rpartition(".")[2]


def _encoder(folder: Path, config: RunConfig) -> str:
    """What the feature files were, as the first checkpoint knows it, where the options leave it to them."""
    manifest = next(iter(sorted(folder.glob("**/checkpoint/manifest.json"))), None)
    if config.encoder.options.name != "auto" or manifest is None:
        return config.encoder.options.name
    return str(files.read_json(manifest)["encoder"]["name"])


def _patients(folder: Path, config: RunConfig) -> pd.DataFrame | None:
    """From the run's own copy, else from the cohort's table where that still lies where it was."""
    own = folder / PATIENTS
    if own.is_file():
        return by_patient(read_table(own))
    path = None if config.data.cohort is None else Path(config.data.cohort).expanduser()
    if path is None or not path.is_file():
        logger.info("%s: no %s, and the cohort's table is not at hand: no subgroups", folder, PATIENTS)
        return None
    columns = Columns(**config.data.columns.plain())
    return by_patient(identified(path, read_table(path), columns, ("patient",), set()))


def titles(folders: list[Path]) -> Iterator[str]:
    """A short name for each run: the part of its path that tells it from the others."""
    parts = [folder.resolve().parts for folder in folders]
    shared = 0
    while len(set(parts)) > 1 and len({part[: shared + 1] for part in parts}) == 1:
        shared += 1
    alike = set(parts)
    for part in parts:
        yield "/".join(part[shared:]) if len(alike) > 1 else part[-1]

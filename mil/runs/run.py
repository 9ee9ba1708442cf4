"""Open a finished run's folder: its configuration, its tables of predictions, and its table of patients."""

import logging
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mil import checkpoint
from mil.cohort.columns import Columns, identified
from mil.config import described
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError, PredictionsError
from mil.fitted.state import FittedState
from mil.report.evaluation import Evaluation
from mil.report.prediction_files import read
from mil.runs.leaderboard import Entry
from mil.runs.states import checkpoints_in, read_states
from mil.study import build
from mil.study.compose import read_config
from mil.study.run_config import RunConfig
from mil.study.tool import Tool
from mil.tables import MISSING, read_table, require, says_simulated

COMPARATORS = ("baseline", "covariates")
"""Names of the tables of simpler models."""
ENCODERS = "encoders"
"""Name of the table of predictions from each of several encoders alone."""
PATIENTS = "patients.csv"
"""The clinical table as the run read it, one row per patient; older runs have none."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder, or a released folder, holds.

    Attributes:
        folder: Where it lies.
        tool: What was asked.
        endpoint: What is predicted; not fitted.
        model: Class of the model.
        encoder: Name of the encoder.
        simulated: Whether the cohort is simulated.
        resamples: Bootstrap resamples of its reports.
        seed: Seed of the bootstrap.
        tables: `predictions`, and as far as the folder has them `baseline`, `covariates` and `oracle`.
        patients: The clinical table, text cells, indexed by patient; None if it is not available.
        states: What was fitted with each fold's model, by fold; reports apply it.
        config: All options; None for a released folder, which has a manifest instead.
    """

    folder: Path
    tool: Tool
    endpoint: Endpoint
    model: str
    encoder: str
    simulated: bool
    resamples: int
    seed: int
    tables: Mapping[str, pd.DataFrame]
    patients: pd.DataFrame | None
    states: Mapping[Hashable, FittedState]
    config: RunConfig | None = None

    @property
    def reports(self) -> bool:
        """Whether any patient has the role `report`."""
        return bool((self.tables["predictions"]["role"] == "report").any())

    @property
    def figures(self) -> bool:
        """Whether the options ask for figures."""
        return self.config is None or self.config.figures

    def evaluation(self, name: str = "predictions", resamples: int | None = None) -> Evaluation:
        """Return what sections and comparisons read, for one of the tables.

        Baselines have no fitted state: their scores are compared, they make no calls.

        Raises:
            PredictionsError: if the table cannot be evaluated.
        """
        resamples = self.resamples if resamples is None else resamples
        states = self.states if name == "predictions" else {}
        return Evaluation.of(self.tables[name], self.endpoint, self.tool, self.patients, resamples, self.seed, states)

    def entry(self, name: str, resamples: int | None = None) -> Entry:
        """Return the run as an entry of a leaderboard."""
        return Entry(
            name,
            self.evaluation(resamples=resamples),
            model=self.model.rpartition(".")[2] if self.config is None else _model_name(self.config),
            encoder=self.encoder,
            baseline=self.evaluation("baseline", resamples) if "baseline" in self.tables else None,
            simulated=self.simulated,
        )


def open_run(folder: Path) -> Run:
    """Read a run's folder without writing to it.

    Raises:
        ConfigError: if the folder holds no finished run.
        PredictionsError: if a file is no table of predictions.
    """
    for name in ("config.yaml", "predictions.csv"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: holds no {name}, expected a finished run")
    config = read_config(folder / "config.yaml")
    endpoint = build.endpoint(config)
    tables = read_tables(folder, endpoint)
    return Run(
        folder=folder,
        tool=config.tool,
        endpoint=endpoint,
        model=config.model.target,
        encoder=_encoder_name(folder, config),
        simulated=config.data.cohort is None or says_simulated(tables["predictions"]),
        resamples=config.resamples,
        seed=config.seed,
        tables=tables,
        patients=_patients(folder, config),
        states=read_states(folder),
        config=config,
    )


def read_tables(folder: Path, endpoint: Endpoint) -> dict[str, pd.DataFrame]:
    """Return a folder's tables of predictions, by name.

    Raises:
        PredictionsError: if a file is no table of a run's predictions.
    """
    paths = {name: folder / f"{name}.csv" for name in ("predictions", *COMPARATORS, ENCODERS, "oracle")}
    tables = {name: read(path, endpoint.columns) for name, path in paths.items() if path.is_file()}
    for name, table in tables.items():
        require(paths[name], table, ["patient"] if name == "oracle" else ["patient", "fold", "role"], PredictionsError)
    return tables


def one_row_per_patient(table: pd.DataFrame) -> pd.DataFrame:
    """Return a clinical table indexed by patient, with the first value of each column that is not missing."""
    cells = table.drop(columns="slide", errors="ignore").astype(str)
    stated = cells.mask(cells.apply(lambda column: column.str.strip().str.casefold().isin(MISSING)))
    rows = stated.assign(patient=cells["patient"]).groupby("patient", sort=True).first()
    return rows.fillna("")


def _model_name(config: RunConfig) -> str:
    """Return the choice of `conf/model/` that agrees with most options of the run, otherwise the class name."""
    options = config.model.plain()
    agreeing = {
        name: len(choice)
        for name, choice in described("model").items()
        if all(options.get(key) == value for key, value in choice.items())
    }
    return max(agreeing, key=lambda name: agreeing[name]) if agreeing else config.model.target.rpartition(".")[2]


def _encoder_name(folder: Path, config: RunConfig) -> str:
    """Return the encoder of the options; if they leave it to the feature files, that of the first checkpoint."""
    name, places = config.encoder.options.name, checkpoints_in(folder)
    if name != "auto" or not places:
        return name
    return checkpoint.unverified(next(iter(places.values()))).encoder.name


def _patients(folder: Path, config: RunConfig) -> pd.DataFrame | None:
    """Read the run's own copy of the clinical table, otherwise the cohort's table if it still exists."""
    copy = folder / PATIENTS
    if copy.is_file():
        return one_row_per_patient(read_table(copy))
    path = None if config.data.cohort is None else Path(config.data.cohort).expanduser()
    if path is None or not path.is_file():
        logger.info("%s: no %s and no table of the cohort: no subgroups", folder, PATIENTS)
        return None
    columns = Columns(**config.data.columns.plain())
    return one_row_per_patient(identified(path, read_table(path), columns, ("patient",), set()).require())


def titles(folders: list[Path]) -> Iterator[str]:
    """Yield a short name for each run: its path without the folders that all runs share."""
    paths = [folder.resolve().parts for folder in folders]
    distinct = set(paths)
    shared = 0
    while len(distinct) > 1 and len({path[: shared + 1] for path in paths}) == 1:
        shared += 1
    for path in paths:
        yield "/".join(path[shared:]) if len(distinct) > 1 else path[-1]

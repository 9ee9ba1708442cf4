"""A run from its configuration to its report: read, train, evaluate and describe, all in one folder."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mil import files
from mil.errors import ConfigError, MilError
from mil.findings import log_warnings
from mil.report.sections.levels import used_columns
from mil.runs.describe import describe_run
from mil.runs.run import PATIENTS, one_row_per_patient
from mil.splits.folds import Split
from mil.study.compose import read_config, write_config
from mil.study.pipeline import prepare_study, split_study
from mil.study.rehearsal import rehearse
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.tables import SIMULATED_COLUMN, csv_text
from mil.training.train import train

logger = logging.getLogger("mil")
CONFIG, SPLIT = "config.yaml", "split.csv"


def fit_run(config: RunConfig, folder: Path, study: Study | None = None) -> float | None:
    """Train every fold, evaluate the run and write its report and cards.

    A folder that already holds this run is continued: finished folds are kept, a fold that was stopped goes on from its
    last epoch. A new folder is removed again if the run fails before its first epoch.

    Args:
        config: All options.
        folder: The run folder.
        study: The patients, if they have been read already; None reads them as the configuration says.

    Returns:
        The first metric of the report; None if no patient is reported.

    Raises:
        ConfigError: The folder holds a run with other options, or another process uses it.
        MilError: An error in options, cohort, features or split.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):  # importing Lightning sets their levels
        logging.getLogger(name).setLevel(logging.WARNING)
    begun = (folder / CONFIG).exists()
    if begun:
        _check_same_options(config, folder)
    study, split = _prepare(config, study, folder / SPLIT if begun else None)
    with _new_folder(folder), files.locked(folder) as free:
        if not free:
            raise ConfigError(f"{folder} is in use by another process, expected a folder of its own for each run")
        with _log_file(folder):
            if not begun:
                log_warnings([*study.findings, *split.findings])
                write_inputs(config, study, split, folder)
            train(config, study, split, folder)
            return describe_run(folder)


def resume_run(folder: Path) -> float | None:
    """Continue a run with the options that it has; arguments and errors as `fit_run`.

    Raises:
        ConfigError: The folder holds no run.
    """
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"--resume {folder}: holds no {CONFIG}, expected a run folder")
    return fit_run(read_config(folder / CONFIG), folder)


def _prepare(config: RunConfig, study: Study | None, split_file: Path | None) -> tuple[Study, Split]:
    if study is None:
        return prepare_study(config, split_file)
    rehearse(config, study)
    patients = list(study.patients.index)
    return study, Split.read(split_file, patients) if split_file else split_study(config, study)


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Make a run's folder; remove it again, with the parents made for it, if the run fails before its first epoch."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    new = existing != folder or not any(folder.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except (MilError, OSError):
        if new and not any(folder.rglob("last.ckpt")):
            shutil.rmtree(folder)
            for parent in folder.parents:
                if parent in (existing, *existing.parents) or any(parent.iterdir()):
                    break
                parent.rmdir()
        raise


@contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Also write the package's log to the run's log.txt."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # it is unset in a notebook and in the worker process of a launcher
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


def write_inputs(config: RunConfig, study: Study, split: Split, folder: Path) -> None:
    """Write split, patients and, of a simulated cohort, the truth; config.yaml last, as it marks a folder as begun."""
    split.write(folder / SPLIT)
    patients = one_row_per_patient(study.cohort.table)
    columns = [*used_columns(patients.columns, config.tool), *({SIMULATED_COLUMN} & set(patients.columns))]
    files.write(folder / PATIENTS, csv_text(patients[list(dict.fromkeys(columns))], index=True))
    if study.truth is not None:
        files.write(folder / "oracle.csv", (study.truth / "truth.csv").read_bytes())
    write_config(folder / CONFIG, config)


def _check_same_options(config: RunConfig, folder: Path) -> None:
    """Check that the run in a folder has the same options; other options would mix two runs."""
    earlier = dict(_leaves(read_config(folder / CONFIG).plain()))
    now = dict(_leaves(config.plain()))
    for key in sorted(earlier.keys() | now.keys()):
        if earlier.get(key) != now.get(key):
            raise ConfigError(
                f"{folder} holds a run with {key}={earlier.get(key)}, found {key}={now.get(key)}; expected a new folder"
            )


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node

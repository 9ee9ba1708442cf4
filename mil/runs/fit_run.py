"""A run from its configuration to its report: read, train, evaluate and describe, all in one folder."""

import itertools
import logging
import shlex
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mil import files, interruption
from mil.errors import ConfigError, MilError, TrainingError
from mil.features.feature_cache import fill_copies
from mil.findings import log_warnings, raise_first_error
from mil.interruption import Interrupted
from mil.output_places import check_run_folder
from mil.report.sections.levels import used_columns
from mil.runs.describe import describe_run
from mil.runs.run import PATIENTS, one_row_per_patient
from mil.runs.run_inputs import (
    CONFIG,
    SPLIT,
    accepted_now,
    changed_files,
    changes,
    input_paths,
    read_inputs,
    record_inputs,
)
from mil.runs.run_log import log_file
from mil.slide_names import FEATURE_ENDINGS
from mil.splits.folds import Split
from mil.storage import read_bytes
from mil.study.available_devices import PROCESSES
from mil.study.compose import read_config, write_config
from mil.study.copied_files import copied_files
from mil.study.pipeline import prepare_study, split_study
from mil.study.rehearsal import rehearse
from mil.study.run_config import RunConfig
from mil.study.source import cache_options
from mil.study.study import Study
from mil.tables import SIMULATED_COLUMN, csv_text
from mil.training import saved_state, several_devices, side_by_side
from mil.training.train import fold_folder, is_trained, train, train_fold

logger = logging.getLogger("mil")
_FREE = frozenset({*PROCESSES, "data.cache", "data.cache_gib"})
"""Options on which no number depends: a run may go on with others."""


class FittedRun(NamedTuple):
    """A finished run."""

    folder: Path
    value: float | None
    """of the first metric of the report; None if no patient is reported"""


class BegunRun(NamedTuple):
    """A run whose folder holds its options, its split and its inputs."""

    folder: Path
    unfinished: tuple[int, ...]
    """the folds to train, as `split.csv` has them"""
    folds: int
    existing: Path | None
    """the nearest folder above that was there before; None for a run that had begun before"""


def fit_run(
    config: RunConfig,
    folder: Path,
    study: Study | None = None,
    *,
    accept_changes: bool = False,
    always_new: bool = False,
) -> FittedRun:
    """Train every fold, evaluate the run and write its report and cards.

    A folder that already holds this run is continued: finished folds are kept, a fold that was stopped goes on from its
    last epoch. A new folder is removed again if the run fails before its first epoch.

    Args:
        config: All options.
        folder: The run folder.
        study: The patients, if they have been read already; None reads them as the configuration says.
        accept_changes: Whether a begun run goes on with tables, split or features that have changed since.
        always_new: Whether a folder that exists is another run's; this one then gets a number after its name.

    Raises:
        ConfigError: The folder holds a run with other options, another process uses it, or its inputs have changed.
        MilError: An error in options, cohort, features or split.
        Interrupted: A signal asks to stop; the run can be continued if it has begun.
    """
    _quieten_lightning()
    with (
        interruption.listening(),
        _resumable(folder),
        several_devices.team(config) as team,
        side_by_side.started_ahead(config) as ahead,
    ):
        begun = (folder / CONFIG).exists() and not always_new
        if begun:
            _check_same_options(config, folder)
        elif not always_new:
            check_run_folder(folder, input_paths(config), FEATURE_ENDINGS)
        study, split = _prepare_begun(config, study, folder) if begun else _prepare(config, study, None)
        with _claimed(folder, begun, always_new) as place, _resumable(place), log_file(place):
            files.clean(place)
            _copy_features(config, study, place)
            if begun:
                _check_inputs(config, study, place, accept_changes)
            else:
                log_warnings([*study.findings, *split.findings])
                write_inputs(config, study, split, place)
            train(config, study, split, place, team, ahead)
            return FittedRun(place, describe_run(place))


def begin_run(config: RunConfig, folder: Path, *, accept_changes: bool = False, always_new: bool = False) -> BegunRun:
    """Begin a run, or check one that has begun, without training: `fit_fold` trains its folds, `fit_run` does the rest.

    Arguments and errors are those of `fit_run`.

    Raises:
        ConfigError: Several devices, which train together only where `fit_run` starts them.
    """
    if (count := config.trainer.options.device_count) > 1:
        raise ConfigError(
            f"trainer.devices={count} in jobs of a cluster: a job trains a fold on one device, expected 1"
        )
    _quieten_lightning()
    if config.data.cache_dtype is not None:  # what is rounded is recorded where a run begins, and jobs copy later
        dtype = config.data.cache_dtype
        raise ConfigError(f"data.cache_dtype={dtype}: the jobs of a cluster read what is stored, expected null")
    begun = (folder / CONFIG).exists() and not always_new
    if begun:
        _check_same_options(config, folder)
    elif not always_new:
        check_run_folder(folder, input_paths(config), FEATURE_ENDINGS)
    study, split = _prepare_begun(config, None, folder) if begun else _prepare(config, None, None)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    with _claimed(folder, begun, always_new) as place, log_file(place):
        files.clean(place)
        if begun:
            _check_inputs(config, study, place, accept_changes)
        else:
            log_warnings([*study.findings, *split.findings])
            write_inputs(config, study, split, place)
    unfinished = tuple(number for number in split.folds if not is_trained(fold_folder(split, number, place)))
    return BegunRun(place, unfinished, len(split.folds), None if begun else existing)


def fit_fold(config: RunConfig, folder: Path, number: int) -> None:
    """Train one fold of a run that has begun; other processes may train the others at the same time.

    Args:
        config: All options.
        folder: The run folder.
        number: The fold, as in `split.csv`.

    Raises:
        ConfigError: Tables, split or features have changed since, or another process trains the fold.
        MilError: An error in features or training.
        Interrupted: A signal asks to stop; the state is saved.
    """
    _quieten_lightning()
    with interruption.listening(), _resumable(folder):
        study, split = _prepare_begun(config, None, folder)
        _check_inputs(config, study, folder, accept=False)
        _copy_features(config, study, folder)
        train_fold(config, study, split, number, folder)


def discard_run(run: BegunRun) -> None:
    """Remove a run that was begun for nothing; nothing where its folder held a run before."""
    if run.existing is not None:
        _remove(run.folder, run.existing)


def resume_run(
    folder: Path, accept_changes: bool = False, processes: Mapping[str, object] = MappingProxyType({})
) -> FittedRun:
    """Continue a run with the options that it has; other arguments and errors as `fit_run`.

    Args:
        folder: The run folder.
        accept_changes: As of `fit_run`.
        processes: `parallel` and `trainer.devices` where they are to be others: the weights do not depend on them.

    Raises:
        ConfigError: The folder holds no run.
    """
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"--resume {folder}: holds no {CONFIG}, expected a run folder")
    config = read_config(folder / CONFIG)
    if processes:
        strategy = {"trainer.strategy": "ddp"} if config.trainer.options.by_bag else {}
        config = config.replaced({**strategy, **processes})
    return fit_run(config, folder, accept_changes=accept_changes)


def _quieten_lightning() -> None:
    """Leave out Lightning's lines of information, and its advice to users of login nodes, who submit jobs by us."""
    for name in ("lightning.pytorch", "lightning.fabric"):  # importing Lightning sets their levels
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")


def _copy_features(config: RunConfig, study: Study, folder: Path) -> None:
    """Copy the features to `data.cache`, unless the run is finished and reads none."""
    options = cache_options(config)
    if options is not None and not (folder / "predictions.csv").is_file():
        fill_copies(options, study.store, study.cohort.table["slide"])


def _new_folder(folder: Path) -> Path:
    """Make a folder that no other process has, and return it: of this name, or with a number after it.

    The default name of a run folder holds the second of its start, in which other runs may start too.
    """
    place = folder
    for number in itertools.count(2):
        try:
            place.mkdir(parents=True)
            break
        except FileExistsError:
            place = folder.with_name(f"{folder.name}-{number}")
    return place


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Say with an interruption how a run that has begun is continued."""
    try:
        yield
    except Interrupted as stop:
        if (folder / CONFIG).is_file():
            stop.resume = f"mil train --resume {shlex.quote(str(folder))}"
        raise


def _prepare(config: RunConfig, study: Study | None, split_file: Path | None) -> tuple[Study, Split]:
    if study is None:
        study, split = prepare_study(config, split_file)
    else:
        rehearse(config, study)
        patients = list(study.patients.index)
        split = Split.read(split_file, patients) if split_file else split_study(config, study)
    copied = copied_files(study, split)
    raise_first_error(copied)
    return replace(study, findings=(*study.findings, *copied)), split


def _prepare_begun(config: RunConfig, study: Study | None, folder: Path) -> tuple[Study, Split]:
    """Return study and split of a begun run; where they cannot be made, say which tables have changed since."""
    try:
        return _prepare(config, study, folder / SPLIT)
    except MilError as error:
        record = read_inputs(folder)
        changed = [] if record is None else changed_files(record, config, folder)
        if not changed:
            raise
        raise type(error)(f"{error} ({' and '.join(changed)} changed since the run in {folder} began)") from error


def _check_inputs(config: RunConfig, study: Study, folder: Path, accept: bool) -> None:
    """Check that a run goes on with what it was begun with; a finished run needs nothing of it.

    Raises:
        ConfigError: Tables, split or features have changed, and this is not accepted.
    """
    record = read_inputs(folder)
    if record is None or (folder / "predictions.csv").is_file():
        return
    sentences = changes(record, config, study, folder)
    if not sentences:
        return
    if not accept:
        raise ConfigError(
            f"{folder}: {'; '.join(sentences)}: one run would be of two truths; restore them, start anew in another "
            "folder, or go on with --accept-changes, which the report will say"
        )
    logger.warning("going on although %s", "; ".join(sentences))
    record_inputs(config, study, folder, accepted_now(record, sentences))


@contextmanager
def _claimed(folder: Path, begun: bool, always_new: bool) -> Iterator[Path]:
    """Make and lock a run's folder; remove a new one again if the run fails before its first epoch.

    Only who holds the lock removes anything, so that a second process cannot destroy the run of the first.

    Raises:
        ConfigError: Another process holds the lock.
    """
    existing = next(path for path in (folder.parent if always_new else folder, *folder.parents) if path.exists())
    new = existing != folder or always_new or not any(folder.iterdir())
    if always_new:
        folder = _new_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder) as free:
        if not free or begun != (folder / CONFIG).exists():  # another process has begun a run in the meantime
            raise ConfigError(f"{folder} is in use by another process, expected a folder of its own for each run")
        try:
            yield folder
        except (MilError, OSError, Interrupted) as error:
            has_something = isinstance(error, TrainingError) or saved_state.exists(folder)
            stopped = isinstance(error, Interrupted) and (folder / CONFIG).exists()
            if new and not has_something and not stopped:
                _remove(folder, existing)
            raise


def _remove(folder: Path, existing: Path) -> None:
    """Remove a folder, and the parents that were made for it and are empty."""
    shutil.rmtree(folder)
    for parent in folder.parents:
        if parent in (existing, *existing.parents) or any(parent.iterdir()):
            break
        parent.rmdir()


def write_inputs(config: RunConfig, study: Study, split: Split, folder: Path) -> None:
    """Write split, patients and, of a simulated cohort, the truth; config.yaml last, as it marks a folder as begun."""
    split.write(folder / SPLIT)
    patients = one_row_per_patient(study.cohort.table)
    columns = [*used_columns(patients.columns, config.tool), *({SIMULATED_COLUMN} & set(patients.columns))]
    files.write(folder / PATIENTS, csv_text(patients[list(dict.fromkeys(columns))], index=True))
    if study.truth is not None:
        files.write(folder / "oracle.csv", read_bytes(study.truth / "truth.csv"))
    record_inputs(config, study, folder)
    write_config(folder / CONFIG, config)


def _check_same_options(config: RunConfig, folder: Path) -> None:
    """Check that the run in a folder has the same options; others would mix two runs."""
    earlier, now = _deciding(read_config(folder / CONFIG)), _deciding(config)
    for key in sorted(earlier.keys() | now.keys()):
        if earlier.get(key) != now.get(key):
            raise ConfigError(
                f"{folder} holds a run with {key}={earlier.get(key)}, found {key}={now.get(key)}; expected a new folder"
            )


def _deciding(config: RunConfig) -> dict[str, object]:
    """Return the options by dotted name, but for those on which the weights do not depend."""
    options = {key: value for key, value in _leaves(config.plain()) if key not in _FREE}
    return options | {"trainer.strategy": "ddp" if config.trainer.options.by_bag else "auto"}


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node

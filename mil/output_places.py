"""Decides where a command may write: never over what it reads, over another result, or over a file of another kind."""

import csv
from collections.abc import Collection, Iterable
from pathlib import Path

from mil.errors import ConfigError
from mil.files import LOCK

RUN, CHECKPOINT = "config.yaml", "manifest.json"
"""Files that only the folder of a run, and that of a checkpoint, have."""
_OF_RUN = ("split.csv", "predictions.csv", "report.json", "looks.json")
"""Further files of a run: a folder of somebody else's may hold a config.yaml."""
_OF_CHECKPOINT = "weights.safetensors"
RUN_FILES = (
    *("patients.csv", "predictions.csv", "baseline.csv", "covariates.csv", "split.csv", "oracle.csv"),
    *("report.json", "report.html", "inputs.json", "looks.json", "fitted.json", CHECKPOINT),
    *("checkpoint", "figures", "fold_0"),
)
"""Files and folders that a new run writes and would replace."""
_TABLES = (".csv", ".tsv", ".txt", "")
_PREDICTED = ("tool", "version", "tiles")
"""Columns of every table that `mil predict` writes, besides that of the patient or slide."""


def check_output_file(out: Path, inputs: Iterable[Path | None], option: str = "--out") -> None:
    """Check that a file may be written; an earlier table of predictions of that name is replaced.

    Args:
        out: The file.
        inputs: Files and folders that the command reads; None for those that are not given.
        option: How messages call it.

    Raises:
        ConfigError: It is an input, or a file in a folder of inputs; it is in a checkpoint, or a file of a run; or it
            is something else than a table of predictions, such as a clinical table, a folder, a pipe or a device.
    """
    _refuse_inputs(out, inputs, option)
    _refuse_results(out, option, out.exists())
    if out.exists() and not out.is_file():
        raise ConfigError(f"{option} {out}: is no file, expected a new file or one to replace")
    if out.exists() and not _is_replaceable(out):
        raise ConfigError(f"{option} {out}: is there already and is no table of predictions, expected a new file")


def check_output_folder(
    out: Path, inputs: Iterable[Path | None], earlier: str | None = None, option: str = "--out"
) -> None:
    """Check that results may be written into a folder: a new or empty one, or one of an earlier look.

    Args:
        out: The folder.
        inputs: Files and folders that the command reads; None for those that are not given.
        earlier: A file that the folder of an earlier result of this command holds; None accepts every folder but that
            of a run or a checkpoint.
        option: How messages call it.

    Raises:
        ConfigError: It holds something else, such as a run or a checkpoint, or it is a folder of inputs or within one.
    """
    _refuse_inputs(out, inputs, option)
    is_look = earlier is not None and (out / earlier).is_file()
    _refuse_results(out, option, out.exists() and not is_look)
    if not out.exists():
        return
    for name, kind in ((RUN, "a run"), (CHECKPOINT, "a checkpoint")):
        if (out / name).exists():
            raise ConfigError(f"{option} {out}: holds {kind}, expected a new folder, or one of an earlier look")
    is_foreign = earlier is not None and out.is_dir() and any(out.iterdir()) and not (out / earlier).is_file()
    if is_foreign or not out.is_dir():
        raise ConfigError(f"{option} {out}: is there already, expected a new folder, or one of an earlier look")


def check_run_folder(folder: Path, inputs: Iterable[Path | None], endings: Collection[str] = ()) -> None:
    """Check that a new run may be written into a folder, which may hold other things, such as the log of a scheduler.

    Args:
        folder: The folder, which holds no run.
        inputs: Files and folders that the run reads; None for those that are not given.
        endings: Of feature files.

    Raises:
        ConfigError: It is a folder of inputs or within one, holds feature files, or files that the run would replace;
            or it is in a checkpoint.
    """
    option = "hydra.run.dir"
    place = folder.resolve()
    for source in (each.resolve() for each in inputs if each is not None):
        if place == source or (source.is_dir() and source in place.parents):
            raise ConfigError(f"{option} {folder}: is or lies in {source}, which is read, expected a folder of its own")
    _refuse_results(folder, option, is_replaced=False)
    if not folder.is_dir():
        return
    was_begun = (folder / LOCK).exists()  # by a process that was killed before it could write config.yaml
    names = sorted(
        path.name for path in folder.iterdir() if (path.name in RUN_FILES and not was_begun) or path.suffix in endings
    )
    if names:
        raise ConfigError(f"{option} {folder}: holds {names[0]}, expected a new folder")


def _refuse_results(out: Path, option: str, is_replaced: bool) -> None:
    """Refuse a place within a checkpoint, and one within a run where something is replaced.

    Raises:
        ConfigError: It is such a place.
    """
    for folder in out.resolve().parents:
        if (folder / CHECKPOINT).is_file() and (folder / _OF_CHECKPOINT).is_file():
            raise ConfigError(f"{option} {out}: lies in the checkpoint {folder}, expected another place")
        is_run = (folder / RUN).is_file() and any((folder / name).is_file() for name in _OF_RUN)
        if is_replaced and is_run:
            raise ConfigError(f"{option} {out}: is there already and belongs to the run {folder}, expected a new place")


def _is_replaceable(path: Path) -> bool:
    """Return whether a file is empty or a table of predictions: of a patient or slide, with tiles and what made it."""
    if path.suffix.casefold() not in _TABLES:
        return False
    with path.open("rb") as file:
        header = file.readline(1 << 16).decode("utf-8-sig", "replace").strip()
    columns = next(csv.reader([header]), [])
    return not columns or (columns[0] in ("patient", "slide") and set(_PREDICTED) <= set(columns))


def _refuse_inputs(out: Path, inputs: Iterable[Path | None], option: str) -> None:
    place = out.resolve()
    for each in inputs:
        if each is None:
            continue
        source = each.resolve()
        if place == source:
            raise ConfigError(f"{option} {out}: is {each}, which is read, expected another place")
        if source.is_dir() and source in place.parents and place.exists():
            raise ConfigError(
                f"{option} {out}: is there already and lies in {each}, which is read, expected another place"
            )

"""Decides where a command may write: never over or into what it reads, over another result, or over a foreign file.

Every command asks here before it writes. Three questions differ by what is written: a file, a folder of results, or the
folder of a run; `_check_place` is the part that is the same for all.
"""

import csv
from collections.abc import Collection, Iterable
from pathlib import Path

from mil.errors import ConfigError
from mil.files import LOCK
from mil.storage import special_kind

RUN, CHECKPOINT = "config.yaml", "manifest.json"
"""Files that only the folder of a run, and that of a checkpoint, have."""
RESULTS = {
    RUN: "a run",
    CHECKPOINT: "a checkpoint",
    "looks.json": "an evaluation on a cohort",
    "explain.json": "explanations",
    "instability.json": "an evaluation of instability",
    "site.json": "an audit of sites",
    "leaderboard.csv": "a comparison of runs",
    "origin.json": "tables of tiles",
    "truth.csv": "a simulated cohort",
    "meta.json": "a job of a federation",
}
"""Files by which the folder of each command's result is recognised, and what the result is."""
_OF_RUN = ("split.csv", "predictions.csv", "report.json", "looks.json")
"""Further files of a run: a folder of somebody else's may hold a config.yaml."""
_OF_CHECKPOINT = "weights.safetensors"
RUN_FILES = (
    *("patients.csv", "predictions.csv", "baseline.csv", "covariates.csv", "split.csv", "oracle.csv"),
    *("report.json", "report.html", "inputs.json", "looks.json", "manifests.json", "fitted.json", CHECKPOINT),
    *("checkpoint", "figures", "fold_0"),
)
"""Files and folders that a new run writes and would replace."""
_TABLES = (".csv", ".tsv", ".txt", "")
_PREDICTED = ("tool", "version", "tiles")
"""Columns of every table that `mil predict` writes, besides that of the patient or slide."""


def check_output_file(
    out: Path, inputs: Iterable[Path | None], option: str = "--out", replaces_predictions: bool = False
) -> None:
    """Check that a file may be written.

    Args:
        out: The file.
        inputs: Files and folders that the command reads; None for those that are not given.
        option: How messages call it.
        replaces_predictions: Whether it may be an earlier table of predictions, which is replaced.

    Raises:
        ConfigError: It is an input, or lies in a folder of inputs; it is in a checkpoint, or a file of a result; or it
            is something else than a new or empty file, such as a clinical table, a folder, a pipe or a device.
    """
    _check_place(out, inputs, option)
    _refuse_results(out, option, out.exists())
    if not out.exists():
        return
    if (kind := special_kind(out)) is not None:
        raise ConfigError(f"{option} {out}: is no file but {kind}, expected a new file")
    if holder := next((what for name, what in RESULTS.items() if (out.resolve().parent / name).is_file()), None):
        raise ConfigError(f"{option} {out}: is there already in a folder that holds {holder}, expected a new file")
    if out.stat().st_size and not (replaces_predictions and _is_predictions(out)):
        expected = "no table of predictions, expected a new file" if replaces_predictions else "expected a new file"
        raise ConfigError(f"{option} {out}: is there already{' and is ' if replaces_predictions else ', '}{expected}")


def check_output_folder(
    out: Path, inputs: Iterable[Path | None], earlier: str | None = None, option: str = "--out"
) -> None:
    """Check that results may be written into a folder: a new or empty one, or one of an earlier result of the command.

    Args:
        out: The folder.
        inputs: Files and folders that the command reads; None for those that are not given.
        earlier: A file that the folder of an earlier result of this command holds, and which is then replaced; None
            accepts a new or empty folder only.
        option: How messages call it.

    Raises:
        ConfigError: It holds something else, such as a run or a checkpoint; or it is a folder of inputs, lies in one,
            or is the folder in which a table lies that is read.
    """
    _check_place(out, inputs, option)
    is_earlier = earlier is not None and (out / earlier).is_file()
    _refuse_results(out, option, out.exists() and not is_earlier)
    if not out.exists():
        _refuse_dangling(out, option)
        return
    expected = "expected a new folder" if earlier is None else "expected a new folder, or one of an earlier look"
    for name, kind in RESULTS.items():
        if name != earlier and (out / name).is_file():
            raise ConfigError(f"{option} {out}: holds {kind}, {expected}")
    if not out.is_dir() or (not is_earlier and any(out.iterdir())):
        raise ConfigError(f"{option} {out}: is there already, {expected}")


def check_tools_folder(out: Path, inputs: Iterable[Path | None], option: str = "--out") -> None:
    """Check that a released tool may be written into a folder: a new or empty one, or one that holds released tools.

    Raises:
        ConfigError: It holds something else and no tool, or as in `check_output_folder`.
    """
    is_of_tools = out.is_dir() and any((place / CHECKPOINT).is_file() for place in out.iterdir())
    if not is_of_tools:
        check_output_folder(out, inputs, None, option)
        return
    _check_place(out, inputs, option)
    _refuse_results(out, option, is_replaced=True)
    for name, kind in RESULTS.items():
        if (out / name).is_file():
            raise ConfigError(f"{option} {out}: holds {kind}, expected a folder of released tools")


def check_run_folder(
    folder: Path, inputs: Iterable[Path | None], endings: Collection[str] = (), option: str = "hydra.run.dir"
) -> None:
    """Check that a new run may be written into a folder, which may hold other things, such as the log of a scheduler.

    Args:
        folder: The folder, which holds no run.
        inputs: Files and folders that the run reads; None for those that are not given.
        endings: Of feature files.
        option: How messages call it.

    Raises:
        ConfigError: It is a folder of inputs or within one, holds feature files, or files that the run would replace;
            or it is in a checkpoint.
    """
    _check_place(folder, inputs, option)
    _refuse_results(folder, option, is_replaced=False)
    if not folder.is_dir():
        if folder.exists():
            raise ConfigError(f"{option} {folder}: is no folder, expected a new one")
        _refuse_dangling(folder, option)
        return
    # by a process that was killed before it could write config.yaml
    was_begun = (folder / LOCK).exists() and not (folder / RUN).exists()
    replaced = (*RUN_FILES, *RESULTS)
    names = sorted(
        path.name for path in folder.iterdir() if (path.name in replaced and not was_begun) or path.suffix in endings
    )
    if names:
        raise ConfigError(f"{option} {folder}: holds {names[0]}, expected a new folder")


def _refuse_dangling(folder: Path, option: str) -> None:
    if folder.is_symlink():
        raise ConfigError(
            f"{option} {folder}: is a link to {folder.readlink()}, which is not there, expected a new folder"
        )


def _check_place(out: Path, inputs: Iterable[Path | None], option: str) -> None:
    """Refuse what is read, what lies in a folder that is read, and a folder in which a file lies that is read.

    A run that is read may get new folders and files in it.

    Raises:
        ConfigError: It is such a place.
    """
    place = out.resolve()
    for each in inputs:
        if each is None:
            continue
        source = each.resolve()
        if place == source:
            raise ConfigError(f"{option} {out}: is {each}, which is read, expected another place")
        if source in place.parents and source.is_dir() and not _is_run(source):
            raise ConfigError(f"{option} {out}: lies in {each}, which is read, expected another place")
        if place == source.parent and source.is_file():
            raise ConfigError(f"{option} {out}: holds {each}, which is read, expected a folder of its own")


def _is_run(folder: Path) -> bool:
    return (folder / RUN).is_file() and any((folder / name).is_file() for name in _OF_RUN)


def _refuse_results(out: Path, option: str, is_replaced: bool) -> None:
    """Refuse a place within a checkpoint, and one within a run where something is replaced.

    Raises:
        ConfigError: It is such a place.
    """
    for folder in out.resolve().parents:
        if (folder / CHECKPOINT).is_file() and (folder / _OF_CHECKPOINT).is_file():
            raise ConfigError(f"{option} {out}: lies in the checkpoint {folder}, expected another place")
        if is_replaced and _is_run(folder):
            raise ConfigError(f"{option} {out}: is there already and belongs to the run {folder}, expected a new place")


def _is_predictions(path: Path) -> bool:
    """Return whether a file is a table that `mil predict` wrote: of a patient or slide, with tiles and what made it.

    A placeholder, a single word, is replaced too.
    """
    if path.suffix.casefold() not in _TABLES:
        return False
    with path.open("rb") as file:
        header = file.readline(1 << 16).decode("utf-8-sig", "replace").strip()
        has_rows = bool(file.read(1))
    columns = next(csv.reader([header]), [])
    if len(columns) < 2:
        return not has_rows and len(header.split()) < 2
    return columns[0] in ("patient", "slide") and set(_PREDICTED) <= set(columns)

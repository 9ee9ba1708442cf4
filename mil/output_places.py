"""Decides where a command may write: never over what it reads, over another result, or over a file of another kind."""

from collections.abc import Iterable
from pathlib import Path

from mil.errors import ConfigError

RUN, CHECKPOINT = "config.yaml", "manifest.json"
"""Files that only the folder of a run, and that of a checkpoint, have."""


def check_output_file(out: Path, inputs: Iterable[Path | None], option: str = "--out") -> None:
    """Check that a file may be written; an earlier file of that name is replaced.

    Args:
        out: The file.
        inputs: Files and folders that the command reads; None for those that are not given.
        option: How messages call it.

    Raises:
        ConfigError: It is an input, or a file in a folder of inputs; or it is a folder, a pipe or a device.
    """
    _refuse_inputs(out, inputs, option)
    if out.exists() and not out.is_file():
        raise ConfigError(f"{option} {out}: is no file, expected a new file or one to replace")


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
    if not out.exists():
        return
    for name, kind in ((RUN, "a run"), (CHECKPOINT, "a checkpoint")):
        if (out / name).exists():
            raise ConfigError(f"{option} {out}: holds {kind}, expected a new folder, or one of an earlier look")
    is_foreign = earlier is not None and out.is_dir() and any(out.iterdir()) and not (out / earlier).is_file()
    if is_foreign or not out.is_dir():
        raise ConfigError(f"{option} {out}: is there already, expected a new folder, or one of an earlier look")


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

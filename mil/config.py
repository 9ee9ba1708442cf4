"""The yaml files of `conf/`, which lies beside the package in a checkout and within it in a wheel."""

import copy
import difflib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

PLURALS = {"tools": "tool", "models": "model", "encoders": "encoder"}


OF_OTHER_COMMANDS = ("cluster", "federation")
"""Folders of `conf/` whose files are no options of a run: where it runs, and those of `mil federate`."""

Choice = dict[str, Any]
"""Content of one file of `conf/`."""


def conf_dir() -> Path:
    """Return the folder `conf/`."""
    package = Path(__file__).parent
    in_wheel, in_checkout = package / "conf", package.parent / "conf"
    return in_wheel if in_wheel.is_dir() else in_checkout


def roots(extra: Path | None = None) -> list[Path]:
    """Return the folders that hold choices: `conf/`, and a folder of the user's own where one is given."""
    return [conf_dir(), *([extra] if extra else [])]


def choices(group: str, extra: Path | None = None) -> list[str]:
    """Return the names that `group=` takes: the files of its folder."""
    return sorted({path.stem for root in roots(extra) for path in (root / group).glob("*.yaml")})


def groups(extra: Path | None = None) -> list[str]:
    """Return the options that choose a file: the folders of `conf/`."""
    folders = [path for root in roots(extra) for path in root.iterdir() if path.is_dir()]
    named = {path.name for path in folders if any(path.glob("*.yaml"))}
    return sorted(named - set(OF_OTHER_COMMANDS))


def described(group: str) -> dict[str, Choice]:
    """Return the content of each file of a group, by the name of the choice, with nothing resolved."""
    return copy.deepcopy(_read_group(conf_dir() / group, tuple(choices(group))))


@functools.cache
def _read_group(folder: Path, names: tuple[str, ...]) -> dict[str, Choice]:
    """Read the files of a group, once a process: parsing 84 encoders takes longer than training a small model."""
    from omegaconf import OmegaConf

    loaded = {name: OmegaConf.load(folder / f"{name}.yaml") for name in names}
    return {name: cast(Choice, OmegaConf.to_container(node)) for name, node in loaded.items()}


def nearest(name: str, names: Sequence[str], prefix: str = "") -> str:
    """Return `, did you mean 'model'?` for the nearest of some names, or an empty string where none is near.

    Upper and lower case make no difference.
    """
    lower = {each.casefold(): each for each in reversed(names)}
    near = [lower[key] for key in difflib.get_close_matches(name.casefold(), list(lower), n=1)]
    tails = {key.rsplit(".", 1)[-1]: key for key in names}
    near = near or [tails[tail] for tail in difflib.get_close_matches(name.rsplit(".", 1)[-1], list(tails), n=1)]
    return f", did you mean {prefix + near[0]!r}?" if near else ""

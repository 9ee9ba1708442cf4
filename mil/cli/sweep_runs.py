"""The runs of a sweep, `mil train -m`: which is which, and a table of all at the end."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mil.errors import printable

_HYDRA_ERROR = "Error executing job with overrides"
"""How a line begins that Hydra writes before an error of a run, with every override; ours names what differs."""
_SWEEPER = "hydra/sweeper"
_WIDTH = 140
_folders = list[Path]()
"""Of the sweeps of this process; the last one is under way."""


class SweepFolder(Callback):
    """Remembers the folder of a sweep, whose name holds the time."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Hydra calls this before the first run."""
        _folders.append(Path(str(config.hydra.sweep.dir)))


def current_folder() -> Path | None:
    """Return the folder of the sweep that is under way; None before it has one."""
    return _folders[-1] if _folders else None


@dataclass(frozen=True)
class Sweep:
    """What differs between the runs of a sweep.

    Attributes:
        keys: Options with several values.
        runs: The values of each run by option, in Hydra's order; empty where another sweeper chooses them.
    """

    keys: tuple[str, ...]
    runs: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Sweep":
        """Return the sweep that words of the command line, as Hydra takes them, ask for."""
        overrides = [each for each in OverridesParser.create().parse_overrides(list(words)) if not _is_hydras(each)]
        swept = [each for each in overrides if each.is_sweep_override()]
        keys = tuple(dict.fromkeys(each.key_or_group for each in swept))
        if any(word.startswith(f"{_SWEEPER}=") for word in words) or not all(map(Override.is_discrete_sweep, swept)):
            return cls(keys, ())
        (batch,) = BasicSweeper.split_arguments(swept, None)
        return cls(keys, tuple(_values(words_of_run, keys) for words_of_run in batch))

    def label(self, words_of_run: Sequence[str], number: int) -> str:
        """Return what a run is called: its number, from 1, of how many, and its values.

        Args:
            words_of_run: Hydra's overrides of the run.
            number: Hydra's number of the run, from 0.
        """
        values = ", ".join(f"{key}={value}" for key, value in _values(words_of_run, self.keys).items())
        count = f"{number + 1} of {len(self.runs)}" if self.runs else str(number + 1)
        return f"run {count}: {values}" if values else f"run {count}"


def _is_hydras(override: Override) -> bool:
    return override.key_or_group.startswith(("hydra.", "hydra/"))


def _values(words: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return the values of options in words such as `++seed=1`."""
    pairs = [(key.lstrip("+"), value) for key, _, value in (word.partition("=") for word in words)]
    return {key: value for key, value in pairs if key in keys}


@contextmanager
def one_error_line() -> Iterator[None]:
    """Leave out the line that Hydra writes to stderr before the error of a run."""
    stream = sys.stderr
    sys.stderr = _WithoutHydra(stream)
    try:
        yield
    finally:
        sys.stderr = stream


class _WithoutHydra:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return 0 if text.startswith(_HYDRA_ERROR) else self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def print_table(sweep: Sweep, is_stopped: bool = False) -> None:
    """Print the runs of the sweep that has just ended with their options and results, and last its folder.

    Args:
        sweep: What differs between the runs.
        is_stopped: Whether a signal has ended it before its last run.
    """
    if not _folders or not sweep.runs:
        return
    folder = _folders.pop()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("run", *sweep.keys, "folder", "discrimination"):
        table.add_column(printable(head), no_wrap=True, overflow="ignore")
    for number, values in enumerate(sweep.runs):
        place = folder / str(number)
        cells = (str(number + 1), *(values.get(key, "") for key in sweep.keys), place.name, _result(place, is_stopped))
        table.add_row(*map(printable, cells))
    console = Console(width=max(_WIDTH, Console().width), soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    sys.stdout.write(f"{folder}\n")


def _result(place: Path, is_stopped: bool) -> str:
    """Return the metric of a run with interval and number of patients, or why it has none."""
    from mil.report.first_screen import DISCRIMINATION, first_screen
    from mil.report.report_files import read_report
    from mil.runs.describe import REPORT
    from mil.runs.run_inputs import CONFIG

    if not (place / REPORT).is_file():
        return "failed" if not is_stopped else "stopped" if (place / CONFIG).is_file() else "not begun"
    report = read_report(place / REPORT)
    text = next(line.text for line in first_screen(report) if line.label == DISCRIMINATION)
    return f"{text} (simulated patients)" if report.about.simulated else text

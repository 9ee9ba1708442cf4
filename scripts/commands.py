"""Run `mil` as a user types it, in a process of its own with one thread."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """Result of a command that succeeded."""

    out: str
    peak_mib: float
    """peak resident memory of its process"""
    seconds: float
    processor_seconds: float
    """of the process and its children"""


def mil(*words: str | Path, warnings: bool = False) -> Ended:
    """Run a command to its end; if it fails, exit with the end of its error output.

    Args:
        words: What a user types after `mil`.
        warnings: Whether exit code 1, warnings of `mil check`, is no failure.
    """
    typed = [str(word) for word in words]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "mil", *typed], stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, err):
            file.seek(0)
        if process.returncode not in (0, int(warnings)):
            message = err.read().strip()[-2000:]
            sys.exit(f"mil {' '.join(typed)} ended with {process.returncode}: {message}")
        return Ended(out.read(), usage.ru_maxrss / 1024, seconds, usage.ru_utime + usage.ru_stime)


def number(value: float | None) -> float:
    """Return the value of an estimate; NaN if it has none."""
    return float("nan") if value is None else value

"""`mil` as a user types it, in a process of its own with one thread."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """What a command that succeeded has left."""

    out: str
    peak_mib: float
    """of its own resident memory"""


def mil(*words: str | Path) -> Ended:
    """Runs a command to its end; where it fails, so does this script, with the end of what it said."""
    typed = [str(word) for word in words]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as heard:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "mil", *typed], stdout=out, stderr=heard, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (out, heard):
            file.seek(0)
        if process.returncode:
            told = heard.read().strip()[-2000:]
            sys.exit(f"mil {' '.join(typed)} ended with {process.returncode}: {told}")
        return Ended(out.read(), usage.ru_maxrss / 1024)

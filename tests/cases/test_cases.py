"""Inputs that failed in version 0.1.0: each `run.sh` runs as a user would run it, and the `expected.yaml` judges it.

The third line of a `run.sh` says in words what should happen. `expected.yaml` says the same of each call of `mil`, in
the order of the calls: its exit code (left out for a call that is killed), text that the whole output must have, and
text that it must not have. A folder with `slow: true` takes more than about ten seconds on an idle machine. Folders
that begin with f are of faults and attacks; they share `common.sh`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/run.sh"))
LONGEST = 1200
"""Seconds that a case may take on a machine that does many other things."""
RECORDER = """#!/bin/bash
# passes a call on to mil and copies what it prints, as run.sh shows the last lines only
number=0
set -C # a file that is there is not opened: calls may run at the same time
until {{ : > {calls}/$number.txt; }} 2> /dev/null; do number=$((number + 1)); done
set +C
record={calls}/$number.txt
echo "\\$ mil $*" > "$record"
exec > >(tee -a "$record") 2> >(tee -a "$record" >&2)
exec {mil} "$@"
"""


class Wording(BaseModel):
    """What an output must have, and what it must not have; line breaks and runs of spaces count as one space."""

    model_config = ConfigDict(extra="forbid")
    has: list[str] = []
    lacks: list[str] = []

    def faults(self, output: str) -> list[str]:
        flat = " ".join(output.split())
        lacking = [f"lacks {text!r}" for text in self.has if text not in flat]
        return lacking + [f"has {text!r}" for text in self.lacks if text in flat]


class Call(Wording):
    """What is expected of one call of `mil`."""

    exit: int | None = None


class Expected(BaseModel):
    """An `expected.yaml`."""

    model_config = ConfigDict(extra="forbid")
    slow: bool = False
    calls: list[Call]
    output: Wording = Wording()


def _expected(case: Path) -> Expected:
    return Expected.model_validate(yaml.safe_load((case / "expected.yaml").read_text(encoding="utf-8")))


def _cases() -> Iterator[object]:
    for case in CASES:
        yield pytest.param(case, id=case.name, marks=[pytest.mark.slow] if _expected(case).slow else [])


@pytest.mark.parametrize("case", list(_cases()))
def test_case(case: Path, tmp_path: Path) -> None:
    calls, work, recorder = tmp_path / "calls", tmp_path / "work", tmp_path / "mil"
    calls.mkdir()
    work.mkdir()
    recorder.write_text(RECORDER.format(calls=calls, mil=Path(sys.executable).with_name("mil")))
    recorder.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MIL": str(recorder), "PY": sys.executable, "TMPDIR": str(work)}
    script = ["bash", str(case / "run.sh")]
    run = subprocess.run(script, env=environment, capture_output=True, timeout=LONGEST, check=False)
    output = (run.stdout + run.stderr).decode(errors="replace")
    expected = _expected(case)
    records = [path.read_text(errors="replace") for path in sorted(calls.iterdir(), key=lambda path: int(path.stem))]
    assert len(records) == len(expected.calls), output
    codes = [int(code) for code in re.findall(r"^-> exit (\d+)$", output, re.MULTILINE)]
    assert codes == [call.exit for call in expected.calls if call.exit is not None], "\n".join(records)
    for record, call in zip(records, expected.calls, strict=True):
        assert not (faults := call.faults(record)), f"{faults}\n{record}"
        assert "Traceback" not in record, record
    assert not (faults := expected.output.faults(output)), f"{faults}\n{output}"


def test_every_call_is_judged() -> None:
    assert len(CASES) >= 11
    for case in CASES:
        assert all(call.exit is not None or call.has or call.lacks for call in _expected(case).calls), case

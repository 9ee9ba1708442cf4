"""Programs of SLURM that write down how they were called and answer what a test wants."""

from dataclasses import dataclass
from pathlib import Path

import pytest

_SBATCH = """#!/bin/sh
number=$(( $(cat {folder}/number 2>/dev/null || echo 4710) + 1 ))
echo "sbatch $@" >> {folder}/calls
if [ -f {folder}/refuse ] && [ $number -ge $(cat {folder}/refuse) ]; then
    echo "sbatch: error: invalid partition specified: gpu" >&2
    echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
    exit 1
fi
echo $number > {folder}/number
echo "Submitted batch job $number"
"""
_OTHER = """#!/bin/sh
echo "{name} $@" >> {folder}/calls
cat {folder}/{name}.answer 2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class FakeScheduler:
    """A folder of programs on PATH."""

    folder: Path

    def calls(self, program: str) -> list[str]:
        """Return the words that a program was called with, once for each call."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.split(" ")[0] == program]

    def answer(self, program: str, *lines: str) -> None:
        """Let a program print these lines."""
        (self.folder / f"{program}.answer").write_text("".join(f"{line}\n" for line in lines))

    def refuse_from(self, number: int) -> None:
        """Let sbatch refuse the job of this number, of which the first is 4711, and later ones."""
        (self.folder / "refuse").write_text(str(number))

    def scripts(self, logs: Path) -> dict[str, str]:
        """Return the submitted scripts by the number of their job."""
        return {path.name.partition("_")[0]: path.read_text() for path in logs.glob("*_submission.sh")}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeScheduler:
    """Put the programs on PATH for one test."""
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel", "scontrol", "sacct"):
        text = _SBATCH if name == "sbatch" else _OTHER
        (folder / name).write_text(text.replace("{folder}", str(folder)).replace("{name}", name))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return FakeScheduler(folder)

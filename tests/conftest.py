"""What every test may use: a cache of its own for simulated cohorts, and the command as a user types it."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

QUICK = ["experiment=quick", "data.workers=0", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
"""A run of seconds."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Mil = Callable[..., Said]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Simulated cohorts are made once for all test processes, and never in the user's own cache."""
    shared = (
        tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.getbasetemp()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIL_CACHE", str(shared / "mil-cache"))
        yield


@pytest.fixture
def mil(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mil:
    """`mil("train", "model=mean")` in this process: what it printed and its exit code."""

    def run(*words: str | Path) -> Said:
        from mil.cli.main import main

        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["mil", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run

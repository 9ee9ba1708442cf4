"""What every test may use: a cache of its own for simulated cohorts, and the command as a user types it."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

QUICK = ["experiment=quick", "data.workers=0", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
"""A run of seconds."""
SMALL = [
    "model.embed_dim=16",
    "model.attention_dim=8",
    "simulation.patients=24",
    "simulation.tiles=40",
    "simulation.width=16",
    "data.batch_bags=4",
    "resamples=50",
    "figures=false",
    "++tool.novelty=null",
]
TINY = [*QUICK, "split.folds=2", *SMALL, "simulation.target.prevalence=0.4"]
"""A run of a second or two, of the default tool."""
HOSPITAL = [*QUICK[1:], *SMALL[:2], "trainer.max_epochs=2", "data.batch_bags=4", "resamples=20", *SMALL[-2:]]
"""The same on real files, with any split."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Mil = Callable[..., Said]


def run_quietly(*words: str | Path) -> Path:
    """A command that succeeds, outside any test; gives the path that it prints last."""
    from mil.cli.main import main

    said, heard = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(heard):
        patch.setattr(sys, "argv", ["mil", *map(str, words)])
        code: object = None
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert not code, heard.getvalue()
    return Path(said.getvalue().splitlines()[-1])


@pytest.fixture(scope="session")
def crc_run(_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two folds of msi-crc; whoever changes it works on a copy."""
    return run_quietly("train", *TINY, f"hydra.run.dir={tmp_path_factory.mktemp('crc')}/run")


@pytest.fixture(scope="session")
def surv_run(_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of surv-crc."""
    words = [*QUICK, "split.folds=2", "tool=surv-crc", *SMALL, "simulation.target.event_rate=0.5"]
    return run_quietly("train", *words, f"hydra.run.dir={tmp_path_factory.mktemp('surv')}/run")


@pytest.fixture(scope="session")
def hospital(_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cohort.csv and features/ as TRIDENT writes them, 24 patients, some with several slides."""
    words = [word for word in TINY if word.startswith(("simulation.", "experiment="))]
    return run_quietly("simulate", tmp_path_factory.mktemp("hospital") / "site A", *words, "simulation.slides=1.4")


@pytest.fixture(scope="session")
def real_run(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished hold-out run on those files."""
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features"]
    return run_quietly(
        "train", *HOSPITAL, "split=holdout", *given, f"hydra.run.dir={tmp_path_factory.mktemp('real')}/run"
    )


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

"""What every test may use: a cache of its own for simulated cohorts, and the command as a user types it."""

import contextlib
import copy
import fcntl
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mil import config
from mil.study import compose

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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all test processes."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _cache(shared: Path) -> Iterator[None]:
    """Simulated cohorts are made once for all test processes, and never in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIL_CACHE", str(shared / "mil-cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    """The same words are composed once: Hydra takes a quarter of a second for it, and every command begins so."""
    composed = compose._compose
    known: dict[tuple[object, ...], Any] = {}

    def remembered(words: Sequence[str], extra: Path | None, with_hydra: bool = False) -> Any:
        if extra or with_hydra:  # another folder of choices, and the time of day
            return composed(words, extra, with_hydra)
        key = (config.conf_dir(), *words)
        if key not in known:
            known[key] = composed(words, extra)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "_compose", remembered)
        yield


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder as `make` fills it, which the first test process does that asks for it; nobody changes it after."""
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_suffix(".done")
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def crc_run(_cache: None, shared: Path) -> Path:
    """A finished run of two folds of msi-crc; whoever changes it works on a copy."""
    return once(shared / "crc", lambda at: run_quietly("train", *TINY, f"hydra.run.dir={at}/run")) / "run"


@pytest.fixture(scope="session")
def surv_run(_cache: None, shared: Path) -> Path:
    """The same of surv-crc."""
    words = [*QUICK, "split.folds=2", "tool=surv-crc", *SMALL, "simulation.target.event_rate=0.5"]
    return once(shared / "surv", lambda at: run_quietly("train", *words, f"hydra.run.dir={at}/run")) / "run"


@pytest.fixture(scope="session")
def hospital(_cache: None, shared: Path) -> Path:
    """A folder with cohort.csv and features/ as TRIDENT writes them, 24 patients, some with several slides."""
    words = [word for word in TINY if word.startswith(("simulation.", "experiment="))]
    made = once(shared / "hospital", lambda at: run_quietly("simulate", at / "site A", *words, "simulation.slides=1.4"))
    return made / "site A"


@pytest.fixture(scope="session")
def real_run(hospital: Path, shared: Path) -> Path:
    """A finished hold-out run on those files."""
    words = [*HOSPITAL, "split=holdout", f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features"]
    return once(shared / "real", lambda at: run_quietly("train", *words, f"hydra.run.dir={at}/run")) / "run"


@pytest.fixture(scope="session")
def given_back(hospital: Path, real_run: Path, shared: Path) -> Path:
    """The same with its own split.csv given back, and without a baseline."""
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features", "baseline=false"]
    words = [*HOSPITAL, *given, "split=fixed", f"split.file={real_run}/split.csv"]
    return once(shared / "given", lambda at: run_quietly("train", *words, f"hydra.run.dir={at}/run")) / "run"


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

"""Fixtures for all tests: a cache for simulated cohorts, finished runs, and the command line."""

import contextlib
import copy
import fcntl
import gc
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mil import config
from mil.study import compose

QUICK = ["experiment=quick", "data.workers=0", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
"""A run that takes seconds."""
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
"""A run of the default tool that takes a second or two."""
HOSPITAL = [*QUICK[1:], *SMALL[:2], "trainer.max_epochs=2", "data.batch_bags=4", "resamples=20", *SMALL[-2:]]
"""The same on feature files, with any split."""


@dataclass(frozen=True)
class Said:
    """Output and exit code of a command."""

    code: int
    out: str
    err: str


Mil = Callable[..., Said]


def run_quietly(*words: str | Path) -> Path:
    """Run a command that must succeed, outside of any test, and return the path that it prints last."""
    from mil.cli.main import main

    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", ["mil", *map(str, words)])
        code: object = None
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert not code, errors.getvalue()
    return Path(output.getvalue().splitlines()[-1])


def pytest_collection() -> None:
    """Collect no garbage while tests are collected: all that is made then stays, and a third of the time went there."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave libraries and collected tests, millions of objects, out of every later collection of garbage.

    Later ones are rarer than after 700 objects, as Python has it, which took a twentieth of the time of all tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(300_000, 10, 50)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell that starts the tests in the background lets them ignore SIGINT, which some of them send."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _disk_is_not_waited_for() -> Iterator[None]:
    """Wait for no disk in this process: a sixth of the time of a tiny training. `test_files.py` tests that one does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _cache(shared: Path) -> Iterator[None]:
    """Keep simulated cohorts in a cache shared by all test processes, not in the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIL_CACHE", str(shared / "mil-cache"))
        yield


_PLAIN_FOLDER = re.compile(r"hydra\.run\.dir='(?P<path>[\w/.-]+)'")
"""A run folder of its own for each test is set after composing; names with odd characters are left to Hydra."""


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    """Compose each configuration once, because Hydra takes a quarter of a second for it."""
    composed = compose._compose
    cached: dict[tuple[object, ...], Any] = {}

    def remembered(words: Sequence[str], extra: Path | None, with_hydra: bool = False) -> Any:
        folders = [match["path"] for word in words if (match := _PLAIN_FOLDER.fullmatch(word))]
        if extra or (with_hydra and len(folders) != 1):  # not cached: depends on a folder or the time
            return composed(words, extra, with_hydra)
        words = [word for word in words if not (with_hydra and _PLAIN_FOLDER.fullmatch(word))]
        key = (config.conf_dir(), with_hydra, *words)
        if key not in cached:
            cached[key] = composed(words, extra, with_hydra)
        node = copy.deepcopy(cached[key])
        if with_hydra:
            node.hydra.run.dir = folders[0]
        return node

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "_compose", remembered)
        yield


LOOKED_AT = {"cards", "explain", "report", "zoo"}
"""Folders of tests that look at figures, compare them, or release them."""


@pytest.fixture(autouse=True)
def _figures_are_drawn_plainly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save figures coarsely and without fitting their texts, which takes longer than the report that they belong to."""
    from mil.report.figures import style

    if request.path.relative_to(Path(__file__).parent).parts[0] not in LOOKED_AT:
        monkeypatch.setattr(style, "fit_texts", lambda figure: None)
        monkeypatch.setitem(style._RULES, "savefig.dpi", 50)


def as_real(table: Path) -> None:
    """Takes from a simulated cohort's table that it is one, so that it stands for a hospital's."""
    lines = [line.rpartition(",") for line in table.read_text().splitlines()]
    assert lines[0][2] == "simulated"
    table.write_text("".join(f"{row}\n" for row, _, _ in lines))


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return the folder, filled by `make` in the first test process that asks for it; tests must not change it."""
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
    """Return a finished run of two folds of msi-crc; tests that change it work on a copy."""
    return once(shared / "crc", lambda at: run_quietly("train", *TINY, f"hydra.run.dir={at}/run")) / "run"


@pytest.fixture(scope="session")
def surv_run(_cache: None, shared: Path) -> Path:
    """Return a finished run of two folds of surv-crc."""
    words = [*QUICK, "split.folds=2", "tool=surv-crc", *SMALL, "simulation.target.event_rate=0.5"]
    return once(shared / "surv", lambda at: run_quietly("train", *words, f"hydra.run.dir={at}/run")) / "run"


@pytest.fixture(scope="session")
def hospital(_cache: None, shared: Path) -> Path:
    """Return a folder with cohort.csv and TRIDENT's features/ of 24 patients, some with several slides."""
    words = [word for word in TINY if word.startswith(("simulation.", "experiment="))]

    def make(at: Path) -> None:
        run_quietly("simulate", at / "site A", *words, "simulation.slides=1.4")
        as_real(at / "site A" / "cohort.csv")

    return once(shared / "hospital", make) / "site A"


@pytest.fixture(scope="session")
def real_run(hospital: Path, shared: Path) -> Path:
    """Return a finished hold-out run on the files of `hospital`."""
    words = [*HOSPITAL, "split=holdout", f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features"]
    return once(shared / "real", lambda at: run_quietly("train", *words, f"hydra.run.dir={at}/run")) / "run"


@pytest.fixture(scope="session")
def given_back(hospital: Path, real_run: Path, shared: Path) -> Path:
    """Return the same run with its own split.csv as split file, and without a baseline."""
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features", "baseline=false"]
    words = [*HOSPITAL, *given, "split=fixed", f"split.file={real_run}/split.csv"]
    return once(shared / "given", lambda at: run_quietly("train", *words, f"hydra.run.dir={at}/run")) / "run"


@pytest.fixture
def mil(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Mil:
    """Return a function that runs a command in this process: `mil("train", "model=mean")`."""

    def run(*words: str | Path) -> Said:
        from mil.cli.main import main

        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["mil", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run

"""Every path that a command takes, by introspection: outputs spoil nothing, and nothing waits for a pipe."""

import os
import shutil
import signal
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from mil.cli.main import app
from mil.explain.faithfulness import FILE as EXPLAIN
from mil.runs.looks import FILE as LOOKS
from tests.conftest import HOSPITAL, Mil, Said

INPUTS = {
    "import": {"file"},
    "simulate": {"config_dir"},
    "federate": {"config_dir", "resume"},
    "check": {"config_dir", "split"},
    "convert": {"source", "slides"},
    "train": {"resume", "config_dir"},
    "tune": {"config_dir"},
    "propose": {"config_dir"},
    "evaluate": {"run", "cohort", "features", "slides", "predictions", "seeds", "trained", "key"},
    "runs": {"run"},
    "compare": {"runs"},
    "site": {"run", "preserved", "features"},
    "select": {"sweep"},
    "calibrate": {"cohort", "features", "slides", "key"},
    "predict": {"features", "cohort", "slides", "key"},
    "explain": {"features", "cohort", "slides", "scans", "key"},
    "release": {"run"},
    "zoo pull": {"key"},
    "zoo push": {"folder", "sign"},
    "zoo sign": {"folder", "key"},
    "zoo verify": {"key"},
}
"""Parameters that a command reads, by command."""


@dataclass(frozen=True)
class Place:
    """Where the files of a test lie.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def run(self) -> Path:
        """A run on the features and the cohort beside it."""
        return self.root / "run"

    @property
    def inputs(self) -> list[str | Path]:
        """Options for the cohort."""
        return ["--features", self.root / "site" / "features", "--cohort", self.root / "site" / "cohort.csv"]


Words = list[str | Path]
Call = Callable[[Place, Path], Words]


@dataclass(frozen=True)
class Output:
    """An output of a command.

    Attributes:
        call: Returns the words of a call that writes to a path.
        is_file: Whether it is a file; otherwise it is a folder.
        reads_data: Whether the command reads the features and the cohort of the test.
        earlier: The file by which an earlier result of the same command is recognised.
        is_of_run: Whether it is the folder of a run, which may hold other things, such as the log of a scheduler.
    """

    call: Call
    is_file: bool = False
    reads_data: bool = True
    earlier: str | None = None
    is_of_run: bool = False


def on_cohort(command: str, *more: str | Path) -> Call:
    """Return a call of a command that reads a checkpoint and a cohort."""
    return lambda at, out: [command, at.run / "checkpoint", *at.inputs, *more, "--out", out]


def of_tiles(at: Place, out: Path) -> Words:
    return ["predict", at.run / "checkpoint", *at.inputs, "--out", at.root / "scores.csv", "--tiles", out]


def on_predictions(at: Place, out: Path) -> Words:
    columns = ["--target", "label", "--score", "p"]
    return ["evaluate", "--predictions", at.root / "site" / "predicted.csv", *columns, "--out", out]


OUTPUTS = {
    ("init", "folder"): Output(lambda at, out: ["init", out, "--name", "er-breast"], reads_data=False),
    ("import", "out"): Output(
        lambda at, out: ["import", "clam", at.root / "site" / "weights.pt", "--encoder", "uni", "--out", out],
        reads_data=False,
    ),
    ("simulate", "out"): Output(lambda at, out: ["simulate", out, "simulation.patients=4"], reads_data=False),
    ("convert", "out"): Output(lambda at, out: ["convert", at.root / "site" / "features", out], is_file=True),
    ("evaluate", "out"): Output(on_cohort("evaluate"), earlier=LOOKS),
    ("evaluate --predictions", "out"): Output(on_predictions, reads_data=False),
    ("evaluate --instability", "out"): Output(lambda at, out: ["evaluate", at.run, "--instability", "--out", out]),
    ("compare", "out"): Output(
        lambda at, out: ["compare", at.run, at.root / "run2", "--out", out], earlier="leaderboard.csv"
    ),
    ("site", "out"): Output(lambda at, out: ["site", at.run, "--out", out]),
    ("calibrate", "out"): Output(on_cohort("calibrate")),
    ("predict", "out"): Output(on_cohort("predict"), is_file=True),
    ("predict", "tiles"): Output(of_tiles),
    ("explain", "out"): Output(on_cohort("explain"), earlier=EXPLAIN),
    ("explain RUN", "out"): Output(lambda at, out: ["explain", at.run, "--out", out], earlier=EXPLAIN),
    ("release", "out"): Output(lambda at, out: ["release", at.run, "--version", "1.0.0", "--out", out]),
    ("zoo compare", "out"): Output(
        lambda at, out: ["zoo", "compare", at.run / "checkpoint", at.run / "checkpoint", "--out", out],
        is_file=True,
        reads_data=False,
    ),
    ("zoo pull", "out"): Output(
        lambda at, out: ["zoo", "pull", "msi-crc", "--registry", at.root / "registry", "--out", out], reads_data=False
    ),
    ("train", "hydra.run.dir"): Output(
        lambda at, out: ["train", *training(at), f"hydra.run.dir='{out}'", "seed=5"], is_of_run=True
    ),
    ("train -m", "hydra.sweep.dir"): Output(
        lambda at, out: ["train", "-m", *training(at), "seed=5,6", f"hydra.sweep.dir='{out}'"], is_of_run=True
    ),
    ("tune", "out"): Output(
        lambda at, out: ["tune", out, *training(at), "optimizer.lr=1e-3,1e-4"], earlier="tune.json"
    ),
    ("federate export", "OUT"): Output(
        lambda at, out: ["federate", "export", out, *training(at), "federation.sites=[a,b]"]
    ),
    ("federate site", "KIT"): Output(
        lambda at, out: ["federate", "site", out, *training(at)[-2:]],
    ),
}
"""Every output of every command; one command may have several ways to it."""


def training(at: Place) -> list[str]:
    data = at.root / "site"
    return [*HOSPITAL, "split=holdout", f"data.cohort={data}/cohort.csv", f"data.features={data}/features"]


def path_parameters(group: typer.Typer, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield command and name of every parameter that is a path."""
    for command in group.registered_commands:
        assert command.callback is not None
        name = prefix + (command.name or command.callback.__name__)
        for parameter, kind in typing.get_type_hints(command.callback).items():
            if "Path" in str(kind):
                yield name, parameter
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from path_parameters(below.typer_instance, f"{prefix}{below.typer_instance.info.name} ")


def test_every_path_of_every_command_is_classified() -> None:
    inputs = {(command, name) for command, names in INPUTS.items() for name in names}
    assert set(path_parameters(app)) == inputs | {key for key in OUTPUTS if key in set(path_parameters(app))}
    assert {name for _, name in OUTPUTS} >= {"out", "tiles", "folder"}


@pytest.fixture(scope="module")
def master(real_run: Path, crc_run: Path, hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a site, a run on it, other results, and files and folders of somebody else."""
    root = tmp_path_factory.mktemp("contract")
    site = shutil.copytree(hospital, root / "site")
    (site / "features" / "sub").mkdir()
    (site / "predicted.csv").write_text("patient,label,p\na,0,0.1\nb,1,0.9\n")
    (site / "weights.pt").write_bytes(b"weights")
    run = shutil.copytree(real_run, root / "run")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(hospital), str(site)))
    shutil.copytree(run, root / "run2")
    for name, marker in (("evaluated", LOOKS), ("explained", EXPLAIN), ("compared", "leaderboard.csv")):
        (root / name).mkdir()
        (root / name / marker).write_text("{}")
        (root / name / "predictions.csv").write_text("patient,tool,version,tiles,p\n")
    (root / "mine").mkdir()
    (root / "mine" / "notes.txt").write_text("mine")
    (root / "README.md").write_text("# My project\n")
    (root / "script.py").write_text("print()\n")
    (root / "ids.csv").write_text("patient\nP1\n")
    (root / "link").symlink_to(site / "features")
    (root / "link.csv").symlink_to(site / "cohort.csv")
    (root / "device").symlink_to("/dev/null")
    os.mkfifo(root / "pipe")
    return root


def snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and time of everything below a folder; what is written anew has other ones."""
    states = {str(path): path.lstat() for path in root.rglob("*")}
    return {name: (state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states.items()}


def forbidden(root: Path, output: Output) -> Iterator[Path]:
    """Yield every kind of place that an output must not have."""
    site, run = root / "site", root / "run"
    yield from (site / "features", root / "link", site / "cohort.csv", root / "link.csv")
    yield next((site / "features").glob("*.h5"))
    yield from (run, run / "predictions.csv", run / "checkpoint", run / "checkpoint" / "new", run / "config.yaml")
    yield from (root / "script.py", root / "ids.csv", root / "pipe", root / "device", site)
    if not output.is_of_run:
        yield from (root / "mine", root)
    results = {"evaluated": LOOKS, "explained": EXPLAIN, "compared": "leaderboard.csv"}
    yield from (root / name / "predictions.csv" for name in results)
    yield from (root / name for name, marker in results.items() if marker != output.earlier)
    if output.reads_data:
        yield from (site / "features" / "new", site / "features" / "sub", site / "features" / "sub" / "new.csv")


ATTACHED = ["--attach", "--name", "a centre", "--centre", "elsewhere", "--dates", "2020"]

LONG = ("train -m", "federate export", "evaluate --instability", "compare", "site", "release", "explain RUN")
"""Commands that read the configuration of a run for each place, or compose one."""


def errors_of(answer: Said) -> list[str]:
    """Return the lines on stderr that are no warnings, such as that of the run's edited configuration."""
    return [line for line in answer.err.splitlines() if not line.startswith("warning: ")]


def outputs() -> Iterator[object]:
    """Yield every output; the longest ones are left to the slow tests."""
    for key in OUTPUTS:
        yield pytest.param(key, id=" ".join(key), marks=[pytest.mark.slow] if key[0] in LONG else [])


@pytest.mark.parametrize("key", list(outputs()))
def test_an_output_spoils_neither_inputs_nor_results_nor_anything_of_others(
    key: tuple[str, str], master: Path, mil: Mil, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = OUTPUTS[key]
    monkeypatch.chdir(master)
    before = snapshot(master)
    for place in forbidden(master, output):
        words = output.call(Place(master), place)
        answer = mil(*words)
        assert (answer.code, answer.out) == (2, ""), (place, answer)
        assert len(errors_of(answer)) == 1, answer.err
        assert place.name in answer.err or key[0] == "zoo pull", (place, answer.err)
        assert snapshot(master) == before, place


def readers(at: Place, pipe: Path) -> dict[tuple[str, str], Words]:
    """Return a call for every input of every command, with the pipe in its place."""
    site, new, checkpoint = at.root / "site", at.root / "new", at.run / "checkpoint"
    table, features = site / "cohort.csv", site / "features"
    reads: dict[tuple[str, str], Words] = {
        ("import", "file"): ["import", "clam", pipe, "--encoder", "uni", "--out", new],
        ("simulate", "config_dir"): ["simulate", new, "--config-dir", pipe],
        ("federate", "config_dir"): ["federate", "--config-dir", pipe],
        ("federate", "resume"): ["federate", "--resume", pipe],
        ("check", "config_dir"): ["check", "--config-dir", pipe],
        ("check", "split"): ["check", "--split", pipe],
        ("convert", "source"): ["convert", pipe, new],
        ("convert", "slides"): ["convert", features, new, "--slides", pipe],
        ("tune", "config_dir"): ["tune", new, "--config-dir", pipe],
        ("propose", "config_dir"): ["propose", "--config-dir", pipe],
        ("train", "resume"): ["train", "--resume", pipe],
        ("train", "config_dir"): ["train", "--config-dir", pipe],
        ("train", "data.cohort"): ["train", *training(at), f"data.cohort={pipe}"],
        ("train", "data.features"): ["train", *training(at), f"data.features={pipe}"],
        ("train", "data.slides"): ["train", *training(at), f"data.slides={pipe}"],
        ("train", "data.labels"): ["train", *training(at), f"data.labels={pipe}"],
        ("train", "split.file"): ["train", *training(at), "split=fixed", f"split.file={pipe}"],
        ("evaluate", "run"): ["evaluate", pipe],
        ("evaluate", "predictions"): ["evaluate", "--predictions", pipe, "--target", "label"],
        ("evaluate", "seeds"): ["evaluate", at.run, "--instability", "--seeds", pipe],
        ("compare", "runs"): ["compare", at.run, pipe],
        ("site", "run"): ["site", pipe],
        ("site", "preserved"): ["site", at.run, "--preserved", pipe],
        ("site", "features"): ["site", at.run, "--features", pipe],
        ("select", "sweep"): ["select", pipe],
        ("explain", "scans"): ["explain", checkpoint, *at.inputs, "--scans", pipe, "--out", new],
        ("release", "run"): ["release", pipe, "--version", "1.0.0", "--out", new],
        ("zoo push", "folder"): ["zoo", "push", pipe, "--registry", new],
        ("zoo push", "sign"): ["zoo", "push", checkpoint, "--registry", new, "--sign", pipe],
        ("zoo sign", "folder"): ["zoo", "sign", pipe, "--key", table],
        ("zoo sign", "key"): ["zoo", "sign", checkpoint, "--key", pipe],
        ("zoo pull", "key"): ["zoo", "pull", "msi-crc", "--registry", at.root / "registry", "--key", pipe],
        ("zoo verify", "key"): ["zoo", "verify", checkpoint, "--key", pipe],
        ("evaluate", "trained"): ["evaluate", checkpoint, *at.inputs, *ATTACHED, "--trained", pipe, "--out", new],
    }
    for command in ("evaluate", "calibrate", "predict", "explain"):
        reads[command, "key"] = [command, checkpoint, *at.inputs, "--out", new, "--key", pipe]
    for command in ("evaluate", "calibrate", "predict", "explain"):
        for name in ("cohort", "features", "slides"):
            given = {"cohort": table, "features": features, name: pipe}
            options = [word for option, path in given.items() for word in (f"--{option}", path)]
            reads[command, name] = [command, checkpoint, *options, "--out", new]
    return reads


def test_every_input_is_tried_with_a_pipe(master: Path) -> None:
    tried = set(readers(Place(master), master / "pipe"))
    inputs = {(command, name) for command, names in INPUTS.items() for name in names}
    assert inputs - {("runs", "run")} <= tried  # `mil runs` reads no run


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain", "calibrate", "train", "convert", "others"])
def test_a_pipe_in_place_of_an_input_is_refused_at_once(
    command: str, master: Path, mil: Mil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(master)
    before, pipe = snapshot(master), master / "pipe"
    calls = readers(Place(master), pipe)
    named = {"evaluate", "predict", "explain", "calibrate", "train", "convert"}
    for (name, option), words in calls.items():
        if name != command and (command != "others" or name in named):
            continue
        with at_most(60):
            answer = mil(*words)
        assert (answer.code, answer.out) == (2, ""), (name, option, answer)
        assert len(errors_of(answer)) == 1, (name, option, answer.err)
        assert "pipe" in answer.err, (name, option, answer.err)
        assert snapshot(master) == before, (name, option)


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Interrupt what takes longer, such as waiting for a pipe."""

    def interrupt(*_: object) -> None:
        raise AssertionError("it takes longer")  # no OSError, which a command would explain

    earlier = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)

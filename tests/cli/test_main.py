"""The command itself: help without heavy libraries, completion, versions, and errors in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mil as package
from mil import config
from mil.cli.error_lines import one_line
from mil.errors import FeatureError
from tests.conftest import Mil

HEAVY = (
    "torch",
    "pandas",
    "numpy",
    "hydra",
    "omegaconf",
    "lightning",
    "h5py",
    "sklearn",
    "matplotlib",
    "scipy",
    "wandb",
    "pydantic",
)
ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )


def test_help_loads_no_heavy_library() -> None:
    code = f"""
import sys
sys.argv = ["mil", "--help"]
from mil.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
sys.exit(",".join(set({HEAVY}) & set(sys.modules)) or None)
"""
    done = python(code)
    assert done.stderr == ""
    for verb in ("list", "simulate", "check", "convert", "train", "evaluate", "predict", "release"):
        assert verb in done.stdout


def test_every_verb_has_help_on_one_screen(mil: Mil) -> None:
    for verb in ("list", "simulate", "check", "convert", "train", "evaluate", "predict", "release"):
        said = mil(verb, "--help")
        assert said.code == 0
        assert said.out.count("\n") < 66


def test_the_help_of_training_names_each_choice_in_words_that_are_not_broken(mil: Mil) -> None:
    out = mil("train", "--help").out
    lines = out[out.index("Choices:") :].splitlines()[1:]
    assert max(map(len, lines)) <= 80
    assert [line.split("=")[0].strip() for line in lines if "=" in line] == sorted([*config.groups(), "cluster"])
    named = {word for line in lines for word in line.split("=")[-1].strip().split("|")}
    assert {name for group in ("model", "split", "schedule") for name in config.choices(group)} <= named
    assert f"tool=  one of {len(config.choices('tool'))}, which mil list tools shows" in out
    assert f"encoder=  one of {len(config.choices('encoder'))}, which mil list encoders shows" in out


def test_the_version_is_the_packages(mil: Mil) -> None:
    assert mil("--version").out.strip() == package.__version__


@pytest.mark.parametrize("what", ["tools", "models", "encoders", "endpoints", ""])
def test_list_shows_every_choice(what: str, mil: Mil) -> None:
    said = mil("list", *([what] if what else []))
    assert (said.code, said.err) == (0, "")
    named = {"tools": "tool", "models": "model", "encoders": "encoder"}
    for plural, group in named.items():
        if what in ("", plural):
            assert all(name in said.out for name in config.choices(group))
    if what in ("", "endpoints"):
        assert all(name in said.out for name in ("binary", "multiclass", "cox", "c_index"))


def test_list_of_models_says_what_each_needs_and_costs(mil: Mil) -> None:
    said = mil("list", "models").out.splitlines()
    assert said[1].split() == ["model", "paper", "parameters", "needs", "cost"]
    rows = {line.split()[0]: line for line in said[2:]}
    for name in config.choices("model"):
        model = package.create_model(name, 1024, 1)
        assert model.paper in rows[name]
        assert f" {sum(weight.numel() for weight in model.parameters()):,} " in rows[name]
        assert (" coordinates " in rows[name]) == model.needs_coords
        assert rows[name].rstrip().endswith(f" {model.cost}")


def test_the_package_itself_loads_no_heavy_library_and_sets_no_environment_variable() -> None:
    done = python(
        "import os, sys; before = dict(os.environ); import mil; assert dict(os.environ) == before; "
        f"sys.exit(','.join(set({HEAVY}) & set(sys.modules)) or None)"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_limits_the_kernel_cache_before_torch_starts() -> None:
    code = """
import os, sys
sys.argv = ["mil", "--version"]
from mil.cli.main import main
try:
    main()
except SystemExit:
    pass
assert "torch" not in sys.modules
print(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], os.environ["LRU_CACHE_CAPACITY"])
"""
    unset = (
        "import os; [os.environ.pop(name, None) for name in ('ONEDNN_PRIMITIVE_CACHE_CAPACITY', 'LRU_CACHE_CAPACITY')]"
    )
    assert python(f"{unset}\n{code}").stdout.split()[-2:] == ["128", "16"]


def test_list_of_something_else_is_refused(mil: Mil) -> None:
    said = mil("list", "slides")
    assert (said.code, said.err) == (2, "mil: mil list slides: expected tools, models, encoders, endpoints\n")


def completions(shell: str, **environment: str) -> list[str]:
    from mil.cli.main import app

    found = CliRunner().invoke(app, [], prog_name="mil", env={"_MIL_COMPLETE": f"complete_{shell}", **environment})
    assert found.exit_code == 0
    return found.output.split()


@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        (["train"], "mod", ["model="]),
        (["train"], "se", ["seed="]),
        (["train"], "pa", ["parallel="]),
        (["train"], "tool=ms", ["tool=msi-crc", "tool=msi-ebv-gastric"]),
        (["check"], "encoder=uni", ["encoder=uni", "encoder=uni2"]),
        (["train", "tool=msi-crc"], "split=", [f"split={name}" for name in config.choices("split")]),
        (["train"], "nonsense=", []),
        (["train"], "data.on_", ["data.on_bad_bag=", "data.on_missing="]),
        (["check"], "hydra.run", ["hydra.run.dir="]),
        (["train"], "nothing.x", []),
        (["predict"], "msi-", ["msi-crc", "msi-ebv-gastric"]),
        (["explain"], "surv-k", ["surv-kirc"]),
        (["zoo", "show"], "tls", ["tls-pan"]),
    ],
)
def test_groups_and_their_files_complete(words: list[str], last: str, expected: list[str]) -> None:
    typed = ["mil", *words, last]
    bash = completions("bash", COMP_WORDS=" ".join(typed), COMP_CWORD=str(len(typed) - 1))
    assert bash == expected
    zsh = completions("zsh", _TYPER_COMPLETE_ARGS=" ".join(typed))
    assert all(word in "".join(zsh) for word in expected)
    assert ("msi-crc" in "".join(zsh)) == any("msi-crc" in word for word in expected)
    fish = completions("fish", _TYPER_COMPLETE_ARGS=" ".join(typed), _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert fish == expected


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("mil train tool = ms", ["msi-crc", "msi-ebv-gastric"]),
        ("mil train seed=3 model = abmil_g", ["abmil_gated"]),
        ("mil train split =", config.choices("split")),
    ],
)
def test_bash_which_ends_words_at_equal_signs_is_given_the_value_alone(typed: str, expected: list[str]) -> None:
    assert completions("bash", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1)) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_script_can_be_had(shell: str) -> None:
    from mil.cli.main import app

    script = CliRunner().invoke(app, [], prog_name="mil", env={"_MIL_COMPLETE": f"source_{shell}"})
    assert script.exit_code == 0
    assert "_MIL_COMPLETE" in script.output
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script.output, text=True, check=True)


@pytest.mark.parametrize("traceback", ["", "1"])
def test_an_internal_error_is_one_line_or_shows_its_lines_but_no_values(traceback: str) -> None:
    code = """
import sys
from mil.cli import list_command
def broken(what):
    patient, label = "-".join(["MUSTER", "MANN"]), "".join(["positi", "ve"])
    return 1 / len(what)
list_command.show = broken
sys.argv = ["mil", "list"]
from mil.cli.main import main
main()
"""
    done = python(code, MIL_TRACEBACK=traceback)
    assert done.returncode == 70
    assert done.stderr.splitlines()[-1].startswith("mil: unexpected ZeroDivisionError in __main__, line 6: ")
    assert (len(done.stderr.splitlines()) == 1) == (traceback == "")
    assert "MUSTER-MANN" not in done.stderr
    assert "positive" not in done.stderr
    assert "locals" not in done.stderr


def test_an_error_of_a_worker_process_is_told_in_one_line() -> None:
    wrapped = FeatureError(
        "Caught FeatureError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        "  File x, line 3, in read\nmil.errors.FeatureError: /data/a.h5: 1 of 3 tiles have NaN\n"
    )
    assert one_line(wrapped) == "/data/a.h5: 1 of 3 tiles have NaN"
    assert one_line(FeatureError("two\nlines")) == "two\\nlines"
    assert one_line(PermissionError(13, "Permission denied", "/data/x")) == "/data/x: Permission denied"


def test_a_folder_that_cannot_be_written_is_told_in_one_line(mil: Mil, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = mil("train", f"hydra.run.dir={tmp_path}/file/run")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "Not a directory" in said.err


def test_simulate_writes_a_cohort_once(mil: Mil, tmp_path: Path) -> None:
    small = ["simulation.patients=6", "simulation.tiles=20", "simulation.width=8"]
    said = mil("simulate", tmp_path / "cohort", *small, "simulation.layout=clam")
    assert (said.code, said.out) == (0, f"{tmp_path / 'cohort'}\n")
    assert list((tmp_path / "cohort" / "features" / "h5_files").glob("*.h5"))
    again = mil("simulate", tmp_path / "cohort", *small)
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "holds a simulated cohort, expected a new folder" in again.err
    wrong = mil("simulate", tmp_path / "other", *small, "simulation.layout=svs")
    assert wrong.code == 2
    assert not (tmp_path / "other").exists()

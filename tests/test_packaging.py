"""What is installed is what is here: built, installed and called from an empty folder."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SKIPPED = {".git", "__pycache__", ".venv", "runs", "multirun", "demo", "build", "dist", "model_cards"}
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".j2", ".cfg", ".json", ".csv", ""}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("*.whl"))


def test_wheel_and_source_distribution_carry_choices_and_templates_but_no_tests_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {f"mil/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert ours
    assert ours <= names
    assert {"mil/cards/card.md.j2", "mil/model_cards/msi-crc/weights.safetensors"} <= names
    assert not any(name.startswith(("tests", "conf/", "scripts")) for name in names)
    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"conf/train.yaml", "mil/cards/card.md.j2", "scripts/demo", "tests/test_packaging.py", "LICENSE"} <= held


def test_the_installed_command_finds_its_choices_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    installed, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    run(sys.executable, *pip, installed, wheel, cwd=empty)
    code = (
        "import sys, mil; from mil import config; from mil.cli.main import main\n"
        "print(mil.__file__, config.conf_dir(), sep='\\n'); sys.argv = ['mil', 'list']; main()"
    )
    said = run(sys.executable, "-c", code, cwd=empty, PYTHONPATH=str(installed), PYTHONSAFEPATH="1")
    where, conf, *listed = said.splitlines()
    assert Path(where) == installed / "mil" / "__init__.py"
    assert Path(conf) == installed / "mil" / "conf"
    assert any("msi-crc" in line for line in listed)
    assert (installed / "mil" / "cards" / "card.md.j2").is_file()
    assert (installed / "bin" / "mil").is_file()
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test"])
def test_both_commands_of_the_readme_are_there_and_can_be_run(name: str) -> None:
    assert name in (ROOT / "README.md").read_text()
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!")


def names(requirements: list[str]) -> set[str]:
    found = [re.match(r"[A-Za-z0-9_.-]+", line.strip()) for line in requirements]
    return {re.sub(r"[-_.]+", "-", one[0]).lower() for one in found if one}


def test_what_is_depended_on_is_pinned_by_name() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+( *;.*)?( *#.*)?", line) for line in pinned), "names and versions alone"
    wanted = names(PROJECT["dependencies"])
    for extra, needs in PROJECT["optional-dependencies"].items():
        wanted |= names(needs) if extra in ("test", "sweep", "tensorboard") else set()
    assert wanted - {"mil-zoo"} <= names(pinned)


def test_no_file_names_a_package_registry_or_a_path_of_this_machine() -> None:
    registries = ["pypi" + ".org", "files.python" + "hosted", "index" + "-url", "conda." + "anaconda"]
    own = ["/" + "work/", "/" + "root/"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / line for line in tracked.stdout.splitlines()] or [
        path for path in ROOT.rglob("*") if not SKIPPED & set(path.parts) and path.suffix in TEXT
    ]
    assert len(paths) > 50
    for path in paths:
        if path.is_file() and path.suffix in TEXT:
            text = path.read_text(encoding="utf-8")
            for word in [*registries, *own]:
                assert word not in text, f"{path}: {word}"

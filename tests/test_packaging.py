"""The package is built, installed and run from an empty folder."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import mil

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
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
    """Return the wheel, built from the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("*.whl"))


def test_distributions_contain_conf_and_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {f"mil/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert ours
    assert ours <= names
    assert {"mil/cards/card.md.j2", "mil/model_cards/msi-crc/weights.safetensors"} <= names
    templates = [path for path in (ROOT / "mil" / "cli" / "project_template").rglob("*") if path.is_file()]
    assert len(templates) > 5
    assert {str(path.relative_to(ROOT)) for path in templates} <= names, "mil init works from a wheel"
    assert not any(name.startswith(("tests", "conf/", "scripts")) for name in names)
    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"conf/train.yaml", "mil/cards/card.md.j2", "scripts/demo", "tests/test_packaging.py", "LICENSE"} <= held


def test_installed_command_finds_conf_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    installed, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    run(sys.executable, *pip, installed, wheel, cwd=empty)
    code = (
        "import sys, mil; from mil import config; from mil.cli.main import main\n"
        "print(mil.__file__, config.conf_dir(), sep='\\n'); sys.argv = ['mil', 'list']; main()"
    )
    output = run(sys.executable, "-c", code, cwd=empty, PYTHONPATH=str(installed), PYTHONSAFEPATH="1")
    where, conf, *listed = output.splitlines()
    assert Path(where) == installed / "mil" / "__init__.py"
    assert Path(conf) == installed / "mil" / "conf"
    assert any("msi-crc" in line for line in listed)
    assert (installed / "mil" / "cards" / "card.md.j2").is_file()
    assert (installed / "bin" / "mil").is_file()
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test"])
def test_commands_of_the_readme_are_executable(name: str) -> None:
    assert name in (ROOT / "README.md").read_text()
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!")


def test_version_licence_pythons_and_extras_are_the_same_wherever_they_are_stated() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert mil.__version__ == PROJECT["version"]
    newest = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}\n\n### What to do\n", CHANGELOG, re.MULTILINE)
    assert newest[0] == PROJECT["version"], "the changelog says what to do about this version"
    assert citation["keywords"] == PROJECT["keywords"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    stated = [line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert tested == stated
    assert any(step.get("run") == "scripts/test" for step in workflow["jobs"]["test"]["steps"])
    for name in ("Dockerfile", "environment.yml"):
        extras = re.search(r"\.\[([\w,]+)\]", (ROOT / name).read_text())
        assert extras is not None
        assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_hooks_before_a_commit_are_what_the_tests_call() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    script = (ROOT / "scripts" / "test").read_text()
    commands = {hook["entry"].split()[0] for hook in hooks[0]["hooks"]}
    assert commands == {"ruff", "mypy", "lint-imports"}
    assert all(f'"$bin/{command}"' in script for command in commands)


def package_names(requirements: list[str]) -> set[str]:
    matches = [re.match(r"[A-Za-z0-9_.-]+", line.strip()) for line in requirements]
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in matches if match}


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+( *;.*)?( *#.*)?", line) for line in pinned), "only names and versions"
    required = package_names(PROJECT["dependencies"])
    for extra, needs in PROJECT["optional-dependencies"].items():
        required |= package_names(needs) if extra in ("test", "sweep", "tensorboard") else set()
    assert required - {"mil-zoo"} <= package_names(pinned)


def test_no_file_names_a_registry_or_a_local_path() -> None:
    registries = ["pypi" + ".org", "files.python" + "hosted", "index" + "-url", "conda." + "anaconda"]
    local_paths = ["/" + "work/", "/" + "root/"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / line for line in tracked.stdout.splitlines()] or [
        path for path in ROOT.rglob("*") if not SKIPPED & set(path.parts) and path.suffix in TEXT
    ]
    assert len(paths) > 50
    for path in paths:
        if path.is_file() and path.suffix in TEXT:
            text = path.read_text(encoding="utf-8", errors="replace")  # real files of producers are bytes
            for word in [*registries, *local_paths]:
                assert word not in text, f"{path}: {word}"

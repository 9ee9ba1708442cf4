"""Files by which others install the package: the Dockerfile, the conda environment, and the workflow of a public forge.

No test builds an image or a conda environment: neither a Docker engine nor conda's channels can be expected where tests
run. What can be read is read; `scripts/check_install` installs the wheel for real.
"""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = SpecifierSet(PROJECT["requires-python"])
EXTRAS = set(PROJECT["optional-dependencies"])
BUILD_INPUTS = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "mil", "conf", "model_cards")
"""What `pip install .` reads."""


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, without comments; lines that go on are joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    return instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def arguments(steps: list[tuple[str, str]], name: str) -> list[str]:
    """Return the arguments of all instructions of a name."""
    return [rest for word, rest in steps if word == name]


def requirements_in(command: str) -> list[Requirement]:
    """Return what the `pip install` commands of a shell line install, but for folders, such as `.[zarr]`."""
    words = [word.strip('"') for part in re.findall(r"pip install ([^&]*)", command) for word in part.split()]
    files = {words[at + 1] for at, word in enumerate(words) if word == "--constraint"}
    return [Requirement(word) for word in words if not word.startswith(("-", ".")) and word not in files]


def extras_in(text: str) -> set[str]:
    """Return the extras of the package that a text installs, `zarr` and `sign` of `.[zarr,sign]`."""
    return {extra for names in re.findall(r"(?<=[.o])\[([\w,]+)\]", text) for extra in names.split(",")}


def test_a_dockerfile_is_read_by_instruction() -> None:
    assert instructions("# a\nFROM x\nRUN a \\\n    && b\n\nUSER c\n") == [
        ("FROM", "x"),
        ("RUN", "a && b"),
        ("USER", "c"),
    ]


def test_the_dockerfile_copies_and_names_what_exists_and_ends_as_a_user_of_no_rights(
    steps: list[tuple[str, str]],
) -> None:
    known = {"FROM", "COPY", "RUN", "USER", "ENV", "ENTRYPOINT"}
    assert [word for word, _ in steps if word not in known] == []
    (image,) = arguments(steps, "FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert steps[0] == ("FROM", image)
    assert version is not None
    assert version[1] in PYTHONS
    for copied in arguments(steps, "COPY"):
        assert (ROOT / copied.split()[0]).exists()
    names = [word for word, _ in steps]
    assert names.index("USER") > max(at for at, word in enumerate(names) if word == "RUN")
    (user,) = arguments(steps, "USER")
    assert any(f"useradd --create-home {user}" in command for command in arguments(steps, "RUN"))
    assert arguments(steps, "ENTRYPOINT") == ['["mil"]']
    assert "mil" in PROJECT["scripts"]


def test_the_commands_of_the_dockerfile_are_shell_that_installs_torch_pinned_and_first(
    steps: list[tuple[str, str]],
) -> None:
    commands = arguments(steps, "RUN")
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        for file in re.findall(r"--constraint (\S+)", command):
            assert (ROOT / file).is_file()
        assert extras_in(command) <= EXTRAS
    (installing,) = (command for command in commands if "pip install" in command)
    assert [each.name for each in requirements_in(installing)] == ["torch"]
    assert installing.index(" torch") < installing.index('".[')
    assert extras_in(installing) == {"zarr", "sign"}
    assert installing.count("--constraint constraints.txt") == installing.count("pip install") == 2


def test_nothing_that_the_image_installs_is_ignored_and_the_rest_of_a_clone_is() -> None:
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert [name for name in BUILD_INPUTS if any(Path(name).match(pattern) for pattern in patterns)] == []
    heavy = (".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build", "runs", "demo")
    assert [name for name in heavy if not any(Path(name).match(pattern) for pattern in patterns)] == []


def test_the_conda_environment_has_a_python_of_ours_and_pips_pinned_packages() -> None:
    environment: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    *packages, pip = environment["dependencies"]
    (python,) = (package.partition("=")[2] for package in packages if package.startswith("python="))
    assert python in PYTHONS
    assert "pip" in packages
    constraint, torch, package = pip["pip"]
    assert (ROOT / constraint.removeprefix("--constraint ")).is_file()
    assert torch == "torch", "before the package, as everywhere"
    assert package.startswith(".[")
    assert extras_in(package) <= EXTRAS


def test_the_workflow_tests_and_builds_the_site_within_a_time() -> None:
    workflow: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands["test"][-1] == "scripts/test"
    assert any(command.startswith("scripts/docs") for command in commands["docs"])
    assert all("timeout-minutes" in job for job in jobs.values())

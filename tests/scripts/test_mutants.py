"""The mutation test script: which mutations are stale, and which ones the tests of a small project kill."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

CODE = "def larger(a: int, b: int) -> int:\n    return a if a > b else b\n"
TEST = "from mil.order import larger\n\n\ndef test_larger() -> None:\n    assert larger(1, 2) == 2\n"
NOTICED = {"area": "order", "old": "a > b", "new": "a < b"}
UNNOTICED = {"area": "order", "old": "a > b", "new": "a >= b"}
TWICE = {"area": "order", "old": "int", "new": "float"}
WITHOUT_TESTS = {"area": "other", "old": "a > b", "new": "a < b", "tests": ["tests/test_missing.py"]}


@pytest.fixture(scope="module")
def mutants(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("mutants")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout with one function and its test; pytest runs without plugins, which take a second to load."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name, text in {"mil/__init__.py": "", "mil/order.py": CODE, "tests/test_order.py": TEST}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def write_list(project: Path, *mutations: Mapping[str, object]) -> None:
    rows = [{"file": "mil/order.py", "tests": ["tests/test_order.py"], **mutation} for mutation in mutations]
    (project / "tests" / "mutants.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("mutation", "code"),
    [
        (NOTICED, 0),
        (TWICE, 1),
        (WITHOUT_TESTS, 1),
        ({**NOTICED, "old": "a == b"}, 1),
        ({**NOTICED, "file": "mil/gone.py"}, 1),
    ],
)
def test_stale_mutations_are_counted(
    mutation: Mapping[str, object], code: int, mutants: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(project, mutation)
    assert mutants.main(["--check", "--root", str(project)]) == code
    assert capsys.readouterr().out.splitlines()[-1] == f"{code} of 1 mutations are stale"


def test_mutations_are_selected_by_area_file_and_position(
    mutants: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(project, TWICE, NOTICED, WITHOUT_TESTS)
    chosen = {
        (): "2 of 3",
        ("--area", "order"): "1 of 2",
        ("--file", "mil/gone.py"): "0 of 0",
        ("--only-new", "2"): "1 of 2",
        ("--only-new", "0"): "0 of 0",
        ("--only-new", "2", "--area", "order"): "0 of 1",
    }
    for options, counted in chosen.items():
        mutants.main(["--check", "--root", str(project), *options])
        assert capsys.readouterr().out.splitlines()[-1] == f"{counted} mutations are stale"


def test_outcomes_are_reported_and_the_checkout_is_unchanged(
    mutants: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(project, NOTICED, UNNOTICED, TWICE)
    assert mutants.main(["--root", str(project), "--timeout", "60"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["KILLED", "SURVIVED", "STALE"]
    assert lines[3:] == ["1 killed, 1 survived, 1 stale"]
    assert (project / "mil" / "order.py").read_text() == CODE


def test_no_mutation_is_tried_if_the_tests_already_fail(
    mutants: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(project, NOTICED)
    (project / "mil" / "order.py").write_text(CODE.replace("else b", "else 5"))
    assert mutants.main(["--root", str(project), "--timeout", "60"]) == 2
    assert capsys.readouterr().out == ""


def test_every_mutation_of_the_project_still_fits_the_code(
    mutants: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mutants.main(["--check"]) == 0, capsys.readouterr().out

"""The script of mutation tests: which mutations are stale, and which are noticed by the tests of a small project."""

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
    """A checkout of one function and its test, which needs none of pytest's plugins; loading them takes a second."""
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
def test_a_mutation_is_stale_unless_its_text_occurs_exactly_once_and_its_tests_exist(
    mutation: Mapping[str, object], code: int, mutants: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(project, mutation)
    assert mutants.main(["--check", "--root", str(project)]) == code
    assert capsys.readouterr().out.splitlines()[-1] == f"{code} of 1 mutations are stale"


def test_mutations_are_chosen_by_area_file_and_place_in_the_list(
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


def test_mutations_are_reported_as_killed_survived_or_stale_and_the_checkout_stays_as_it_is(
    mutants: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(project, NOTICED, UNNOTICED, TWICE)
    assert mutants.main(["--root", str(project), "--timeout", "60"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["KILLED", "SURVIVED", "STALE"]
    assert lines[3:] == ["1 killed, 1 survived, 1 stale"]
    assert (project / "mil" / "order.py").read_text() == CODE


def test_nothing_is_tried_where_the_tests_fail_without_a_mutation(
    mutants: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_list(project, NOTICED)
    (project / "mil" / "order.py").write_text(CODE.replace("else b", "else 5"))
    assert mutants.main(["--root", str(project), "--timeout", "60"]) == 2
    assert capsys.readouterr().out == ""

"""Help that helps: the first day, two examples for each command that can be typed, and a project of one's own."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from typer import Context
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from mil.cli import doctor_command
from mil.cli.examples import EXAMPLES, FIRST_DAY
from mil.cli.federate_command import action_of, divided, options_in, site_words
from mil.cli.main import app
from mil.config import choices
from mil.study.compose import compose
from mil.study.search_space import search_space
from tests.conftest import Mil


def commands(group: object, prefix: str = "") -> Iterator[tuple[str, TyperCommand]]:
    """Every command with its words."""
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperCommand):
            yield f"{prefix}{name}", command
        else:
            yield from commands(command, f"{prefix}{name} ")


ALL = dict(commands(get_command(app)))


def parsed(line: str) -> Context:
    """The arguments of a line, as the command that it names takes them; nothing is run."""
    words = shlex.split(line)
    assert words[0] == "mil"
    name = " ".join(words[1:3]) if words[1] in ("zoo", "plan") else words[1]
    return cast(Context, ALL[name].make_context(name, words[1 + len(name.split()) :]))


@pytest.mark.parametrize("name", ALL)
def test_each_help_has_two_examples(name: str, mil: Mil) -> None:
    out = mil(*name.split(), "--help").out
    shown = out[out.index("Examples:") :].splitlines()[1 : 1 + len(EXAMPLES[name])]
    assert [line.strip() for line in shown] == list(EXAMPLES[name])
    assert len(shown) >= 2


def test_there_are_no_examples_of_commands_that_do_not_exist() -> None:
    assert set(EXAMPLES) == set(ALL)


@pytest.mark.parametrize("line", [line.partition(" > ")[0] for lines in EXAMPLES.values() for line in lines])
def test_each_example_can_be_typed(line: str) -> None:
    words = parsed(line).params.get("words") or []
    if line.startswith("mil federate"):
        action, _, words = action_of(words)
        if action == "site":
            assert site_words(words)[0].data
            return
    federated, others = divided(words)
    options_in(federated)
    if line.startswith("mil tune"):
        others = search_space(others).first
    if others and not any(word.startswith("-") for word in others):
        compose(others)


def test_an_example_with_an_option_that_does_not_exist_would_fail() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed("mil predict msi-crc --feature features/ --out scores.csv")


def test_mil_alone_shows_five_commands_of_a_first_day(mil: Mil) -> None:
    result = mil()
    assert (result.code, result.out) == (0, f"{FIRST_DAY}\n")
    shown = [line.strip().split("   ")[0] for line in FIRST_DAY.splitlines() if line.startswith("  mil ")]
    assert len(shown) == 5
    for line in shown:
        parsed(line)


def test_the_doctor_names_versions_extras_and_folders_and_no_place(mil: Mil) -> None:
    out = mil("doctor").out
    for start in ("mil-zoo: ", "python: ", "libraries: torch ", "extra zarr: ", "torch build: ", "GPU: ", "cache"):
        assert any(line.startswith(start) for line in out.splitlines()), start
    assert "precision chosen in training: " in out
    assert str(Path.cwd()) not in out
    assert "/" not in "".join(line for line in out.splitlines() if "free" in line)


def test_the_doctor_says_what_cannot_be_written_and_what_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(doctor_command, "SCARCE_GIB", 10**9)
    warnings = [line for line in doctor_command.lines() if line.startswith("! ")]
    assert sum("not writable" in line for line in warnings) == 3
    assert sum("GiB free" in line for line in warnings) == 3
    assert sum("MIL_CACHE names another folder" in line for line in warnings) == 1


OWN = {
    "binary": ("--column", "ER", "--classes", "no,yes"),
    "multiclass": ("--column", "subtype", "--classes", "papillary,clear cell,it's rare"),
    "survival": ("--time", "OS.time", "--event", "OS"),
}


@pytest.mark.parametrize("kind", OWN)
def test_a_project_of_ones_own_composes_and_names_its_columns(kind: str, mil: Mil, tmp_path: Path) -> None:
    folder = tmp_path / "my-question"
    assert mil("init", folder, *OWN[kind]).code == 0
    config = compose(["experiment=my-question"], folder / "conf")
    assert (config.tool.name, config.data.cohort) == ("my-question", None)
    assert config.tool.endpoint is not None
    header = (folder / "cohort.csv").read_text().strip().split(",")
    columns = (folder / "cohort_columns.md").read_text()
    stated = set(map(str, config.tool.endpoint.options.keywords().values()))
    for column in header[3:]:
        assert column in stated
        assert f"| `{column}` |" in columns
    assert "$" not in (folder / "README.md").read_text()
    if kind == "binary":
        assert config.tool.endpoint.options.keywords()["classes"] == ["no", "yes"], "text, not yaml's truth values"
    if kind == "multiclass":
        assert "it's rare" in config.tool.endpoint.options.keywords()["classes"]


def test_a_project_trains_where_it_lies(mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mil("init", tmp_path / "er-breast", "--column", "ER").code == 0
    monkeypatch.chdir(tmp_path / "er-breast")
    small = ("simulation.patients=40", "simulation.tiles=20", "trainer.max_epochs=1", "resamples=20", "figures=false")
    result = mil("train", "--config-dir", "conf", "experiment=er-breast", "split=holdout", *small)
    assert result.code == 0, result.err
    run = Path(result.out.splitlines()[-1])
    assert run.is_relative_to(tmp_path / "er-breast" / "runs" / "er-breast")
    assert (run / "report.html").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("msi", "--name", "msi-crc"), "--name msi-crc: the zoo has a tool of this name, expected another one"),
        (("Folder",), "--name Folder: expected lower-case letters, digits, - and _, such as er-breast"),
        (("new", "--classes", "yes"), "--classes yes: expected two different words or more"),
        (("new", "--classes", "yes,yes"), "--classes yes,yes: expected two different words or more"),
        (("new", "--column", "a b"), "--column 'a b': expected the name of a column"),
        (("full",), "FOLDER full: is there already, expected a new folder"),
    ],
)
def test_a_project_that_cannot_be_made_leaves_nothing(
    words: tuple[str, ...], message: str, mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    result = mil("init", *words)
    assert (result.code, message in result.err) == (2, True), result.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "notes.txt"]


def test_the_names_of_the_templates_are_no_tools() -> None:
    assert {"my-question", "er-breast", "os-colon"}.isdisjoint(choices("tool"))

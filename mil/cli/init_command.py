"""`mil init`: the folder of a project with a question of its own, from templates."""

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from mil import files
from mil.config import choices
from mil.errors import ConfigError
from mil.output_places import check_output_folder

TEMPLATES = Path(__file__).parent / "project_template"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_COLUMN = re.compile(r"[^\s:,\[\]{}#$'\"]+")


@dataclass(frozen=True)
class Question:
    """A question of one's own.

    Attributes:
        name: Of the tool, such as "er-breast".
        template: File of the templates that defines the tool.
        values: What its templates leave open, by name.
        rows: What is predicted, as columns of the clinical table with their meaning.
    """

    name: str
    template: str
    values: dict[str, str]
    rows: dict[str, str]


def classes(name: str, column: str, words: str) -> Question:
    """Return a question with two answers or more.

    Args:
        name: Of the tool.
        column: Of the clinical table.
        words: Those of the column, with commas between them; of two the positive one last.

    Raises:
        ConfigError: Fewer than two different words.
    """
    answers = [word.strip() for word in words.split(",")]
    if len(answers) < 2 or len(set(answers)) < len(answers) or not all(answers):
        expected = "expected two different words or more, of two the positive one last: negative,positive"
        raise ConfigError(f"--classes {words}: {expected}")
    template = "binary.yaml" if len(answers) == 2 else "multiclass.yaml"
    values = {"column": _checked("--column", column), "classes": ", ".join(map(_quoted, answers))}
    meaning = " or ".join(f"`{word}`" for word in answers)
    return Question(name, template, values, {column: f"{meaning}; empty where it is unknown"})


def survival(name: str, time: str, event: str) -> Question:
    """Return a question about the time to an event, with the columns of the clinical table."""
    values = {"time": _checked("--time", time), "event": _checked("--event", event)}
    rows = {time: "time from the start to the event or to the last contact, in months", event: "1 event, 0 censored"}
    return Question(name, "survival.yaml", values, rows)


def write_project(folder: Path, question: Question) -> list[str]:
    """Write a project's folder and return the lines that tell a user how to go on.

    Raises:
        ConfigError: The folder holds files already, or the name is not one of a tool, or is a tool of the zoo.
    """
    if not _NAME.fullmatch(question.name):
        raise ConfigError(f"--name {question.name}: expected lower-case letters, digits, - and _, such as er-breast")
    if question.name in choices("tool"):
        raise ConfigError(f"--name {question.name}: the zoo has a tool of this name, expected another one")
    check_output_folder(folder, [], option="FOLDER")
    rows = "\n".join(f"| `{column}` | {meaning} |" for column, meaning in question.rows.items())
    values = {"name": question.name, "rows": rows, **question.values}
    for source, target in (
        ("README.md", "README.md"),
        ("cohort_columns.md", "cohort_columns.md"),
        ("gitignore", ".gitignore"),
        ("conf/experiment/project.yaml", f"conf/experiment/{question.name}.yaml"),
        (f"conf/tool/{question.template}", f"conf/tool/{question.name}.yaml"),
    ):
        text = Template((TEMPLATES / source).read_text(encoding="utf-8")).substitute(values)
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        files.write(folder / target, text)
    files.write(folder / "cohort.csv", ",".join(["patient", "slide", "site", *question.rows]) + "\n")
    return [
        f"{folder}: a project for {question.name}; its README.md says how to go on. On a simulated cohort:",
        f"  cd {folder}",
        f"  mil train --config-dir conf experiment={question.name} trainer.max_epochs=5",
    ]


def _checked(option: str, column: str) -> str:
    if not _COLUMN.fullmatch(column):
        raise ConfigError(f"{option} {column!r}: expected the name of a column without spaces and punctuation of yaml")
    return _quoted(column)


def _quoted(word: str) -> str:
    """Return a word as a string of yaml: `no`, `1` and `null` would be read as something else."""
    return "'" + word.replace("'", "''") + "'"

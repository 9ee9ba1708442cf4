"""What people state stands on the card where it belongs; what they leave out is open, and never a "no"."""

import re
from pathlib import Path

import pytest

from mil.cards import card
from mil.cards.chai import chai
from mil.cards.statements import STATEMENTS, CardStatements, read_statements, zoo_statements
from mil.errors import ConfigError
from mil.study.tool import Tool
from tests.report.figures.cases import evaluated

from .test_card import blocks, fields, manifest

STATED = {name: f"stated {name}" for name in CardStatements.model_fields if name not in ("date", "evidence")}
SENTENCES = CardStatements.model_validate(STATED | {"date": "2026-11-30", "evidence": ["a trial", "a review"]})
WITH_VARIABLES = ("missing_variables",)
"""Statements that need a model with clinical variables."""


def written(statements: CardStatements, simulated: bool = False) -> str:
    evaluation, report = evaluated("binary")
    return card(manifest(evaluation.endpoint, simulated), evaluation.endpoint, report, [], statements=statements)


def test_everything_that_people_state_is_on_the_card_and_in_no_list_of_gaps() -> None:
    text = written(SENTENCES)
    details = text.partition("## 0. Identity")[2]
    missing = [name for name in STATED if f"stated {name}" not in details.replace("&#95;", "_")]
    assert missing == list(WITH_VARIABLES)
    assert "2026-11-30" in blocks(text)[0]
    assert "    - a trial\n    - a review" in blocks(text)[21]
    (line,) = re.findall(r"^- \*\*Not stated\*\*: (.*)$", text, re.MULTILINE) or [""]
    assert not {"Funding", "Contact", "Date", "Mitigation"} & {name.partition(" (")[0] for name in line.split(", ")}


def test_what_nobody_stated_is_listed_once_and_nowhere_else() -> None:
    text = written(CardStatements())
    (line,) = re.findall(r"^- \*\*Not stated\*\*: (.*)$", text, re.MULTILINE)
    for name in ("Funding (20)", "Conflicts of interest (20)", "Patients involved (20)", "Contact (0)", "Date (0)"):
        assert name in line.split(", ")
    for body in blocks(text).values():
        for name, content in fields(body):
            assert content not in ("no", "none", "not stated"), name
            assert name not in ("Funding", "Conflicts of interest", "Deployed at", "Prospective")


@pytest.mark.parametrize("key", ["ethics_approval", "consent", "treatments", "readers"])
def test_what_cannot_exist_for_simulated_patients_does_not_apply_and_is_not_open(key: str) -> None:
    assert f"stated {key}" not in written(CardStatements(), simulated=True)
    text = written(CardStatements(), simulated=True)
    applies = text.partition("- **Does not apply**:")[2].partition("</details>")[0]
    labels = {
        "ethics_approval": "Ethics approval (20)",
        "consent": "Legal basis and consent (7)",
        "treatments": "Treatments (7)",
        "readers": "Who read it, blinded or not (6)",
    }
    assert labels[key] in applies
    (line,) = re.findall(r"^- \*\*Not stated\*\*: (.*)$", text, re.MULTILINE)
    assert labels[key] not in line


def test_the_front_matter_and_the_xml_have_date_contact_licence_and_version_of_the_data() -> None:
    evaluation, report = evaluated("binary")
    text, xml = written(SENTENCES), chai(manifest(evaluation.endpoint, False), evaluation.endpoint, report, SENTENCES)
    front = text.split("---\n", 2)[1]
    assert "license_link: LICENSE-weights.txt" in front
    assert "date: '2026-11-30'" in front
    assert "contact: stated contact" in front
    assert "data_version: stated data_version" in front
    for element, sentence in (
        ("ReleaseDate", "2026-11-30"),
        ("DeveloperContact", "stated contact"),
        ("FundingSource", "stated funding"),
        ("ModelDeveloper", "stated developers"),
    ):
        assert f"<{element}>{sentence}</{element}>" in xml
    bare = chai(manifest(evaluation.endpoint, False), evaluation.endpoint, report)
    assert "<FundingSource>Not available: not stated</FundingSource>" in bare


def test_the_card_says_what_the_software_does_with_tiles() -> None:
    assert "writes no tiles" not in written(CardStatements())
    assert "no tiles;" not in written(CardStatements())
    assert "mil predict --tiles FOLDER writes coordinates and attention of every tile" in written(CardStatements())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("fundin: x", "fundin: expected the keys date, data_version"),
        ("funding: ''", "funding: "),
        ("date: soon", "date: "),
        ("funding: [a", "no yaml"),
        ("- funding", "content: "),
    ],
)
def test_a_card_yaml_that_says_something_else_is_refused_in_one_line(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / STATEMENTS).write_text(content)
    with pytest.raises(ConfigError) as refusal:
        read_statements(tmp_path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_without_card_yaml_states_nothing(tmp_path: Path) -> None:
    assert read_statements(tmp_path) == CardStatements()
    (tmp_path / STATEMENTS).write_text("")
    assert read_statements(tmp_path) == CardStatements()


def test_a_tool_that_is_not_of_the_zoo_has_no_statements() -> None:
    assert zoo_statements("binary") is None


def test_a_tool_that_foretells_a_response_is_not_called_prognostic() -> None:
    evaluation, report = evaluated("binary")
    sealed = manifest(evaluation.endpoint)
    for category, words in (("response", "estimates the response to a treatment"), ("outcome", "prognosis")):
        tool = Tool.parse({**sealed.tool.plain(), "category": category})
        text = card(sealed.model_copy(update={"tool": tool}), evaluation.endpoint, report, [])
        assert words in dict(fields(blocks(text)[2]))["Function"]
        assert f"- {category}\n" in text.split("---\n", 2)[1]

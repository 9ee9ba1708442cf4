"""The cards of the 27 tools as today's code writes them from the released reports: short, sourced, and true."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from mil import checkpoint
from mil.cards import CARD, CARD_PAGE, card_texts
from mil.cards.statements import ZOO_STATEMENTS, CardStatements, zoo_statements
from mil.report.report_files import read_report
from mil.runs.describe import REPORT, figure_names
from tests.browser import SHEET, layouts, needs_chromium

from .test_card import first_page, sources, words

ZOO = Path(__file__).parents[2] / "model_cards"
TOOLS = sorted(path.name for path in ZOO.iterdir() if path.is_dir())
KEY = re.compile(r'(\w+)|\[(\d+)\]|\["([^"]+)"\]')


def stated(tool: str) -> CardStatements:
    return CardStatements.model_validate(yaml.safe_load(zoo_statements(tool) or "{}"))


@cache
def written(tool: str) -> dict[str, str]:
    """The texts of a tool's card."""
    loaded = checkpoint.load(ZOO / tool)
    report = read_report(ZOO / tool / REPORT)
    return card_texts(loaded.manifest, loaded.endpoint, report, figure_names(ZOO / tool), "1.0.0: First.", stated(tool))


def resolved(document: object, path: str) -> object:
    """What a document holds at a place; None where it has no such place."""
    for key, index, quoted in KEY.findall(path):
        try:
            document = document[int(index)] if index else document[quoted or key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return document


@pytest.mark.parametrize("tool", TOOLS)
def test_the_first_page_has_at_most_700_words_and_shows_where_the_tool_falls_short(tool: str) -> None:
    page = first_page(written(tool)[CARD])
    assert 400 < words(page) <= 700
    order = ["Purpose", "What to do with each output", "Results and decision", "Where it falls short"]
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [*order, "What not to use it for", "Provenance"]
    assert "DONNÉES SIMULÉES" in page
    assert "2026-" in page
    section = page.partition("## Where it falls short")[2].partition("\n## ")[0]
    gates = read_report(ZOO / tool / REPORT).gates
    assert all(f"Release gate {gate.number}, {gate.name}" in section for gate in gates if gate.holds is False)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_source_of_a_card_is_in_the_file_that_it_names(tool: str) -> None:
    report = read_report(ZOO / tool / REPORT).model_dump(mode="json")
    manifest = checkpoint.read_manifest(ZOO / tool).model_dump(mode="json")  # older ones as manifests of today
    documents = {"report.json": report, "manifest.json": manifest}
    cited = sources(written(tool)[CARD])
    marks = re.findall(r"\[\^(\d+)\](?!:)", written(tool)[CARD])
    assert list(cited) == [str(number) for number in range(1, len(cited) + 1)]
    assert set(marks) == set(cited)
    for source in cited.values():
        for citation in source.split("; "):
            file, _, keys = citation.partition(": ")
            for key in re.split(r', (?=[\w.\["\]]+$)', keys) if '"' not in keys else [keys]:
                assert resolved(documents[file], key) is not None, source


@pytest.mark.parametrize("tool", TOOLS)
def test_what_people_state_of_the_zoo_is_stated_for_each_tool(tool: str) -> None:
    statements = stated(tool)
    assert statements.date
    assert tool in str(statements.data_version)
    assert statements.contact
    assert statements.funding is None
    text = written(tool)[CARD]
    assert "not available" not in text
    assert "writes no tiles" not in text


def test_there_are_statements_of_the_zoo_and_of_nothing_else() -> None:
    assert sorted(path.stem for path in ZOO_STATEMENTS.glob("*.yaml")) == TOOLS


@needs_chromium
@pytest.mark.parametrize("tool", ["breast-lesion-bracs", "idh-glioma", "rlapsrisk-bc"])
def test_the_widest_cards_fit_a_telephone_and_a_sheet(tool: str, tmp_path: Path) -> None:
    (tmp_path / "figures").symlink_to(ZOO / tool / "figures")
    (tmp_path / CARD_PAGE).write_text(written(tool)[CARD_PAGE], encoding="utf-8")
    views = [(400, False), (SHEET, True)]
    for (width, _), measured in zip(views, layouts(tmp_path / CARD_PAGE, views), strict=True):
        assert measured.scroll <= width
        assert (measured.wide, measured.squeezed, measured.hidden, measured.broken) == ((), (), (), ())

"""What is committed under model_cards/: every tool of the zoo, whole, small, and saying what its folder says.

`mil zoo verify`, which `scripts/test` runs, recomputes every number of every card; here is what takes no time.
"""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from mil import checkpoint, config
from mil.cards import SIMULATED
from mil.cards.markdown import anchor
from mil.zoo import golden
from mil.zoo.registry import built_in
from mil.zoo.released import misplaced, missing_blocks

CARDS = Path(__file__).parents[2] / "model_cards"
TOOLS = sorted(
    name
    for name, node in config.described("tool").items()
    if node["tool"].get("category") in ("workflow", "biomarker", "outcome", "response")
)


def test_every_tool_of_the_zoo_is_released_and_nothing_else() -> None:
    assert len(TOOLS) == 27
    assert sorted(path.name for path in CARDS.iterdir() if path.is_dir()) == TOOLS
    assert built_in() == CARDS


def test_all_of_them_are_small_enough_for_git() -> None:
    assert sum(path.stat().st_size for path in CARDS.rglob("*") if path.is_file()) < 25e6


@pytest.mark.parametrize("tool", TOOLS)
def test_a_released_tool_is_whole_and_predicts_what_it_did(tool: str) -> None:
    loaded = checkpoint.load(CARDS / tool)
    assert misplaced(loaded.manifest) == []
    assert golden.check(loaded)
    card = (CARDS / tool / "README.md").read_text(encoding="utf-8")
    assert missing_blocks(card) == []
    assert card.split("---\n")[2].startswith(f"> **{SIMULATED}**")


def test_the_index_is_made_of_the_folders() -> None:
    index = (CARDS / "README.md").read_text(encoding="utf-8")
    assert all(f"({tool}/README.md)" in index for tool in TOOLS)
    assert SIMULATED in index


def dead(page: Path) -> Iterator[str]:
    """Links of a page, to files beside it or to headings on it, that lead nowhere."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".html":
        links, anchors = re.findall(r'(?:href|src)="([^"]*)"', text), set(re.findall(r'id="([^"]*)"', text))
    else:
        text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        links = re.findall(r"\]\(([^)\s]+)\)", text)
        anchors = {anchor(unescape(title)) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for link in links:
        name, _, part = link.partition("#")
        if link.startswith(("https://", "http://", "data:", "mailto:")):
            continue
        if not (page.parent / name).exists() or (part and not name and part not in anchors):
            yield link


@pytest.mark.parametrize("tool", TOOLS)
def test_no_link_of_a_card_or_of_its_report_is_dead(tool: str) -> None:
    assert list(dead(CARDS / tool / "README.md")) == []
    assert list(dead(CARDS / tool / "report.html")) == []


def test_the_way_from_the_readme_to_every_card_has_no_dead_end() -> None:
    assert list(dead(CARDS.parent / "README.md")) == []
    assert list(dead(CARDS / "README.md")) == []
    assert "model_cards/README.md" in (CARDS.parent / "README.md").read_text(encoding="utf-8")


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# Here\n[a](#here) [b](#gone) [c](a.md) [d](b.md) [e](https://example.org)\n")
    assert list(dead(page)) == ["#gone", "b.md"]

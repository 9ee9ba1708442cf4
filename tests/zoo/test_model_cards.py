"""What is committed under model_cards/: every tool of the zoo, whole, small, and saying what its folder says.

`mil zoo verify`, which `scripts/test` runs, recomputes every number of every card; here is what takes no time.
"""

from pathlib import Path

import pytest

from mil import checkpoint, config
from mil.zoo import golden
from mil.zoo.card import SIMULATED
from mil.zoo.registry import built_in
from mil.zoo.released import misplaced, missing_blocks

CARDS = Path(__file__).parents[2] / "model_cards"
TOOLS = sorted(
    name
    for name, node in config.described("tool").items()
    if node["tool"].get("category") in ("workflow", "biomarker", "outcome")
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
    said = (CARDS / "README.md").read_text(encoding="utf-8")
    assert all(f"({tool}/README.md)" in said for tool in TOOLS)
    assert SIMULATED in said


def test_the_readme_shows_what_the_index_says() -> None:
    told = (CARDS.parent / "README.md").read_text(encoding="utf-8")
    rows = [line for line in (CARDS / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| [")]
    assert len(rows) == 27
    for row in rows:
        _, _, result, oracle, beats, *_ = (cell.strip() for cell in row.strip("|").split(" | "))
        assert f"| {result} | {oracle} | {beats} |" in told

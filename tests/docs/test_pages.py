"""Every page of the documentation that shows commands with their output prints what it shows."""

import os
import sys
from pathlib import Path

import pytest

from tests.docs.page import ALL, Block, blocks, pattern, run, run_page

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if any(blocks(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_prints_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    assert run_page(page) == []


def test_an_output_that_a_page_does_not_show_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"{ALL}\n```sh\necho shown\n```\n\n@@1@@\n")
    assert run_page(page) == ["echo shown\nprinted\nshown\nexpected\n"]
    page.write_text(f"{ALL}\n```sh\necho shown\n```\n\n```text\nshown\n```\n")
    assert run_page(page) == []


def test_a_page_is_run_as_far_as_it_shows_outputs_or_asks_for_it() -> None:
    text = "```sh\nls\n```\n\n```sh\necho a\n```\n\n```text\na\n```\n"
    assert list(blocks(text)) == [Block("sh", "echo a\n", "a\n")]
    assert [block.code for block in blocks(f"{ALL}\n{text}")] == ["ls\n", "echo a\n"]


def test_an_output_matches_with_gaps_and_not_otherwise() -> None:
    assert pattern("n 3\n…\nend …\n").fullmatch("n 3\nx\ny\nend 1.5\n")
    assert pattern("n 3\n…\n").fullmatch("n 3\n")
    assert not pattern("n 3\n").fullmatch("n 4\n")
    assert not pattern("n 3\n").fullmatch("n 3\nmore\n")


def test_commands_share_a_folder_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert run(Block("sh", "mkdir a\ncd a\necho one \\\n  two > f\ncat f\n", None), names) == "one two\n"
    assert run(Block("python", "from pathlib import Path\nx = Path('f').read_text()\n", None), names) == ""
    assert run(Block("python", "print(x, end='')\n", None), names) == "one two\n"
    assert run(Block("sh", "mil --version\n", None), names).strip()
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv("PYTHONPATH", "")
    assert run(Block("sh", "export PYTHONPATH=.\necho $PYTHONPATH\n", None), names) == ".\n"
    assert sys.path[0] == str(Path.cwd())
    with pytest.raises(AssertionError, match="no-such-verb"):
        run(Block("sh", "mil no-such-verb\n", None), names)

"""Two versions of a tool's card side by side: what differs is named, in a terminal and on a page without scripts."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mil import checkpoint, files
from mil.cards.statements import STATEMENTS
from mil.errors import ConfigError
from mil.zoo.compare_cards import compare_cards, comparison_page
from tests.browser import needs_chromium
from tests.conftest import Mil
from tests.devtools import Browser


@pytest.fixture
def newer(crc_release: Path, tmp_path: Path) -> Path:
    """The release as version 1.0.1, whose card names a contact."""
    folder = tmp_path / "msi-crc"
    shutil.copytree(crc_release, folder)
    (folder / STATEMENTS).write_text("contact: The <tissue> group\n")

    def change(manifest: dict[str, object]) -> None:
        manifest["tool"] |= {"version": "1.0.1"}  # type: ignore[operator]
        manifest["files"] |= {STATEMENTS: files.sha256(folder / STATEMENTS)}  # type: ignore[operator]

    _edit(folder, change)
    return folder


def _edit(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    path = folder / checkpoint.MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_what_differs_is_named_and_what_does_not_is_shown_too(crc_release: Path, newer: Path) -> None:
    comparison = compare_cards(crc_release, newer)
    assert comparison.versions == ("1.0.0", "1.0.1")
    assert comparison.meaning == "The same weights"
    differing = {item.name: item for part in comparison.parts for item in part.differing}
    assert differing["Contact"].difference == "new"
    assert differing["Contact"].second == "The <tissue> group"
    results = next(part for part in comparison.parts if part.title == "Results and decision")
    assert not results.differing
    assert "AUROC" in str(results.equal[0].first)
    page = comparison_page(comparison)
    assert "The &lt;tissue&gt; group" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert f"{len(results.equal)} the same" not in page  # a part without differences stands at the end, whole
    assert "SIMULATED DATA" in page


def test_other_weights_are_said_to_be_others(crc_release: Path, newer: Path) -> None:
    _edit(newer, lambda manifest: manifest["training"].update(parameters=7))  # type: ignore[attr-defined]
    assert "answered by other weights (training differs)" in compare_cards(crc_release, newer).meaning


def test_two_tools_are_not_versions_of_each_other(crc_release: Path, surv_release: Path) -> None:
    with pytest.raises(ConfigError, match=r"is of the tool surv-crc, expected another version of msi-crc"):
        compare_cards(crc_release, surv_release)


def test_the_command_prints_what_differs_and_writes_the_page(
    mil: Mil, crc_release: Path, newer: Path, tmp_path: Path
) -> None:
    said = mil("zoo", "compare", crc_release, newer, "--out", tmp_path / "compared.html")
    assert said.code == 0
    head, *_, last = said.out.splitlines()
    assert re.fullmatch(r"msi-crc: 1\.0\.0 beside 1\.0\.1: \d+ of \d+ items differ", head)
    assert "Contact (new)" in said.out
    assert last == str(tmp_path / "compared.html")
    assert (tmp_path / "compared.html").is_file()
    before = (newer / "README.md").read_text()
    assert mil("zoo", "compare", crc_release, newer, "--out", newer / "README.md").code == 2
    assert (newer / "README.md").read_text() == before


@needs_chromium
def test_the_page_is_quiet_narrow_and_readable(crc_release: Path, newer: Path, tmp_path: Path) -> None:
    page = tmp_path / "compared.html"
    page.write_text(comparison_page(compare_cards(crc_release, newer)), encoding="utf-8")
    with Browser() as browser:
        for dark in (False, True):
            browser.open(page, 400, dark=dark)
            assert browser.run("document.documentElement.scrollWidth") <= 400
            assert browser.complaints == []
            assert browser.requests == [page.as_uri()]
            assert browser.violations() == []

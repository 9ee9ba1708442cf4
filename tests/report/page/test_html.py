"""The page: one file, nothing from outside, every word of it escaped, every number of the report on it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mil.report.page.html import ABSENT, CAPTIONS, HEADINGS, HOMES, html
from mil.report.page.words import estimate
from tests.report.figures.cases import CASES, HOSTILE, drawn, evaluated

_VOID = {"meta", "img", "link", "br"}
_BANNER = "SIMULATED DATA <not clinical>"


class Page(HTMLParser):
    """Collects elements and text; every element has to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a name."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("name", CASES)
def test_the_page_runs_nothing_and_loads_nothing(name: str) -> None:
    _, report = evaluated(name)
    page = Page(html(report, {"roc": b"<svg/>"}, HOSTILE, _BANNER))
    assert {"script", "iframe", "object", "embed", "link", "svg", "form"} & {tag for tag, _ in page.elements} == set()
    for tag, attributes in page.elements:
        assert [key for key in attributes if key.startswith("on")] == []
        assert str(attributes.get("src", "data:")).startswith("data:"), tag
        assert str(attributes.get("href", "#")).startswith("#"), tag
    assert page.of("meta")[-1]["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "@import" not in "".join(page.words)


def test_the_page_leads_on_to_the_files_beside_it_that_are_named() -> None:
    _, report = evaluated("binary")
    page = Page(html(report, {}, "T", "B", ["report.json", "predictions.csv"]))
    assert [link["href"] for link in page.of("a")][-2:] == ["report.json", "predictions.csv"]
    assert "the predictions that they are computed from" in page.words


def test_what_a_table_calls_its_classes_is_text_and_nothing_else() -> None:
    _, report = evaluated("multiclass")
    text = html(report, {}, HOSTILE, _BANNER)
    assert "<script" not in text
    assert HOSTILE in Page(text).words
    assert Page(text).words.count(_BANNER) == 1


@pytest.mark.parametrize("name", CASES)
def test_a_reviewer_finds_every_section_and_why_others_are_missing(name: str) -> None:
    _, report = evaluated(name)
    page = Page(html(report, {}, "title", _BANNER))
    told = {str(attributes["id"]) for attributes in page.of("section")}
    assert {key for key in HEADINGS if report.get(key)} <= told
    absent = [f"{heading}: {ABSENT[key]}." for key, (heading, _) in HEADINGS.items() if not report.get(key)]
    assert [word for word in page.words if word in absent] == absent
    for found in report["metrics"].values():
        assert estimate(found) in page.words
    anchors = {str(attributes["href"])[1:] for attributes in page.of("a")}
    assert anchors == told - {"absent"}


@pytest.mark.parametrize("name", ["binary", "survival"])
def test_every_figure_stands_in_a_section_with_words_for_who_cannot_see_it(name: str, tmp_path: Path) -> None:
    _, report = evaluated(name)
    for file, content in drawn(name).items():
        (tmp_path / file).write_bytes(content)
    figures = {path.stem: path for path in sorted(tmp_path.glob("*.svg"))}
    text = html(report, figures, "title", _BANNER)
    images = Page(text).of("img")
    assert sorted(str(image["alt"]) for image in images) == sorted(CAPTIONS[figure] for figure in figures)
    assert all(str(image["src"]).startswith("data:image/svg+xml;base64,") for image in images)
    assert 50_000 < len(text) < 1_000_000
    assert text == html(report, figures, "title", _BANNER)


def test_a_png_and_a_figure_of_another_name_are_shown_too() -> None:
    _, report = evaluated("regression")
    page = Page(html(report, {"my_own": b"\x89PNG\r\n"}, "title", _BANNER))
    (image,) = page.of("img")
    assert image["alt"] == "My own"
    assert str(image["src"]).startswith("data:image/png;base64,")
    assert "Further figures" in page.words


def test_every_header_of_a_table_says_what_it_heads() -> None:
    page = Page(html(evaluated("binary")[1], {}, "title", _BANNER))
    assert len(page.of("th")) > 50
    assert {str(attributes.get("scope")) for attributes in page.of("th")} == {"col", "row"}


def test_a_baseline_is_compared_in_words_at_the_top() -> None:
    _, report = evaluated("binary")
    gain = {"auroc": {"value": 0.05, "low": 0.01, "high": 0.09}}
    other = {"name": "mean pooling", "metrics": report["metrics"], "difference": gain}
    words = Page(html(report | {"baseline": other}, {}, "title", _BANNER)).words
    assert "The model beats mean pooling: difference in AUROC 0.050 (0.010 to 0.090), paired." in words
    worse = other | {"difference": {"auroc": {"value": -0.05, "low": -0.09, "high": -0.01}}}
    assert "is worse than" in html(report | {"baseline": worse}, {}, "title", _BANNER)
    assert "No baseline was run." in Page(html(report, {}, "title", _BANNER)).words


def test_sections_captions_and_homes_name_each_other() -> None:
    assert set(ABSENT) == set(HEADINGS)
    assert set(CAPTIONS) == set(HOMES)
    assert {key for homes in HOMES.values() for key in homes} <= {*HEADINGS, "fitted"}


def test_a_printed_page_hides_nothing() -> None:
    text = html(evaluated("binary")[1], {}, "title", _BANNER)
    assert re.search(r"@media print \{.*details::details-content \{ content-visibility: visible", text, re.DOTALL)

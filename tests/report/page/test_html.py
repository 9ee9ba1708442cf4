"""The page: one file, nothing from outside, every word of it escaped, every number of the report on it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import Environment

from mil.report.page.html import caption, figure_section, figure_text, html
from mil.report.page.outline import rows_of
from mil.report.schema import Report, section_classes
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.groups import RiskGroups
from mil.stats.estimate import Estimate
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
    chapters = {str(attributes["id"]) for attributes in page.of("section")}
    assert set(report.sections) <= chapters
    classes = [cls for cls in section_classes() if cls.key not in report.sections and cls.not_applicable]
    absent = [f"{cls.title}: {cls.not_applicable}" for cls in classes]
    assert [text for text in page.words if text in absent] == absent
    for metric in report.metrics.values():
        assert str(metric) in page.words
    anchors = {str(attributes["href"])[1:] for attributes in page.of("a")}
    assert anchors == chapters - {"absent"}


@pytest.mark.parametrize("name", CASES)
def test_every_estimate_of_every_section_is_on_the_page(name: str) -> None:
    _, report = evaluated(name)
    text = " ".join(Page(html(report, {}, "title", _BANNER)).words)
    for section in report.sections.values():
        missing = [row.source for row in rows_of(section) if str(row.estimate) not in text]
        assert missing == [], section.key


@pytest.mark.parametrize("name", ["binary", "survival"])
def test_every_figure_stands_in_a_section_with_words_for_who_cannot_see_it(name: str, tmp_path: Path) -> None:
    _, report = evaluated(name)
    for file, content in drawn(name).items():
        (tmp_path / file).write_bytes(content)
    figures = {path.stem: path for path in sorted(tmp_path.glob("*.svg"))}
    text = html(report, figures, "title", _BANNER)
    images = Page(text).of("img")
    assert sorted(str(image["alt"]) for image in images) == sorted(figure_text(figure, report) for figure in figures)
    main = next(iter(report.metrics.values()))
    assert any(str(main) in str(image["alt"]) for image in images)
    assert all(str(image["src"]).startswith("data:image/svg+xml;base64,") for image in images)
    assert 50_000 < len(text) < 1_000_000
    assert text == html(report, figures, "title", _BANNER)


def test_figures_stand_in_the_order_in_which_sections_declare_them() -> None:
    _, report = evaluated("binary")
    names = ("calibration", "precision_recall", "roc", "strange")
    page = html(report, dict.fromkeys(names, b"<svg/>"), "A title", _BANNER)
    places = [page.index(f'alt="{caption(name)}') for name in ("roc", "precision_recall", "calibration", "strange")]
    assert places == sorted(places)


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
    words = Page(html(with_baseline(report, Estimate(value=0.05, low=0.01, high=0.09)), {}, "title", _BANNER)).words
    assert "The model beats mean pooling: difference in AUROC 0.050 (0.010 to 0.090), paired." in words
    worse = with_baseline(report, Estimate(value=-0.05, low=-0.09, high=-0.01))
    assert "is worse than" in html(worse, {}, "title", _BANNER)
    assert "No baseline was run." in Page(html(report, {}, "title", _BANNER)).words


def with_baseline(report: Report, gain: Estimate) -> Report:
    baseline = Baseline(name="mean pooling", metrics=report.metrics, difference={"auroc": gain})
    return report.model_copy(update={"sections": report.sections | {Baseline.key: baseline}})


def test_a_figure_of_two_sections_belongs_to_the_later_one_that_the_report_has() -> None:
    section = figure_section("kaplan_meier", ["survival", "groups"])
    assert section is RiskGroups
    section = figure_section("kaplan_meier", ["survival"])
    assert section is not None
    assert section.key == "survival"
    assert figure_section("learning_curve", ["discrimination"]) is None


def test_the_parts_of_a_report_are_chapters_with_their_own_figures() -> None:
    _, report = evaluated("binary")
    parts = Report(parts={"MSI": report, "outcome": report})
    page = Page(html(parts, {"MSI_roc": b"<svg/>"}, "title", _BANNER))
    assert {"part-MSI", "part-outcome"} <= {str(attributes["id"]) for attributes in page.of("section")}
    assert [image["alt"] for image in page.of("img")] == [figure_text("roc", report)]
    assert "Further figures" not in page.words


def test_a_process_compiles_the_templates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, report = evaluated("binary")
    first = html(report, {}, "title", _BANNER)
    monkeypatch.setattr(Environment, "compile", lambda *_: pytest.fail("compiled again"))
    assert html(report, {}, "title", _BANNER) == first


def test_a_printed_page_hides_nothing() -> None:
    text = html(evaluated("binary")[1], {}, "title", _BANNER)
    assert re.search(r"@media print \{.*details::details-content \{ content-visibility: visible", text, re.DOTALL)

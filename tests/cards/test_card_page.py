"""The card as a page: it says what the Markdown says, loads nothing from outside, and fits screens and paper."""

import re
from pathlib import Path

import pytest

from mil.cards import CARD, CARD_PAGE, card_page, card_texts
from mil.cards.card_facts import Facts
from mil.cards.licence import licence_text
from mil.study.tool import Tool
from tests.browser import SHEET, layouts, needs_chromium
from tests.report.figures.cases import CASES, HOSTILE, drawn, evaluated
from tests.report.page.test_html import Page

from .test_card import manifest, sources


def texts(name: str, figures: list[str] | None = None) -> dict[str, str]:
    evaluation, report = evaluated(name)
    return card_texts(manifest(evaluation.endpoint), evaluation.endpoint, report, figures or [], "- First.")


def plain(markdown: str) -> set[str]:
    """Values with their intervals."""
    return set(re.findall(r"-?\d\.\d+ \(-?\d[\d.]* to \d[\d.]*\)", markdown))


@pytest.mark.parametrize("name", CASES)
def test_the_page_has_every_number_and_every_source_of_the_markdown(name: str) -> None:
    written = texts(name)
    page = Page(written[CARD_PAGE])
    assert plain(written[CARD].split("---\n", 2)[2]) == plain(" ".join(page.words))
    cited = {element["id"]: element for element in page.of("li") if element.get("id")}
    assert len(cited) == len(sources(written[CARD])) > 50
    assert {link["href"] for link in page.of("a") if str(link["href"]).startswith("#source-")} == {
        f"#{number}" for number in cited
    }
    assert set(sources(written[CARD]).values()) <= set(page.words)


@pytest.mark.parametrize("name", ["binary", "survival"])
def test_the_page_runs_nothing_and_loads_only_pictures_of_its_folder(name: str) -> None:
    page = Page(texts(name, ["roc.png", "my file.png"])[CARD_PAGE])
    assert {"script", "iframe", "object", "embed", "link", "svg", "form"} & {tag for tag, _ in page.elements} == set()
    assert {image["src"] for image in page.of("img")} <= {"figures/roc.png", "figures/my%20file.png"}
    assert page.of("meta")[-1]["content"] == "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'"
    for link in page.of("a"):
        assert str(link["href"]).startswith(("#", "https://")) or re.fullmatch(r"[\w.]+", str(link["href"]))


def test_what_a_tool_says_is_text_on_the_page() -> None:
    evaluation, report = evaluated("multiclass")
    sealed = manifest(evaluation.endpoint)
    stated = {**sealed.tool.plain(), "title": HOSTILE, "pathway": HOSTILE, "out_of_scope": [HOSTILE]}
    stated |= {"references": [{"text": HOSTILE, "url": "javascript:alert(1)"}]}
    text = card_page(Facts(sealed.model_copy(update={"tool": Tool.parse(stated)}), report, evaluation.endpoint))
    assert "<script" not in text
    assert 'href="javascript' not in text
    assert Page(text).words.count(HOSTILE) >= 3


def test_a_picture_is_described_with_the_numbers_that_it_shows() -> None:
    written = texts("binary", ["roc.png"])
    (image,) = Page(written[CARD_PAGE]).of("img")
    _, report = evaluated("binary")
    assert str(report.metrics["auroc"]) in str(image["alt"])
    assert f"![{image['alt']}](figures/roc.png)" in written[CARD]


@pytest.mark.parametrize("simulated", [True, False])
def test_the_licence_of_the_weights_is_a_text_of_its_own(simulated: bool) -> None:
    evaluation, report = evaluated("binary")
    text = licence_text(Facts(manifest(evaluation.endpoint, simulated), report))
    assert text.startswith("Licence of the weights of msi-crc 1.2.3: research use only\n")
    assert ("No patient's data are in them" in text) == simulated
    assert max(map(len, text.splitlines())) <= 120


@needs_chromium
@pytest.mark.parametrize("name", ["binary", "multiclass", "survival"])
def test_nothing_is_cut_off_squeezed_or_covered(name: str, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    figures = {file: content for file, content in drawn(name).items() if file.endswith(".png")}
    for file, content in figures.items():
        (tmp_path / "figures" / file).write_bytes(content)
    (tmp_path / CARD_PAGE).write_text(texts(name, sorted(figures))[CARD_PAGE], encoding="utf-8")
    views = [(400, False), (1280, False), (SHEET, True)]
    for (width, _), measured in zip(views, layouts(tmp_path / CARD_PAGE, views), strict=True):
        assert measured.scroll <= width
        assert (measured.wide, measured.squeezed, measured.hidden, measured.broken) == ((), (), (), ())
        assert measured.unnamed == 0

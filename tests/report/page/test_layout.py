"""A page is read on a narrow screen, in the dark and on paper: nothing is cut off, squeezed or covered."""

from pathlib import Path

import pytest

from mil.report.page.html import html
from mil.report.page.templates import column_style, css_text, is_broad
from mil.report.schema import Table
from tests.browser import SHEET, brightness, layout, layouts, needs_chromium
from tests.report.figures.cases import drawn, evaluated

CASES = ("binary", "multiclass", "survival")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report page of each kind of endpoint."""
    folder = tmp_path_factory.mktemp("pages")
    for name in CASES:
        figures = {file.rpartition(".")[0]: content for file, content in drawn(name).items() if file.endswith(".svg")}
        text = html(evaluated(name)[1], figures, "A title of several words", "SIMULATED DATA, NO CLINICAL MEANING")
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@needs_chromium
@pytest.mark.parametrize("name", CASES)
def test_nothing_is_cut_off_squeezed_or_covered(name: str, pages: Path) -> None:
    views = [(400, False), (1280, False), (SHEET, True)]
    for (width, printed), measured in zip(views, layouts(pages / f"{name}.html", views), strict=True):
        assert measured.width == width, printed
        assert measured.scroll <= width, printed
        assert measured.wide == (), width
        assert measured.squeezed == (), width
        assert measured.hidden == (), width
        assert measured.broken == (), width
        assert measured.unnamed == 0, width


@needs_chromium
def test_the_page_is_dark_where_the_reader_asks_for_it(pages: Path) -> None:
    light, dark = (layout(pages / "binary.html", 1280, dark=dark) for dark in (False, True))
    assert brightness(light.paper) > 200 > 100 > brightness(light.ink)
    assert brightness(dark.paper) < 60 < 180 < brightness(dark.ink)


@pytest.mark.parametrize("name", ["binary", "survival"])
def test_the_banner_stands_on_every_printed_sheet(name: str, pages: Path) -> None:
    style = (pages / f"{name}.html").read_text(encoding="utf-8").partition("</style>")[0]
    assert '@top-left { content: "SIMULATED DATA, NO CLINICAL MEANING"' in style


def test_what_a_table_is_called_cannot_leave_its_string_of_css() -> None:
    assert css_text("a'b\\c\"</style>\n") == "a\\000027b\\00005cc\\000022\\00003c/style\\00003e\\00000a"
    table = Table(columns=("Name", "x';background:url(y)"), rows=(("a", "b"),))
    assert column_style(table) == "--c2:'x\\000027;background:url(y): ';--w2:4.75rem"


def test_columns_of_sentences_are_wide_and_tables_of_many_are_stacked_on_paper() -> None:
    row = ("a", "percentile, patients resampled within folds")
    assert column_style(Table(columns=("", "How"), rows=(row,))) == "--c2:'How: ';--w2:13rem"
    assert column_style(Table(columns=("Fold", "How"), rows=(("0", "b"),))) == "--c1:'Fold: ';--c2:'How: '"
    assert not is_broad(Table(columns=("", "How"), rows=(row,)))
    assert is_broad(Table(columns=("", *"abcd"), rows=(("a", *row[1:] * 4),)))

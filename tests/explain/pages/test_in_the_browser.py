"""Case pages and their index in Chromium: opened from files, without a network, under their security policy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mil.explain.pages import write_index, write_pages
from mil.explain.pages.case import Call, Verdict
from tests.browser import SHEET, brightness, needs_chromium
from tests.devtools import Browser

from .synthetic import HOSTILE, case, slide

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cases")
    cases = [
        case("P1", slides=(slide("S1"), slide("S2", scale=0.5))),
        case("P2", calls=(Call(question="q", call="right", truth="t", verdict=Verdict.RIGHT),)),
        case(HOSTILE, word=HOSTILE, slides=(slide(HOSTILE),)),
    ]
    rows = list(write_pages(place, cases, [each.scores.patient for each in cases]))
    write_index(place, rows, "Screen", "SIMULATED DATA, RESEARCH USE ONLY")
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


def text(browser: Browser, element: str) -> str:
    return str(browser.run(f"document.getElementById({element!r}).textContent"))


def choose(browser: Browser, name: str, value: int | str) -> None:
    browser.run(
        f"(() => {{ const each = document.getElementById({name!r}); each.value = {value!r}; "
        "each.dispatchEvent(new Event('change')); })()"
    )


def colour(browser: Browser, x: float, y: float) -> list[int]:
    """Return red, green, blue and opacity of the first map at shares of its width and height."""
    answer = browser.run(
        "(() => { const canvas = document.querySelector('canvas'), copy = new OffscreenCanvas(1, 1).getContext('2d'); "
        f"copy.drawImage(canvas, -Math.floor(canvas.width * {x}), -Math.floor(canvas.height * {y})); "
        "return [...copy.getImageData(0, 0, 1, 1).data]; })()"
    )
    return [int(each) for each in answer]


def test_a_case_switches_output_and_method_and_asks_for_nothing(browser: Browser, folder: Path) -> None:
    page = folder / "P1.html"
    browser.open(page)
    assert colour(browser, 0.01, 0.01)[3] == 0
    red, _, blue, opaque = colour(browser, 0.99, 0.99)
    assert (red > blue, opaque) == (True, 255)
    assert colour(browser, 0.3, 0.05)[2] > colour(browser, 0.3, 0.05)[0]
    assert text(browser, "high") == "+3 log odds"
    choose(browser, "output", 1)
    assert text(browser, "high") == "+6 log odds"
    choose(browser, "layer", 1)
    choose(browser, "output", 0)
    assert text(browser, "low") == "0"
    assert "points the wrong way" in text(browser, "belief")
    assert browser.run("document.getElementById('list-against').hidden") is True
    assert browser.requests == [page.resolve().as_uri()]
    assert browser.complaints == []


@pytest.mark.parametrize("name", ["P1.html", "index.html"])
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_is_readable_by_everybody(name: str, dark: bool, browser: Browser, folder: Path) -> None:
    browser.open(folder / name, 400, dark=dark)
    assert browser.violations() == []


def test_a_tile_is_reached_by_key_and_by_pointer(browser: Browser, folder: Path) -> None:
    browser.open(folder / "P1.html")
    browser.run("document.querySelector('canvas').focus()")
    assert "tile 35 of 35: +3 log odds, speaks for MSI-H; at x 4096, y 3072" in text(browser, "readout")
    browser.press("ArrowLeft")
    assert "tile 34 of 35" in text(browser, "readout")
    browser.press("ArrowUp")
    assert "x 3584, y 2560" in text(browser, "readout")
    browser.press("End")
    assert (
        "tile 1 of 35: \N{MINUS SIGN}1 log odds, against it; at x 2048, y 512 (1.02 mm, 0.26 mm); truly stroma"
        in text(browser, "readout")
    )
    browser.press("Escape")
    assert "Point at a tile" in text(browser, "readout")
    left, top, width, height = browser.run(
        "(() => { const box = document.querySelector('canvas').getBoundingClientRect(); "
        "return [box.left, box.top, box.width, box.height]; })()"
    )
    browser.point(left + width * 0.95, top + height * 0.95)
    assert "tile 35 of 35" in text(browser, "readout")


def test_names_of_any_kind_run_nothing(browser: Browser, folder: Path) -> None:
    (page,) = (path for path in folder.iterdir() if path.stem not in ("index", "P1", "P2"))
    browser.open(page)
    assert browser.complaints == []
    assert browser.run("document.scripts.length") == 2
    assert HOSTILE in browser.run("document.querySelector('h1').textContent")
    browser.run("document.querySelector('canvas').focus()")
    assert HOSTILE in text(browser, "readout")


def test_the_index_sorts_and_filters(browser: Browser, folder: Path) -> None:
    browser.open(folder / "index.html")
    first = "document.querySelector('#cases tbody tr:not([hidden]) a').textContent"
    assert browser.run(first) in ("P1", HOSTILE)
    choose(browser, "verdict", "agrees with the truth")
    assert browser.run(first) == "P2"
    assert text(browser, "shown") == "1 of 3 patients"
    choose(browser, "verdict", "")
    browser.run("document.querySelectorAll('th button')[2].click()")
    assert browser.run("document.querySelectorAll('thead th')[2].ariaSort") == "ascending"
    assert browser.complaints == []


def test_without_scripts_the_default_map_and_the_index_are_there(browser: Browser, folder: Path) -> None:
    browser.open(folder / "P1.html", scripts=False)
    shown = "[...document.querySelectorAll('img.static')].map(each => each.naturalWidth > 0 && each.checkVisibility())"
    assert browser.run(shown) == [True, True]
    assert browser.run("document.querySelector('.controls').checkVisibility()") is False
    browser.open(folder / "index.html", scripts=False)
    assert browser.run("document.querySelectorAll('#cases tbody tr').length") == 3


@pytest.mark.parametrize("name", ["P1", "index"])
def test_nothing_is_cut_off_on_screens_and_paper_and_in_the_dark(browser: Browser, name: str, folder: Path) -> None:
    page = folder / f"{name}.html"
    for width, printed in ((400, False), (1280, False), (SHEET, True)):
        browser.open(page, width, printed=printed)
        measured = browser.layout()
        assert measured.scroll <= width
        assert (measured.wide, measured.squeezed, measured.hidden, measured.broken) == ((), (), (), ())
        assert measured.unnamed == 0
    browser.open(page, dark=True)
    assert brightness(browser.run("getComputedStyle(document.body).backgroundColor")) < 60
    browser.open(page, printed=True)
    assert browser.run("document.querySelector('.controls').checkVisibility()") is False

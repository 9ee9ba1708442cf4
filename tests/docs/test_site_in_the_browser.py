"""The built site in Chromium, opened from its files: quiet, without a network, narrow, dark, and readable."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import brightness, needs_chromium
from tests.devtools import Browser

pytestmark = needs_chromium
PAGES = (
    "index.html",
    "tutorials/first-tool.html",
    "zoo.html",
    "architecture.html",
    "cards/msi-crc/model_card.html",
)
LARGE = (
    "reference/models.html",
    "reference/configuration.html",
    "reference/report.html",
    "changelog.html",
    "metrics.html",
)
"""Pages of which axe-core looks at thousands of words."""


CUT_OFF = (
    "[...document.querySelectorAll('.language-sh code, .language-text code')]"
    ".filter(code => code.scrollWidth > code.clientWidth + 1).map(code => code.textContent.slice(0, 60))"
)
"""The commands and outputs of a page that are wider than their box."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.mark.parametrize("name", [*PAGES, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_a_page_is_quiet_narrow_and_readable_in_light_and_dark(name: str, browser: Browser, site: Path) -> None:
    papers = []
    for dark in (False, True):
        browser.open(site / "site" / name, 400, dark=dark)
        assert browser.complaints == []
        assert [address for address in browser.requests if not address.startswith("file:")] == []
        assert browser.run("document.documentElement.scrollWidth") <= 400
        assert browser.run(CUT_OFF) == []
        assert browser.violations() == []
        papers.append(brightness(str(browser.run("getComputedStyle(document.body).backgroundColor"))))
    assert papers[0] > 200
    assert papers[1] < 60


def test_the_search_works_from_files(browser: Browser, site: Path) -> None:
    browser.open(site / "site" / "index.html")
    browser.run(
        "(() => { const field = document.querySelector('.md-search__input'); field.focus(); "
        "field.value = 'calibration'; field.dispatchEvent(new Event('keyup')); })()"
    )
    end = time.monotonic() + 20
    while not browser.run("document.querySelectorAll('.md-search-result__item').length"):
        assert time.monotonic() < end, "the search finds nothing"
        time.sleep(0.05)
    assert browser.complaints == []
    assert [address for address in browser.requests if not address.startswith("file:")] == []


def test_the_zoo_is_filtered_by_words_and_whole_without_scripts(browser: Browser, site: Path) -> None:
    browser.open(site / "site" / "zoo.html")
    shown = "[...document.querySelectorAll('table tbody tr')].filter(row => row.checkVisibility()).length"
    assert browser.run(shown) == 27
    browser.run(
        "(() => { const field = document.querySelector('article input'); field.value = 'breast cox'; "
        "field.dispatchEvent(new Event('input')); })()"
    )
    assert browser.run(shown) == 0
    browser.run(
        "(() => { const field = document.querySelector('article input'); field.value = 'Breast'; "
        "field.dispatchEvent(new Event('input')); })()"
    )
    assert 3 < browser.run(shown) < 20
    browser.open(site / "site" / "zoo.html", scripts=False)
    assert browser.run(shown) == 27

"""Measure a page in headless Chromium: what overflows, what is squeezed, and what the sticky banner hides."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from pydantic import TypeAdapter

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=4000",
)
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
MEASURE = """
() => {
  for (const each of document.querySelectorAll("details")) each.open = true;
  const name = each => each.tagName.toLowerCase() + ": " + each.textContent.trim().slice(0, 50);
  const wide = [], squeezed = [], hidden = [], words = document.createElement("canvas").getContext("2d");
  const visible = each => each.checkVisibility() && each.getBoundingClientRect().width > 1;
  for (const each of document.body.querySelectorAll("*")) {
    if (!visible(each) || each.closest("thead")) continue;
    const box = each.getBoundingClientRect();
    if (box.right > innerWidth + 1 && !each.closest(".wide")) wide.push(name(each));
  }
  for (const cell of document.querySelectorAll("th, td")) {
    if (!visible(cell) || cell.closest("thead") && innerWidth < 640) continue;
    const style = getComputedStyle(cell), text = cell.textContent.trim();
    words.font = style.font;
    const width = cell.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const lengths = text.split(/[^\\p{L}\\p{N}.,]+/u).map(word => words.measureText(word).width);
    const least = Math.min(words.measureText(text).width, 8 * words.measureText("0").width);
    if (width + 1 < Math.max(least, ...lengths)) squeezed.push(name(cell));
  }
  const banner = document.querySelector(".banner");
  const covered = getComputedStyle(banner).position === "sticky" ? banner.offsetHeight : 0;
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    const target = document.getElementById(link.getAttribute("href").slice(1));
    if (!target) { hidden.push(link.getAttribute("href") + " leads nowhere"); continue; }
    target.scrollIntoView();
    const box = target.getBoundingClientRect(), end = scrollY + innerHeight >= document.body.scrollHeight - 1;
    if (!end && box.top < covered - 1) hidden.push(name(target));
  }
  const unloaded = [...document.images].filter(each => !each.naturalWidth);
  const broken = unloaded.map(each => each.getAttribute("src").slice(0, 60));
  const unnamed = [...document.images].filter(each => !each.alt).length;
  const style = getComputedStyle(document.body);
  const scroll = document.documentElement.scrollWidth;
  return {width: innerWidth, scroll, wide, squeezed, hidden, broken, unnamed, ink: style.color,
    paper: style.backgroundColor};
}
"""
"""A function in JavaScript that opens all folds of a page and returns a `Layout`."""
_MEASURING = f"""
<script>
addEventListener("load", () => parent.postMessage([window.name, ({MEASURE})()], "*"));
</script>
"""
_FRAMES = """{frames}<pre id="measured"></pre>
<script>
const layouts = {{}};
addEventListener("message", event => {{
  layouts[event.data[0]] = event.data[1];
  if (Object.keys(layouts).length < {number}) return;
  document.body.innerHTML = "<pre id=measured></pre>";
  document.getElementById("measured").textContent = JSON.stringify(layouts);
}});
</script>"""
_STYLE = "border: 0; position: absolute; width: {width}px; height: 900px"
_FRAME = f'<iframe name="{{at}}" src="{{file}}" style="{_STYLE}"></iframe>'
"""Windows of Chromium are at least 500 pixels wide, frames are not. They lie upon each other: none is out of sight."""

SHEET = 680
"""Pixels of the width of an A4 sheet within its margins."""


@dataclass(frozen=True)
class Layout:
    """How a page is laid out in a window."""

    width: int
    scroll: int
    """width of the document in pixels"""
    wide: tuple[str, ...]
    """elements that reach beyond the window without a scroll bar of their own"""
    squeezed: tuple[str, ...]
    """cells narrower than their longest word, or than 8 digits where their text is longer"""
    hidden: tuple[str, ...]
    """targets of links that the banner covers, and links that lead nowhere"""
    broken: tuple[str, ...]
    """pictures that could not be loaded"""
    unnamed: int
    """pictures without a text for who cannot see them"""
    ink: str
    paper: str


def layout(page: Path, width: int, dark: bool = False, printed: bool = False) -> Layout:
    """Open a page in a frame of this width with all folds open, and measure it; see `layouts`."""
    return layouts(page, [(width, printed)], dark)[0]


def layouts(page: Path, views: Sequence[tuple[int, bool]], dark: bool = False) -> list[Layout]:
    """Open a page in frames of these widths with all folds open, and measure each; Chromium is started once.

    Copies of the page are measured, in the same folder, without its security policy, which forbids scripts.

    Args:
        page: The page.
        views: Width of each frame, and whether the rules for print apply, as far as they do not concern the sheet.
        dark: Whether the reader prefers dark pages.
    """
    assert CHROMIUM is not None
    text = _POLICY.sub("", page.read_text(encoding="utf-8")).replace("</body>", f"{_MEASURING}</body>")
    as_printed = text.replace("@media print", "@media all").replace("@media screen", "@media speech")
    with tempfile.TemporaryDirectory() as profile:
        copies = [page.with_name(f".measured-{os.getpid()}-{at}.html") for at in range(len(views))]
        frame = page.with_name(f".frame-{os.getpid()}.html")
        frames = [
            _FRAME.format(at=at, file=copy.name, width=width)
            for at, (copy, (width, _)) in enumerate(zip(copies, views, strict=True))
        ]
        frame.write_text(_FRAMES.format(frames="".join(frames), number=len(views)), encoding="utf-8")
        for copy, (_, printed) in zip(copies, views, strict=True):
            copy.write_text(as_printed if printed else text, encoding="utf-8")
        try:
            options = [*_OPTIONS, f"--user-data-dir={profile}", "--window-size=1600,1000"]
            options += ["--blink-settings=preferredColorScheme=0"] if dark else []
            command = [CHROMIUM, *options, "--dump-dom", frame.resolve().as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        finally:
            for path in (*copies, frame):
                path.unlink()
    measured = re.search(r'<pre id="measured">(.+?)</pre>', done.stdout, re.DOTALL)
    assert measured, done.stdout[:500] + done.stderr[-500:]
    by_frame = TypeAdapter(dict[int, Layout]).validate_json(unescape(measured[1]))
    return [by_frame[at] for at in range(len(views))]


def brightness(colour: str) -> float:
    """Return the mean of red, green and blue of `rgb(r, g, b)`, 0 to 255."""
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

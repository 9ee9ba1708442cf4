"""Assemble the pages of the documentation in build/docs, and build the site from them with warnings as errors.

usage: scripts/docs [--pages-only] [--registry FOLDER]

Pages of `docs/` are copied. The reference is generated from what the package itself says: help texts, the files of
`conf/`, docstrings and the report's schema. Cards are copied as they are. Links that lead out of `docs/` (such as
../model_cards/) are turned to where the site has the page.
"""

import argparse
import logging
import re
import shutil
from itertools import pairwise
from pathlib import Path

from docs_reference import commands, configuration, encoders, endpoints, formats, models, report
from mkdocs.commands.build import build
from mkdocs.config import load_config

from mil import checkpoint
from mil.zoo.compare_cards import compare_cards, comparison_page
from mil.zoo.index import HEADS
from mil.zoo.versions import parse

ROOT = Path(__file__).parents[1]
PAGES, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
CARDS = ROOT / "model_cards"
COPIED = (".md", ".png", ".svg", ".js", ".css", ".txt")
"""Files of `docs/` that are part of the site."""


def main() -> None:
    """Write the pages, then the site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages-only", action="store_true", help="do not build the site")
    parser.add_argument("--registry", type=Path, help="a folder registry, whose versions of a tool are compared")
    options = parser.parse_args()
    write_pages(options.registry)
    if not options.pages_only:
        build_site()


def write_pages(registry: Path | None = None) -> None:
    """Write every page of the site as Markdown to `build/docs`.

    Args:
        registry: Released tools as `<tool>/<version>/`; each version is shown beside the one before it.
    """
    shutil.rmtree(PAGES, ignore_errors=True)
    for source in sorted((ROOT / "docs").rglob("*")):
        if source.is_file() and source.suffix in COPIED:
            _write(source.relative_to(ROOT / "docs"), source)
    _write(Path("index.md"), ROOT / "README.md")
    _write(Path("changelog.md"), ROOT / "CHANGELOG.md")
    _write(Path("contributing.md"), ROOT / "CONTRIBUTING.md")
    _write(Path("security.md"), ROOT / "SECURITY.md")
    _write(Path("zoo.md"), CARDS / "README.md")
    zoo = PAGES / "zoo.md"
    versions = "".join(f"{line}\n" for line in compared_versions(registry))
    text = f"---\nhide: [toc, navigation]\n---\n{zoo.read_text(encoding='utf-8')}{versions}{FILTER}{stacked_rows()}"
    zoo.write_text(text, encoding="utf-8")
    for name in ("CITATION.cff", "LICENSE"):
        shutil.copyfile(ROOT / name, PAGES / name)
    for folder in sorted(path.parent for path in CARDS.glob("*/model_card.html")):
        shutil.copytree(folder, PAGES / "cards" / folder.name, ignore=shutil.ignore_patterns("*.md", "golden"))
    for name, text in {
        "commands": commands(),
        "configuration": configuration(),
        "models": models(),
        "endpoints": endpoints(),
        "encoders": encoders(),
        "formats": formats(),
        "report": report(),
        "python": PYTHON,
    }.items():
        page = PAGES / "reference" / f"{name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")


def compared_versions(registry: Path | None) -> list[str]:
    """Write a page for each version of a tool beside the one before it, and return the lines that link to them."""
    lines = ["", "## Two versions side by side", "", COMPARISONS]
    tools = () if registry is None else sorted(path for path in registry.iterdir() if path.is_dir())
    for tool in tools:
        folders = sorted((path.parent for path in tool.glob(f"*/{checkpoint.MANIFEST}")), key=lambda at: parse(at.name))
        for older, newer in pairwise(folders):
            page = PAGES / "cards" / "versions" / f"{tool.name}-{older.name}-{newer.name}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(comparison_page(compare_cards(older, newer)), encoding="utf-8")
            lines.append(f"- [{tool.name}: {older.name} beside {newer.name}](cards/versions/{page.name})")
    return lines


def stacked_rows() -> str:
    """Return the style that stacks the cells of the zoo's table on a narrow screen, each with its column's name."""
    labels = "".join(
        f'  .md-typeset table td:nth-child({at})::before {{ content: "{head}: "; font-weight: 700; }}\n'
        for at, head in enumerate(HEADS[1:], start=2)
    )
    return f"\n<style>\n{STACKED}{labels}}}\n</style>\n"


def build_site() -> None:
    """Build the site; a warning of MkDocs ends with an error."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    settings = load_config(str(ROOT / "docs" / "mkdocs.yml"), strict=True, docs_dir=str(PAGES), site_dir=str(SITE))
    build(settings)
    print(f"{settings.site_dir}/index.html")


def _write(target: Path, source: Path) -> None:
    page = PAGES / target
    page.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != ".md":
        shutil.copyfile(source, page)
        return
    text = source.read_text(encoding="utf-8")
    page.write_text(re.sub(r"(\]\()([^)#:\s]+)", lambda link: link[1] + _turned(link[2], source, target), text))


def _turned(link: str, source: Path, target: Path) -> str:
    """The link of a page to a file of the repository, as a link between pages of the site.

    Files that the site does not have are shown by the address that the repository gives them: the path itself.
    """
    place = (source.parent / link).resolve()
    site = _page_of(place)
    if site is None:
        return link
    return str(Path(*[".."] * (len(target.parts) - 1), site))


def _page_of(place: Path) -> Path | None:
    special = {
        ROOT / "CITATION.cff": "CITATION.cff",
        ROOT / "README.md": "index.md",
        ROOT / "CHANGELOG.md": "changelog.md",
        ROOT / "CONTRIBUTING.md": "contributing.md",
        ROOT / "SECURITY.md": "security.md",
        CARDS / "README.md": "zoo.md",
    }
    if place in special:
        return Path(special[place])
    if place.is_relative_to(CARDS) and (place.parent / "model_card.html").is_file():
        name = "model_card.html" if place.name == "README.md" else place.name
        return Path("cards") / place.parent.name / name
    if place.is_relative_to(ROOT / "docs") and place.suffix in COPIED:
        return place.relative_to(ROOT / "docs")
    return None


FILTER = """
<script>
// A field above the first table that hides the rows without its words; without JavaScript every row is shown.
const field = document.createElement("input");
field.placeholder = field.ariaLabel = "Show only tools with these words";
field.style = "width: 100%; padding: .5em; border: 1px solid; font: inherit; color: inherit; background: none";
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\\s+/);
  for (const row of document.querySelectorAll("table tbody tr"))
    row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
});
document.querySelector("h2").before(field);
</script>
"""
"""Appended to the index of the zoo."""

COMPARISONS = """\
Item by item, in a terminal and on a page without scripts:
`mil zoo compare msi-crc@1.0.0 msi-crc@1.1.0 --out compared.html`.
`scripts/docs --registry FOLDER` puts such a page here for each version that the registry holds.
"""
STACKED = """\
.md-typeset input::placeholder { color: var(--md-default-fg-color--light); opacity: 1; }
.md-typeset table:not([class]) { font-size: .68rem; }
@media (max-width: 60em) {
  .md-typeset table:not([class]) thead {
    position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden;
  }
  .md-typeset table:not([class]), .md-typeset table:not([class]) tbody, .md-typeset table:not([class]) tr,
  .md-typeset table:not([class]) td { display: block; }
  .md-typeset table:not([class]) tr[hidden] { display: none; }
  .md-typeset table:not([class]) tr { padding: .5em 0; border-top: .05rem solid var(--md-typeset-table-color); }
  .md-typeset table:not([class]) td { padding: .15em 1em; border-top: 0; min-width: 0; }
"""

PYTHON = """# Python

Generated from the docstrings of `mil/api.py` and what it returns. The command line calls the same functions.

::: mil.api

::: mil.stats.estimate.Estimate

::: mil.models.mil_model

::: mil.bags
"""


if __name__ == "__main__":
    main()

"""Which files a released folder holds, and the texts among them that are generated from the others."""

import re
from pathlib import Path

from mil import checkpoint
from mil.cards import CARD, CARD_PAGE, card_texts
from mil.cards.chai import chai
from mil.cards.purpose import LICENCE_FILE
from mil.cards.statements import STATEMENTS, read_statements
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest
from mil.report.schema import Report
from mil.report.sections.federation import FILE as FEDERATION
from mil.runs.describe import FIGURES, PAGE, REPORT, figure_names, page, page_title
from mil.runs.states import STATES
from mil.zoo.attach import external_companion, read_external
from mil.zoo.figures import EPOCHS
from mil.zoo.golden import GOLDEN
from mil.zoo.versions import CHANGELOG, HEAD

XML = "model_card.xml"
TABLES = ("predictions.csv", "baseline.csv", "covariates.csv", "encoders.csv", "oracle.csv", "patients.csv")
"""Released for simulated patients only; a hospital's tables never leave it."""
ALWAYS = (checkpoint.WEIGHTS, CARD, CARD_PAGE, LICENCE_FILE, XML, REPORT, PAGE, CHANGELOG, GOLDEN)
BLOCKS = 25
"""Number of blocks of a card, counted from 0."""
_FIGURE_ENDING = ".png"
_BLOCK = re.compile(r"^## (\d+)\. ", re.MULTILINE)


def texts(folder: Path, manifest: Manifest, endpoint: Endpoint, report: Report) -> dict[str, str]:
    """Return card, licence, XML and report page by name, generated from the other files of the folder."""
    changes = (folder / CHANGELOG).read_text(encoding="utf-8").removeprefix(HEAD)
    statements, external = read_statements(folder), read_external(folder)
    return {
        **card_texts(manifest, endpoint, report, figure_names(folder), changes, statements, external),
        XML: chai(manifest, endpoint, report, statements, external),
        PAGE: page(page_title(manifest.tool), report, folder, embedded=False),
    }


def missing_blocks(card_text: str) -> list[str]:
    """Return the numbers of the blocks that a card lacks."""
    present = set(map(int, _BLOCK.findall(card_text)))
    return [str(number) for number in range(BLOCKS) if number not in present]


def misplaced(manifest: Manifest) -> list[str]:
    """Return a line for each file that a release lacks and for each that does not belong in it."""
    simulated = manifest.data.simulated
    required = {*ALWAYS, *(("predictions.csv", "patients.csv") if simulated else ())}
    allowed = {*required, EPOCHS, STATEMENTS, FEDERATION, *((*TABLES, STATES) if simulated else ())}
    listed = set(manifest.files)
    required |= {companion for name in listed if (companion := external_companion(name)) is not None}
    missing = [f"{name} is missing" for name in sorted(required - listed)]
    further = [name for name in sorted(listed - allowed) if not _is_figure(name) and external_companion(name) is None]
    return missing + [f"{name} is no part of a release" for name in further]


def _is_figure(name: str) -> bool:
    folder, _, file = name.partition("/")
    return folder == FIGURES and "/" not in file and file.endswith(_FIGURE_ENDING)

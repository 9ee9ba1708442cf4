"""What a released folder holds, and the texts in it that follow from the rest."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mil import checkpoint
from mil.cards import card
from mil.cards.chai import chai
from mil.endpoints.endpoint import Endpoint
from mil.manifest import Manifest
from mil.runs.describe import CARD, FIGURES, PAGE, REPORT, figures_of, page, titled
from mil.zoo.golden import GOLDEN
from mil.zoo.versions import CHANGELOG, HEAD

XML = "model_card.xml"
TABLES = ("predictions.csv", "baseline.csv", "covariates.csv", "oracle.csv", "patients.csv")
"""Of simulated patients; a hospital's table never leaves it."""
ALWAYS = (checkpoint.WEIGHTS, CARD, XML, REPORT, PAGE, CHANGELOG, GOLDEN)
BLOCKS = 25
"""Numbered from 0."""
_DRAWN = (".png", ".svg")
_BLOCK = re.compile(r"^## (\d+)\. ", re.MULTILINE)


def texts(folder: Path, manifest: Manifest, endpoint: Endpoint, report: Mapping[str, Any]) -> dict[str, str]:
    """The card, its XML and the page of the report, by file name: from manifest, report, changelog and figures."""
    changes = (folder / CHANGELOG).read_text(encoding="utf-8").removeprefix(HEAD)
    return {
        CARD: card(manifest, endpoint, report, figures_of(folder), changelog=changes),
        XML: chai(manifest, endpoint, report),
        PAGE: page(titled(manifest.tool), report, folder),
    }


def missing_blocks(text: str) -> list[str]:
    """Numbers of the blocks that a card lacks."""
    there = set(map(int, _BLOCK.findall(text)))
    return [str(number) for number in range(BLOCKS) if number not in there]


def misplaced(manifest: Manifest) -> list[str]:
    """What is wrong with a release's list of files: what it lacks, and what is no part of one."""
    wanted = {*ALWAYS, *(["predictions.csv", "patients.csv"] if manifest.data["simulated"] else [])}
    allowed = {*wanted, *(TABLES if manifest.data["simulated"] else ())}
    found = set(manifest.files)
    odd = [name for name in sorted(found - allowed) if not _is_figure(name)]
    return [f"{name} is missing" for name in sorted(wanted - found)] + [
        f"{name} is no part of a release" for name in odd
    ]


def _is_figure(name: str) -> bool:
    folder, _, own = name.partition("/")
    return folder == FIGURES and "/" not in own and own.endswith(_DRAWN)

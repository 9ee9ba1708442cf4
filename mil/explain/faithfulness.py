"""How far maps can be believed: what `explain.json` holds. The report's section of the same name reads it too."""

from typing import Literal

from mil.report.schema import Model
from mil.report.sections.explanations import Faithfulness, MapFaithfulness

__all__ = ["FILE", "ExplainResult", "Faithfulness", "MapFaithfulness"]

FILE = "explain.json"


class ExplainResult(Model):
    """What `mil explain` writes beside the scores of tiles."""

    schema_version: Literal[1] = 1
    tool: str
    model: str
    simulated: bool
    methods: tuple[str, ...]
    """in the order in which they were asked for; the first is shown first"""
    outputs: tuple[str, ...]
    reference: str
    """what the reference tile is the mean of"""
    patients: tuple[str, ...]
    """in the order of the files"""
    faithfulness: Faithfulness | None = None
    """None where it was not measured"""
    max_tiles: int | None = None
    """largest number of tiles of a bag, taken at equal steps; None where all were read"""

"""Which explanations of a model can be believed: what `mil explain RUN` measured on patients it was not trained on."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

from pydantic import Field

from mil.report.evaluation import Evaluation
from mil.report.schema import Block, Curve, Estimate, Model, Row, Section, Table

_COLUMNS = {
    "Gain over a random order": "srg",
    "Smallest share that keeps the call": "sufficient",
    "Correlation after new weights": "randomised",
    "AUROC against true tiles": "telling",
    "Oracle's AUROC": "telling_oracle",
}
_MEANING = (
    "Gain: how much sooner the result changes when tiles are removed in the order of the map, most relevant first, "
    "than in a random order; above zero for a map that can be believed. Correlation after new weights: near zero for "
    "a map that shows what the model has learnt. 95% intervals: Student's t over patients."
)


ON_CARD = 2
"""Outputs whose maps a card lists."""


class MapFaithfulness(Model):
    """How far the map of one method can be believed, for one output."""

    method: str
    """as on the command line, such as "single\""""
    title: str
    """of the method, such as "tile alone\""""
    output: str
    """what is explained, such as "MSI-H\""""
    unit: str
    """of the curves, such as "log odds\""""
    srg: Estimate = Field(title="Gain over a random order")
    """mean over the steps of the curve of least relevant first less that of most relevant first, less the same of a
    random order; above zero for a faithful map; of maps without signs towards each patient's result"""
    deletion: Curve
    """change of the output, mean over patients, by the share of tiles removed, most relevant first"""
    deletion_least_first: Curve
    """the same, least relevant first"""
    insertion: Curve
    """change of the output from the reference, by the share of tiles inserted, most relevant first"""
    insertion_least_first: Curve
    """the same, least relevant first"""
    sufficient: Estimate | None = Field(default=None, title="Smallest share of tiles that keeps the call")
    """None where the output has no call"""
    call_at: str | None = None
    """where the call changes, in words; None where there is no call, and in older reports, which took one half"""
    randomised: Estimate | None = Field(default=None, title="Rank correlation with the map of re-initialised weights")
    """near zero where the map depends on what the model has learnt"""
    telling: Estimate | None = Field(default=None, title="AUROC against the tiles that truly tell")
    """on simulated cohorts; mean over patients"""
    telling_oracle: Estimate | None = Field(default=None, title="The same, of an oracle that knows the tissues")
    """what the features allow: 1 where they tell the tissues apart without error"""


class Faithfulness(Section):
    """How far the maps of each method can be believed."""

    key: ClassVar[str] = "faithfulness"
    title: ClassVar[str] = "Faithfulness of explanations"
    explanation: ClassVar[str] = (
        "Which maps of tiles can be believed: tiles are removed in the order of a map, and the prediction should "
        "change sooner than in a random order."
    )
    not_applicable: ClassVar[str] = "No explanation was tested: `mil explain RUN` does so."
    position: ClassVar[int] = 115
    captions: ClassVar[Mapping[str, str]] = {"tile_maps": "Maps of a few report patients"}

    maps: tuple[MapFaithfulness, ...]

    def block(self) -> Block:
        """Return a table with a row for each output and method, and what its columns mean."""
        shown = [(title, name) for title, name in _COLUMNS.items() if any(getattr(each, name) for each in self.maps)]
        rows = tuple(
            (
                each.output,
                each.title,
                *("–" if (value := getattr(each, name)) is None else str(value) for _, name in shown),
            )
            for each in self.maps
        )
        table = Table(columns=("Output", "Map", *(title for title, _ in shown)), rows=rows, note=_MEANING)
        return Block(heading=self.title, sentences=(self.explanation, *self.call_sentences()), tables=(table,))

    def call_sentences(self) -> tuple[str, ...]:
        """Return where the call on each output changes, of which the smallest share keeps it."""
        places = {each.call_at: list[str]() for each in self.maps if each.call_at is not None}
        for name, place in dict.fromkeys((each.output, each.call_at) for each in self.maps):
            if place is not None:
                places[place].append(name)
        return tuple(f"The call on {', '.join(names)} changes at {place}." for place, names in places.items())

    def card_rows(self) -> Iterator[Row]:
        """Yield gain, randomisation and truth of each map, of the first outputs; the page and report.json have all."""
        outputs = list(dict.fromkeys(each.output for each in self.maps))[:ON_CARD]
        for at, each in enumerate(self.maps):
            if each.output not in outputs:
                continue
            for title, name in _COLUMNS.items():
                if (value := getattr(each, name)) is not None and name != "sufficient":
                    yield Row(f"{each.output}, {each.title}: {title.lower()}", value, f"maps[{at}].{name}")

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return None: tables of predictions do not tell; `mil explain RUN` measures it and keeps it with the run."""
        return None

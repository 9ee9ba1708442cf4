"""What a case page shows of one patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mil.explain.pages.map_picture import Extent
from mil.explain.tile_scores import PatientScores
from mil.report.schema import Table


class Verdict(StrEnum):
    """How a call stands to the truth, in the order of the index: what is to be looked at first comes first."""

    MISSED = "missed"
    FALSE = "false call"
    WRONG = "wrong class"
    EVENT_LOW = "event in the lowest group"
    FREE_HIGH = "event-free in the highest group"
    NOT_RULED_OUT = "not ruled out"
    NOT_RULED_IN = "not ruled in"
    UNDECIDED = "no answer"
    WITHHELD = "withheld"
    OPEN = "not judged"
    RIGHT = "agrees with the truth"

    @property
    def place(self) -> int:
        """Place in the order of the index, from 0."""
        return list(Verdict).index(self)


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the tool says to one of its questions.

    Attributes:
        question: What it is about, such as "MSI-H".
        call: Name of the output; empty where the tool gives a number and makes no call.
        meaning: What the output means for the patient, in the words of the tool.
        condition: When the output is given, such as "p_MSI-H at least 0.31".
        number: What the call was made from, such as "0.83"; empty where it is missing.
        number_name: What the number is, such as "probability of MSI-H".
        truth: What was observed, such as "MSI-H"; empty where it is not known.
        verdict: How the call stands to the truth.
        margin: Distance of the number from the nearest cut, or size of the error; None without a number.
    """

    question: str
    call: str = ""
    meaning: str = ""
    condition: str = ""
    number: str = ""
    number_name: str = ""
    truth: str = ""
    verdict: Verdict = Verdict.OPEN
    margin: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Tissue:
    """What the tiles of a simulated slide truly are.

    Attributes:
        names: Of the kinds of tissue.
        kinds: Index of each tile's kind, `(n,)`.
        telling: Which kinds carry what is predicted.
    """

    names: Sequence[str]
    kinds: NDArray[np.int64]
    telling: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The scan of a slide, as far as a page shows it.

    Attributes:
        thumbnail: JPEG or PNG of the rectangle `bounds`.
        bounds: Of the thumbnail, in level-0 pixels of the tiles' coordinates.
        tiles: JPEG of tiles by their index, as far as they are shown in the list of tiles.
        zoom: Address of the deep-zoom pictures beside the page, None without; see `deep_zoom`.
        zoom_size: Width and height of the pictures at their finest level, in pixels.
    """

    thumbnail: bytes
    bounds: Extent
    tiles: Mapping[int, bytes] = field(default_factory=dict)
    zoom: str | None = None
    zoom_size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Whether the maps of one method can be believed.

    Attributes:
        sentence: For a pathologist.
        numbers: What it rests on.
        believable: None where it was not tested.
    """

    sentence: str
    numbers: str = ""
    believable: bool | None = None


UNTESTED = Belief(
    sentence="Not tested for this model: the map shows what the model computed, not whether that is the reason."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One patient's prediction, what speaks for it, and whether that can be believed.

    Attributes:
        scores: The explanation.
        title: Of the tool.
        origin: Which model of which version made the prediction.
        banner: What stands above everything: simulated data, research use.
        calls: What the tool says to each of its questions.
        numbers: All numbers of the prediction by name.
        withheld: Why the result is withheld; empty where it is given.
        beliefs: By names of the method and of the output.
        faithfulness: Tables with the tests of the methods.
        tissue: What the tiles truly are, by slide; simulated slides only.
        scans: By slide, where a scan is there.
        models: Number of models whose mean is shown.
    """

    scores: PatientScores
    title: str
    origin: str
    banner: str
    calls: tuple[Call, ...]
    numbers: Mapping[str, str] = field(default_factory=dict)
    withheld: str = ""
    beliefs: Mapping[tuple[str, str], Belief] = field(default_factory=dict)
    faithfulness: tuple[Table, ...] = ()
    tissue: Mapping[str, Tissue] = field(default_factory=dict)
    scans: Mapping[str, Scan] = field(default_factory=dict)
    models: int = 1

    @property
    def verdict(self) -> Verdict:
        """The verdict that is to be looked at first."""
        if self.withheld:
            return Verdict.WITHHELD
        return min((call.verdict for call in self.calls), key=lambda verdict: verdict.place, default=Verdict.OPEN)

    @property
    def first_output(self) -> int:
        """Place of the output that is shown first: the called class or the answered question, else the first."""
        names = [output.name for output in self.scores.outputs]
        shown = [name for call in self.calls for name in (call.call, call.question) if name in names]
        return names.index(shown[0]) if shown else 0

    def belief(self, method: str, output: str) -> Belief:
        """Return whether the maps of a method can be believed for an output."""
        return self.beliefs.get((method, output), UNTESTED)

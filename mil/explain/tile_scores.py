"""What an explanation is: a score for each tile of a patient, by method and by output, with the tile's place."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to score tiles.

    Attributes:
        name: As on the command line and in columns, e.g. "single".
        title: As on pages, e.g. "tile alone".
        signed: Whether a score below zero speaks against the output; attention is a share and is not signed.
        sentence: What a score answers, in one sentence for a pathologist.
        unit: Unit of the scores where it is not the output's; None: the output's.
    """

    name: str
    title: str
    signed: bool
    sentence: str
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExplainedOutput:
    """A number that a model gives for a patient and that tiles speak for or against.

    Attributes:
        name: Class, label, grade boundary, cause or horizon, e.g. "MSI-H"; unique within an endpoint.
        meaning: What a positive score of a tile says, e.g. "speaks for MSI-H".
        unit: Unit of the scores, e.g. "logit", "log hazard".
        value: The model's number for this patient, in the same unit.
    """

    name: str
    meaning: str
    unit: str
    value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TilePlaces:
    """Where the `n` tiles of a slide lie, each `(n,)`, in level-0 pixels of the scan; `x`, `y` are top left corners."""

    x: Array
    y: Array
    width: Array
    height: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class SlideScores:
    """Scores of the `n` tiles of one slide.

    Attributes:
        slide: Name of the slide.
        places: None where the feature file holds no coordinates.
        scores: `(n, o)` by the name of the method, one column for each of the patient's `o` outputs.
        mpp: Micrometres a pixel at level 0; None where unknown.
    """

    slide: str
    places: TilePlaces | None
    scores: Mapping[str, Array]
    mpp: float | None = None

    def __len__(self) -> int:
        return len(next(iter(self.scores.values())))


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientScores:
    """The explanation of one patient's prediction.

    Attributes:
        patient: Name of the patient, or of the slide where no cohort was given.
        outputs: What is explained, in the order of the columns of `SlideScores.scores`.
        methods: In the order in which they were asked for; the first is shown first.
        slides: The patient's slides; all share one scale of colours.
        disagreement: Standard deviation of the scores over the models of an ensemble, by slide and method, `(n, o)`;
            empty for a single model.
        errors: Standard error of scores that were drawn at random, by slide and method, `(n, o)`; empty otherwise.
        reference: What the reference tile is the mean of, such as "training tiles".
        notes: What there is to say about the scores of this patient, by method, such as the size of groups of tiles.
    """

    patient: str
    outputs: tuple[ExplainedOutput, ...]
    methods: tuple[Method, ...]
    slides: tuple[SlideScores, ...]
    disagreement: Mapping[tuple[str, str], Array] = field(default_factory=dict)
    errors: Mapping[tuple[str, str], Array] = field(default_factory=dict)
    reference: str = "training tiles"
    notes: Mapping[str, str] = field(default_factory=dict)

    def values(self, method: str, output: str) -> Array:
        """Scores of all tiles of the patient, slide after slide, `(tiles,)`."""
        return np.concatenate([slide.scores[method][:, self._column(output)] for slide in self.slides])

    def limit(self, method: str, output: str) -> float:
        """Largest absolute score over all slides of the patient: the end of their common scale of colours."""
        return float(np.max(np.abs(self.values(method, output))))

    def frame(self) -> pd.DataFrame:
        """One row for each tile: slide, x, y, width, height (missing without coordinates), `method:output` columns.

        Of several models `method:output:disagreement` follows each, of scores drawn at random `method:output:error`.
        """
        return pd.concat([self._slide_frame(slide) for slide in self.slides], ignore_index=True)

    def _column(self, output: str) -> int:
        return [each.name for each in self.outputs].index(output)

    def _slide_frame(self, slide: SlideScores) -> pd.DataFrame:
        table = pd.DataFrame({"slide": [slide.slide] * len(slide)})
        for name in ("x", "y", "width", "height"):
            table[name] = np.nan if slide.places is None else getattr(slide.places, name)
        for method in self.methods:
            for column, output in enumerate(self.outputs):
                name = f"{method.name}:{output.name}"
                table[name] = slide.scores[method.name][:, column]
                for ending, spreads in (("disagreement", self.disagreement), ("error", self.errors)):
                    if (spread := spreads.get((slide.slide, method.name))) is not None:
                        table[f"{name}:{ending}"] = spread[:, column]
        return table

"""What can be shown on a map: the scores of a method, or how much the models of an ensemble disagree."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mil.explain.tile_scores import PatientScores

Floats = NDArray[np.float64]
MODELS_DISAGREE = (
    "Standard deviation of the scores over the models: where it is as large as the score, do not rely on it."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """Numbers of all tiles for every output.

    Attributes:
        title: As in the list of what can be shown.
        method: Name of the method.
        signed: Whether a number below zero speaks against the output.
        sentence: What a number answers.
        units: Of the numbers, for each output.
        note: What there is to say about the numbers of this patient.
        values: `(n, o)` of each slide, in the order of the patient's slides.
        spread: Whether the numbers are a disagreement.
    """

    title: str
    method: str
    signed: bool
    sentence: str
    units: tuple[str, ...]
    note: str
    values: tuple[Floats, ...]
    spread: bool = False

    def limit(self, output: int) -> float:
        """Return the end of the scale of colours, which all slides of the patient share."""
        largest = [np.nanmax(np.abs(each[:, output])) for each in self.values if np.isfinite(each[:, output]).any()]
        return float(max(largest, default=0.0))


def layers(scores: PatientScores) -> list[Layer]:
    """Return the methods in their order, each followed by the disagreement of the models where there are several."""
    listed = []
    for method in scores.methods:
        units = tuple(method.unit or output.unit for output in scores.outputs)
        values = tuple(slide.scores[method.name] for slide in scores.slides)
        listed.append(
            Layer(
                title=method.title,
                method=method.name,
                signed=method.signed,
                sentence=method.sentence,
                units=units,
                note=scores.notes.get(method.name, ""),
                values=values,
            )
        )
        spread = [scores.disagreement.get((slide.slide, method.name)) for slide in scores.slides]
        if all(each is not None for each in spread):
            listed.append(
                Layer(
                    title=f"{method.title}: disagreement of the models",
                    method=method.name,
                    signed=False,
                    sentence=MODELS_DISAGREE,
                    units=units,
                    note="",
                    values=tuple(each for each in spread if each is not None),
                    spread=True,
                )
            )
    return listed


def extremes(values: Floats, most: int, signed: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tiles with the highest and with the lowest numbers, most extreme first.

    Args:
        values: Of all tiles, `(n,)`.
        most: How many of each.
        signed: Of signed scores only those above zero are highest and those below zero lowest; of others none is
            lowest.
    """
    order = np.argsort(-values, kind="stable")
    highest, lowest = order[:most], order[::-1][:most]
    if not signed:
        return highest, lowest[:0]
    return highest[values[highest] > 0], lowest[values[lowest] < 0]

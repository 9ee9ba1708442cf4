"""Cases with known scores."""

from dataclasses import replace

import numpy as np

from mil.explain.pages.case import Belief, Call, Case, Tissue, Verdict
from mil.explain.tile_scores import ExplainedOutput, Method, PatientScores, SlideScores, TilePlaces

HOSTILE = "</script><script>alert(1)</script>\"'<b>&amp;../"
SINGLE = Method(name="single", title="tile alone", signed=True, sentence="What the model says to this tile alone.")
ATTENTION = Method(name="attention", title="attention", signed=False, sentence="Where the model looks.", unit="share")
SIZE = 512.0


def slide(name: str = "S1", side: int = 6, outputs: int = 2, places: bool = True, scale: float = 1.0) -> SlideScores:
    """A square of `side` times `side` tiles without its first one; scores rise from tile to tile, from below zero."""
    rows, columns = (axis.ravel()[1:] for axis in np.mgrid[0:side, 0:side])
    n = side * side - 1
    rising = np.linspace(-1, 3, n) * scale
    scores = {
        "single": np.stack([rising * (at + 1) for at in range(outputs)], axis=1),
        "attention": np.stack([np.arange(1.0, n + 1) / n] * outputs, axis=1),
    }
    size = np.full(n, SIZE)
    grid = TilePlaces(x=(columns + 3) * SIZE, y=(rows + 1) * SIZE, width=size, height=size)
    return SlideScores(slide=name, places=grid if places else None, scores=scores, mpp=0.5)


def case(patient: str = "P1", slides: tuple[SlideScores, ...] = (), word: str = "MSI-H", **changes: object) -> Case:
    """A missed case with two outputs and two methods; `word` is in every text."""
    slides = slides or (slide(),)
    outputs = tuple(
        ExplainedOutput(name=name, meaning=f"speaks for {name}", unit="log odds", value=1.0)
        for name in (word, "second")
    )
    scores = PatientScores(patient=patient, outputs=outputs, methods=(SINGLE, ATTENTION), slides=slides)
    call = Call(
        question=word,
        call=f"not {word}",
        meaning=f"{word} is unlikely",
        condition="p below 0.2",
        number="0.083",
        number_name=f"probability of {word}",
        truth=word,
        verdict=Verdict.MISSED,
        margin=0.1,
    )
    made = Case(
        scores=scores,
        title=f"Screen for {word}",
        origin=f"a model of {word}",
        banner="SIMULATED DATA, RESEARCH USE ONLY",
        calls=(call,),
        numbers={f"p_{word}": "0.083"},
        beliefs={
            ("single", word): Belief(sentence="Yes, as to where: gain 0.4.", believable=True),
            ("attention", word): Belief(sentence="No, it points the wrong way: gain -0.2.", believable=False),
        },
        tissue={each.slide: tissue(len(each), word) for each in slides if each.places is not None},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def tissue(tiles: int, word: str) -> Tissue:
    """Stroma, and as the last kind the tiles that tell."""
    return Tissue(
        names=("stroma", word), kinds=(np.arange(tiles) > tiles // 2).astype(np.int64), telling=frozenset([word])
    )

"""One plain sentence on whether the maps of a method can be believed, from what was measured of it."""

from collections.abc import Iterable, Mapping

from mil.explain.pages.case import Belief
from mil.report.schema import Estimate, Table
from mil.report.sections.explanations import Faithfulness, MapFaithfulness

ALIKE = 0.5
"""Rank correlation with the map of re-initialised weights from which a map shows the tissue more than the model."""
FEW = 10
"""Patients below whom a gain is not general, whatever its interval says."""
CHANCE = 0.5
"""AUROC of a map that knows nothing of the tiles that truly tell."""


def beliefs(faithfulness: Faithfulness | None) -> dict[tuple[str, str], Belief]:
    """Return whether maps can be believed, by method and output; empty where nothing was measured."""
    maps = () if faithfulness is None else faithfulness.maps
    return {(each.method, each.output): belief(each) for each in maps}


def belief(measured: MapFaithfulness) -> Belief:
    """Return the sentence on one method and output."""
    gain, random, telling = measured.srg, measured.randomised, measured.telling
    numbers = _numbers(measured)
    if gain.value is None or gain.low is None or gain.high is None:
        return Belief(sentence=f"Not known: {gain.reason or 'too few slides to measure it'}.")
    if gain.high < 0 or _above(CHANCE, telling):
        return Belief(sentence="No, it points the wrong way.", numbers=numbers, believable=False)
    if random is not None and random.value is not None and random.value >= ALIKE:
        return Belief(
            sentence="No, a model that has learnt nothing gives nearly the same map.", numbers=numbers, believable=False
        )
    if gain.low <= 0:
        sentence = "Not shown: its order of tiles is no better than chance."
        return Belief(sentence=sentence, numbers=numbers, believable=False)
    if (patients := gain.counts.get("n", 0)) < FEW:
        sentence = f"Perhaps, as to where: the result rested on the marked tiles of the {patients} patients measured."
        return Belief(sentence=sentence, numbers=numbers)
    sentence = "Yes, as to where: the prediction rests on the tiles that it marks."
    return Belief(sentence=sentence, numbers=numbers, believable=True)


def faithfulness_tables(faithfulness: Faithfulness | None) -> tuple[Table, ...]:
    """Return a table of all measures, a row for each method and output; empty where nothing was measured."""
    maps = () if faithfulness is None else faithfulness.maps
    columns: Mapping[str, list[Estimate | None]] = {
        "Gain over a random order": [each.srg for each in maps],
        "Least share that keeps the call": [each.sufficient for each in maps],
        "Correlation after random weights": [each.randomised for each in maps],
        "AUROC against the true tiles": [each.telling for each in maps],
        "The same, of the oracle": [each.telling_oracle for each in maps],
    }
    filled = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    if faithfulness is None or not filled:
        return ()
    rows = tuple(
        (each.title, each.output, *("–" if value is None else value.described for value in values))
        for each, values in zip(maps, zip(*filled.values(), strict=True), strict=True)
    )
    note = " ".join((_NOTE, *faithfulness.call_sentences()))
    return (Table(columns=("Method", "Output", *filled), rows=rows, note=note),)


_NOTE = (
    "Gain: tiles are removed in the order of the map, most relevant first and least relevant first; the difference of "
    "the two curves less that of a random order, above zero for a map that can be believed. Correlation: with the map "
    "of the same model with random weights, near zero where the map shows what was learnt."
)


def _above(chance: float, telling: Estimate | None) -> bool:
    """Whether the whole interval lies below chance."""
    return telling is not None and telling.high is not None and telling.high < chance


def _numbers(measured: MapFaithfulness) -> str:
    text = "; ".join(_measures(measured))
    return f"{text[0].upper()}{text[1:]}."


def _measures(measured: MapFaithfulness) -> Iterable[str]:
    yield f"gain over a random order {measured.srg.described}"
    if measured.randomised is not None and measured.randomised.value is not None:
        yield f"correlation with random weights {measured.randomised}"
    if measured.telling is not None and measured.telling.value is not None:
        yield f"AUROC against the tiles that truly tell {measured.telling}"

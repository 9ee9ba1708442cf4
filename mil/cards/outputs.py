"""The table of outputs: what each means, when it is given, and how many of 1,000 patients get it."""

from collections.abc import Iterator
from typing import NamedTuple

from mil.cards.card_facts import MANIFEST, Facts
from mil.cards.section_parts import endpoint_reports
from mil.fitted.decision import Decision
from mil.report.schema import Table
from mil.report.sections.operating_point import OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.output_table import UNSTATED, of_a_thousand

WITHHELD = "withheld"
_NOTE = (
    "Of 1,000 patients, rounded; counts and intervals are in block 10. An assumed prevalence is an example, not a "
    "finding."
)


class Output(NamedTuple):
    """One possible output of the tool."""

    name: str
    meaning: str
    condition: str
    """when it is given"""
    frequencies: dict[str, str]
    """of 1,000 patients, by the head of the column"""
    source: str


def outputs(facts: Facts) -> list[Output]:
    """Return every possible output of the tool; none if it makes no call."""
    decisions = facts.manifest.fitted.decisions
    points = _points(facts)
    listed = [
        output
        for at, decision in enumerate(decisions)
        for output in _outputs(decision, points.get(decision.name), at, len(decisions) > 1)
    ]
    novelty = facts.manifest.fitted.novelty
    if novelty is not None:
        when = f"a slide has fewer than {novelty.min_tiles} tiles, or features unlike those of the training slides"
        listed.append(Output(WITHHELD, "no result is given", when, {}, f"{MANIFEST}fitted.novelty"))
    return listed


def outputs_table(facts: Facts) -> Table | None:
    """Return the outputs with a row each; None if the tool makes no call."""
    listed = outputs(facts)
    if not listed:
        return None
    heads = list(dict.fromkeys(head for output in listed for head in output.frequencies))
    rows = tuple(
        (
            output.name,
            output.meaning,
            output.condition,
            *(output.frequencies.get(head, "–") for head in heads),
            output.source,
        )
        for output in listed
    )
    return Table(columns=("Output", "What it means", "When", *heads, "Source"), rows=rows, note=_NOTE if heads else "")


def _points(facts: Facts) -> dict[str, OperatingPoint]:
    """Return what each decision did to the reported patients, by its name."""
    sections = [part.report.section(OperatingPoints) for part in endpoint_reports(facts)]
    return {point.name: point for section in sections if section is not None for point in section.decisions}


def _outputs(decision: Decision, point: OperatingPoint | None, at: int, several: bool) -> Iterator[Output]:
    source = f"{MANIFEST}fitted.decisions[{at}]"
    meanings = {output.name: output.meaning for output in decision.outputs}
    frequencies = {} if point is None else of_a_thousand(point)
    for call, condition in conditions(decision).items():
        texts = {head: by_call[call] for head, by_call in frequencies.items() if call in by_call}
        name = f"{decision.name}: {call}" if several else call
        yield Output(name, meanings.get(call, UNSTATED), condition, texts, source)


def conditions(decision: Decision) -> dict[str, str]:
    """Return in words when each call is made."""
    cuts, calls, score = decision.cuts, decision.calls, " + ".join(decision.columns)
    if decision.likeliest:
        minimum = f", its probability at least {cuts[0]:.4g}" if cuts else ""
        texts = {call: f"the likeliest class{minimum}" for call in calls if call != decision.between}
        return texts | ({} if decision.between is None else {calls[-1]: f"no class has a probability of {cuts[0]:.4g}"})
    texts = {}
    for call, low, high in zip(calls, [None, *cuts], [*cuts, None], strict=True):
        bounds = [f"at least {low:.4g}"] if low is not None else []
        bounds += [f"below {high:.4g}"] if high is not None else []
        texts[call] = f"{score} {' and '.join(bounds)}"
    return texts

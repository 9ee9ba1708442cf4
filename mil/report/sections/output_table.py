"""What each output of a decision means, and how many of 1,000 patients get it."""

from collections.abc import Mapping, Sequence

from mil.report.schema import Confusion, Table
from mil.report.sections.operating_point import CallRate, OperatingPoint
from mil.stats.estimate import format_class, format_counts, format_number

NOTE = "Of 1,000 patients, rounded; from {counts}. An assumed prevalence is an example, not a finding."
UNSTATED = "not stated by the tool"


def output_table(point: OperatingPoint, several: bool = False) -> Table | None:
    """Return a row for each output: its meaning, and how many of 1,000 patients get it; None without outputs.

    Args:
        point: A decision.
        several: Whether the head of the table names the decision, since there are others.
    """
    if not point.calls:
        return None
    meanings = {output.name: output.meaning for output in point.outputs}
    frequencies = of_a_thousand(point)
    rows = tuple(
        (call, meanings.get(call, UNSTATED), *(texts.get(call, "–") for texts in frequencies.values()))
        for call in point.calls
    )
    head = f"Output of {point.name}" if several else "Output"
    note = NOTE.format(counts=format_counts(_counts(point))) if frequencies else ""
    return Table(columns=(head, "What it means", *frequencies), rows=rows, note=note)


def of_a_thousand(point: OperatingPoint) -> dict[str, dict[str, str]]:
    """Return how many of 1,000 patients get each output and how many of these are positive, in words.

    Returns:
        By heading, which names the prevalence, a text for each output.
    """
    if point.per_1000:
        positive = format_class(point.confusion.classes[-1]) if point.confusion else "positive"
        observed = "" if point.prevalence is None else _share(point.prevalence.value)
        cases = {f"Of 1,000 at {observed} {positive} (observed)": _pairs(point.per_1000, positive)}
        for case in point.at_prevalence:
            cases[f"Of 1,000 at {case.prevalence:g} {positive} (assumed)"] = _pairs(case.per_1000, positive)
        return {heading: texts for heading, texts in cases.items() if texts}
    if point.confusion is not None and point.n:
        return {"Of 1,000 (observed)": _classes(point.confusion, point.n)}
    total = sum(group.counts.get("n", 0) for group in point.groups)
    if not total:
        return {}
    return {
        "Of 1,000 (observed)": {group.name: f"{1000 * group.counts.get('n', 0) / total:.0f}" for group in point.groups}
    }


def _pairs(rates: Sequence[CallRate], positive: str) -> dict[str, str]:
    """Return for each call its patients, and the positives among them; nothing where nobody was called."""
    counts: dict[str, dict[bool, float]] = {}
    for rate in rates:
        if rate.estimate.value is None:
            return {}
        counts.setdefault(rate.call, {})[rate.positive] = rate.estimate.value
    totals = {call: sides[True] + sides[False] for call, sides in counts.items()}
    return {call: f"{total:.0f}, of whom {counts[call][True]:.0f} {positive}" for call, total in totals.items()}


def _classes(matrix: Confusion, n: int) -> dict[str, str]:
    """Return for each called class its patients and those of the class; the call that names none comes last."""
    texts = {}
    for at, call in enumerate(matrix.calls):
        called = sum(row[at] for row in matrix.rows)
        text = f"{1000 * called / n:.0f}"
        if at < len(matrix.classes):
            text += f", of whom {1000 * matrix.rows[at][at] / n:.0f} {format_class(matrix.classes[at])}"
        texts[call] = text
    return texts


def _share(value: float | None) -> str:
    return "–" if value is None else format_number(value)


def _counts(point: OperatingPoint) -> Mapping[str, int]:
    if point.positives is None or point.negatives is None:
        return {"n": point.n or 0}
    return {"n": point.n or 0, "positives": point.positives, "negatives": point.negatives}

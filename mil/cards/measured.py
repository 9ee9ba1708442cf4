"""Numbers of report.json as rows of a card: value with interval, whom it is of, and the key it stands under."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mil.report.page.words import estimate, is_number, named
from mil.report.page.words import population as told
from mil.report.schema import Table
from mil.stats.estimate import format_count

HEADS = ("Measure", "Value (95% interval)", "Patients", "Source")
NAMES = ("name", "horizon", "variable", "group", "class", "site", "call", "label", "time")
"""Keys that say which of several records one is, the first that is there."""
_SILENT = (
    *(
        "questions",
        "decisions",
        "horizons",
        "classes",
        "groups",
        "rows",
        "sites",
        "by_class",
        "recall",
        "parts",
        "times",
    ),
)
"""Keys that a record's name makes superfluous."""
_ELSEWHERE = ("confusion", "per_1000", "at_prevalence", "bins", "quintiles", "histogram", "curve", "fitted", "exact")
"""Keys that have tables of their own, or are drawn."""
_BESIDE = (*NAMES, "reference", "score", "column", "plain", "exact", "best", "worst", "folds")


_COUNTED = ("n", "positives", "negatives", "events", "patients")


class Measured(NamedTuple):
    """One number of a report."""

    label: str
    value: str
    patients: str
    source: str
    method: str


def measured(found: Any, source: str, names: Sequence[str] = ()) -> Iterator[Measured]:
    """Every number below a part of a report, in its order.

    Args:
        found: The part.
        source: Where it stands, as `report.json: run.survival`.
        names: What is known of it by the way that leads there.
    """
    if is_number(found):
        yield Measured(" · ".join(names), interval(found), _patients(found), source, str(found.get("method") or ""))
    elif isinstance(found, Mapping):
        for key, value in found.items():
            if key not in _ELSEWHERE:
                more = () if key in _SILENT else (named(str(key)),)
                yield from measured(value, below(source, str(key)), (*names, *more))
    elif isinstance(found, list | tuple):
        for at, record in enumerate(found):
            if isinstance(record, Mapping):
                own = _name(record, at if len(found) > 1 else None)
                yield from measured(record, f"{source}[{at}]", (*names, *own))


def numbers(found: Any, source: str) -> Table | None:
    """The same as a table; none where there is no number."""
    rows = list(measured(found, source))
    methods = dict.fromkeys(row.method for row in rows if row.method)
    note = f"95% intervals: {'; '.join(methods)}." if methods else ""
    return Table(columns=HEADS, rows=tuple(row[:4] for row in rows), note=note) if rows else None


def interval(found: Mapping[str, Any]) -> str:
    """`0.912 (0.870 to 0.950)`, or that the value or its interval cannot be had."""
    said = estimate(found)
    if found["value"] is None or found.get("low") is not None or found.get("high") is not None or "level" not in found:
        return said
    reason = str(found.get("reason") or "").strip()
    return f"{said} (interval not estimable{': ' if reason else ''}{reason})"


def below(source: str, key: str) -> str:
    """Where a key's value stands; a key that is no plain word is quoted."""
    plain = re.fullmatch(r"\w+", key) is not None
    if source.endswith(": "):
        return source + (key if plain else f'["{key}"]')
    return f"{source}.{key}" if plain else f'{source}["{key}"]'


def population(found: Mapping[str, Any]) -> str:
    """Whom a number is of: `n 200, MSS 170, MSI-H 30`."""
    if "counts" in found:
        return ", ".join(format_count(name, amount) for name, amount in found["counts"].items())
    keys = ("n", "positives", "negatives", "events")
    return ", ".join(f"{key} {found[key]}" for key in keys if found.get(key) is not None)


def _patients(found: Mapping[str, Any]) -> str:
    """Everybody whom a number is of, and what else stands beside it, each once."""
    known = {key: value for key, value in found.items() if key not in _BESIDE}
    if "counts" in known:
        known = {key: value for key, value in known.items() if key not in _COUNTED}
    if "successes" in known:
        return f"{known['successes']} of {known['n']}"
    return told(known) or "–"


def _name(record: Mapping[str, Any], at: int | None) -> tuple[str, ...]:
    """What tells a record from the others of its list; an only one without a name needs none."""
    key = next((key for key in NAMES if record.get(key) is not None), None)
    if key is None:
        return () if at is None else (str(at + 1),)
    name = f"at {record[key]:g}" if key == "time" and not isinstance(record[key], str) else str(record[key])
    return (f"{name} against {record['reference']}" if record.get("reference") else name,)

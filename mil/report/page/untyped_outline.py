"""A report as headings, sentences and tables, whatever its sections hold.

One rule serves every section, so that no number of report.json is left out of what a person reads: what has a `value`
is a number, records of one kind are a table, and what is deeper stands under a heading of its own. Curves, which are
drawn, and lists longer than a line are left to report.json.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mil.report.page.words import estimate, is_number, named, population, written

SENTENCES = ("verdict", "words", "sentence", "reason", "note")
"""Keys whose text is read before any table."""
_NAMES = ("name", "horizon", "variable", "site", "group", "class", "fold", "label", "time", "prevalence")
_ONLY = ("questions", "decisions", "horizons", "parts")
"""Keys of lists whose only record needs no heading of its own."""
_NUMBER = ("value", "low", "high", "level", "method", "reason", "resamples", "folds")
_LINE, _WIDE, _FEW = 12, 8, 6


@dataclass(frozen=True)
class Table:
    """The first column says what a row is about."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass
class Part:
    """A heading and what stands under it."""

    heading: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    parts: list["Part"] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything stands there."""
        return bool(self.sentences or self.tables or self.parts)


def part(heading: str, found: Any) -> Part:
    """Everything that a section holds, under this heading."""
    made = Part(heading)
    if is_number(found):
        made.tables.append(_numbers({heading: found}))
    elif isinstance(found, Mapping):
        _fill(made, found)
    elif _records(found):
        _list(made, found)
    elif found is not None:
        made.sentences.append(_cell(found))
    return made


def _fill(made: Part, found: Mapping[str, Any]) -> None:
    made.sentences += [str(found[key]) for key in SENTENCES if isinstance(found.get(key), str)]
    matrix = _matrix(found)
    facts = {} if matrix else {key: value for key, value in found.items() if _flat(value) and _said(key, value)}
    numbers = {key: value for key, value in found.items() if is_number(value)}
    if facts:
        made.tables.append(Table(("", ""), [(named(key), _fact(key, value)) for key, value in facts.items()]))
    if numbers:
        made.tables.append(_numbers(numbers))
    if matrix:
        made.tables.append(_crossed(found))
    for key, value in found.items():
        if key in facts or key in numbers or not (_records(value) or _nested(value)):
            continue
        if key in _ONLY and len(value) == 1 and _records(value):
            _list(made, value)
        elif below := part(named(key), value):
            made.parts.append(below)


def _list(made: Part, records: Sequence[Mapping[str, Any]]) -> None:
    """One record is read downwards, several side by side; what is deeper follows."""
    records = [_gathered(record) for record in records]
    if len(records) == 1:
        _fill(made, records[0])
        return
    keys = list(dict.fromkeys(key for record in records for key in record))
    plain = [key for key in keys if all(_flat(record.get(key)) or is_number(record.get(key)) for record in records)]
    plain = [key for key in plain if any(_said(key, record.get(key), True) for record in records)]
    if plain:
        made.tables.append(_abreast(records, plain))
    for at, record in enumerate(records):
        deeper = {key: value for key, value in record.items() if key not in plain}
        below = part(_name(record, at), deeper)
        if below:
            made.parts.append(below)


def _abreast(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Table:
    """A row a record; of few records with many columns a column a record."""
    note = _methods(record[key] for record in records for key in keys if is_number(record.get(key)))
    rows = [[_cell(record.get(key), key, record) for key in keys] for record in records]
    heads = [named(key) for key in keys]
    if len(keys) <= _WIDE or len(records) > _FEW:
        return Table(heads, rows, note)
    turned = [[head, *cells] for head, cells in zip(heads, zip(*rows, strict=True), strict=True)]
    return Table(turned[0], turned[1:], note)


def _numbers(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a number."""
    rows = [
        (named(key), estimate(number, key), population(number), str(number.get("method") or ""))
        for key, number in found.items()
    ]
    return Table(("Measure", "Value (95% interval)", "Of", "Interval by"), rows)


def _crossed(found: Mapping[str, Any]) -> Table:
    classes = [str(name) for name in found["classes"]]
    rows = [[name, *map(written, row)] for name, row in zip(classes, found["rows"], strict=True)]
    return Table(["True, called:", *map(str, found.get("calls") or classes)], rows)


def _fact(key: str, value: Any) -> str:
    """A plain value beside its key; the name of a metric is written as everywhere else."""
    return named(value) if key == "metric" and isinstance(value, str) else _cell(value, key)


def _cell(value: Any, key: str = "", record: Mapping[str, Any] | None = None) -> str:
    if is_number(value):
        n = value.get("n")
        told = f", n {n}" if n is not None and (record is None or record.get("n") != n) else ""
        return estimate(value, key) + told
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(item, str(name))}" for name, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value) or "–"
    return written(value, key)


def _methods(numbers: Any) -> str:
    said = dict.fromkeys(str(number["method"]) for number in numbers if number.get("method"))
    return f"95% intervals: {'; '.join(said)}." if said else ""


def _gathered(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record that is itself a number has it in one cell."""
    if not is_number(record):
        return record
    number = {key: record[key] for key in _NUMBER if key in record}
    return {key: value for key, value in record.items() if key not in _NUMBER or key == "value"} | {"value": number}


def _said(key: str, value: Any, sentences: bool = False) -> bool:
    """Whether it is worth a line: not what is empty, nor that every interval is of 95%."""
    if value is None or value in ("", [], {}) or (key == "level" and isinstance(value, float)):
        return False
    return sentences or key not in SENTENCES or not isinstance(value, str)


def _name(record: Mapping[str, Any], at: int) -> str:
    return next((written(record[key]) for key in _NAMES if record.get(key) is not None), str(at + 1))


def _flat(value: Any) -> bool:
    """A word, or so few that they fill a cell."""
    if isinstance(value, Mapping):
        return not is_number(value) and len(value) <= _LINE and all(_scalar(item) for item in value.values())
    if isinstance(value, list | tuple):
        return len(value) <= _LINE and all(_scalar(item) for item in value)
    return _scalar(value)


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _records(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(item, Mapping) for item in value)


def _nested(value: Any) -> bool:
    """A group of things, and not the points of a curve."""
    return isinstance(value, Mapping) and bool(value) and not any(_long(item) for item in value.values())


def _long(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > _LINE and all(_scalar(item) for item in value)


def _matrix(found: Mapping[str, Any]) -> bool:
    rows = found.get("rows")
    return "classes" in found and isinstance(rows, list) and all(isinstance(row, list) for row in rows)

"""Blocks of the page and rows of the card, made from the types of a model's fields.

Estimates are rows of a table, plain values are rows of a table of facts, models of one kind are a table with a row
each, and a confusion matrix is a cross table. A model inside another stands under a heading of its own. A `Curve` is
drawn by the figures of its section and not written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mil.report.page.words import below, named, written
from mil.report.schema import NOT_STATED, PAGE_ONLY, SENTENCE, Block, Confusion, Curve, Estimate, Model, Row, Table

LONGEST = 12
"""Values that fit into one cell; longer lists are left to report.json."""
WIDEST, FEWEST = 8, 6
"""A table of more columns than the first, and of no more rows than the second, is turned on its side."""
UNTITLED = ("questions", "decisions", "at_cuts", "horizons", "classes", "groups", "rows", "sites", "parts", "times")
"""Lists whose records say by their names what they are about."""
FACTS = ("", "")
ESTIMATES = ("Measure", "Value (95% interval)", "Patients", "Interval by")


def block_of(heading: str, model: BaseModel) -> Block:
    """Return every field of a model as sentences, tables and blocks below this heading."""
    return _Content.of(model).block(heading)


def rows_of(model: BaseModel, source: str = "", label: str = "") -> Iterator[Row]:
    """Yield every estimate of a model, also of the models in it.

    Args:
        model: A section or a part of it.
        source: Where the model stands in report.json, from its section on.
        label: What the labels of the rows begin with.
    """
    for name, title, value, info in _fields(model):
        if PAGE_ONLY in info.metadata:
            continue
        place = f"{source}.{name}" if source else name
        untitled = bool(label) and name == "estimate" and info.title is None
        yield from _rows(value, place, label if untitled or name in UNTITLED else _joined(label, title))


def sentences_of(model: Model, label: str = "") -> Iterator[str]:
    """Yield every sentence of a model, also of the models in it, with the label of what it is about."""
    for _, title, value, info in _fields(model):
        if value and _is_sentence(info):
            yield f"{label}: {value}" if label else f"{value[:1].upper()}{value[1:]}"
        elif isinstance(value, Model):
            yield from sentences_of(value, _joined(label, title))
        elif _records(value):
            for position, record in enumerate(value):
                yield from sentences_of(record, _joined(label, _name(record, position)))


def estimate_table(estimates: Mapping[str, Estimate]) -> Table:
    """Return a table with a row for each estimate, by its label."""
    return Table(columns=ESTIMATES, rows=tuple(_estimate_row(label, each, "") for label, each in estimates.items()))


def listing(heading: str, records: Sequence[BaseModel]) -> Block:
    """Return models of one kind as a table with a row each; a single model is read downwards."""
    if not records:
        return Block(heading=heading)
    if len(records) == 1:
        return block_of(heading, records[0])
    columns = [name for name in type(records[0]).model_fields if _is_column(name, records)]
    tables = [_table(records, columns)] if columns else []
    blocks = []
    for position, record in enumerate(records):
        rest = _Content.of(record, columns).block(_name(record, position))
        blocks += [rest] if is_filled(rest) else []
    return Block(heading=heading, tables=tuple(tables), blocks=tuple(blocks))


def is_filled(block: Block) -> bool:
    """Whether anything stands below the heading."""
    return bool(block.sentences or block.tables or block.blocks)


@dataclass
class _Content:
    """The fields of a model, sorted by how they are shown."""

    sentences: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    estimates: list[tuple[str, str, str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    @classmethod
    def of(cls, model: BaseModel, left_out: Sequence[str] = ()) -> "_Content":
        content = cls()
        for name, title, value, info in _fields(model):
            if name not in left_out and value is not None and value not in ("", (), {}):
                content.add(name, title, value, is_sentence=_is_sentence(info))
            elif value is None and NOT_STATED in info.metadata:
                content.facts.append((title, NOT_STATED))
        return content

    def add(self, name: str, title: str, value: Any, *, is_sentence: bool) -> None:
        if is_sentence:
            self.sentences.append(str(value))
        elif (annotated := _annotated(value)) is not None:
            self.estimates.append(_estimate_row(title, *annotated))
        elif isinstance(value, Confusion):
            self.tables.append(_confusion(value))
        elif isinstance(value, Table):
            self.tables.append(value)
        elif _is_plain(value):
            self.facts.append((title, _cell(value, name)))
        elif isinstance(value, BaseModel) and not isinstance(value, Curve):
            self._below(block_of(title, value))
        elif isinstance(value, Mapping):
            self._below(_mapping(title, value))
        elif _records(value):
            self._below(listing(title, value))

    def block(self, heading: str) -> Block:
        tables = [Table(columns=FACTS, rows=tuple(self.facts))] if self.facts else []
        tables += [Table(columns=ESTIMATES, rows=tuple(self.estimates))] if self.estimates else []
        return Block(
            heading=heading,
            sentences=tuple(self.sentences),
            tables=(*tables, *self.tables),
            blocks=tuple(self.blocks),
        )

    def _below(self, block: Block) -> None:
        self.blocks += [block] if is_filled(block) else []


def _annotated(value: Any) -> tuple[Estimate, str] | None:
    """Return an estimate, and in words what a model says beside it; None for everything else."""
    if isinstance(value, Estimate):
        return value, ""
    estimate = getattr(value, "estimate", None) if isinstance(value, BaseModel) else None
    if not isinstance(estimate, Estimate):
        return None
    rest = {title: each for name, title, each, _ in _fields(value) if name != "estimate" and each is not None}
    if not all(_is_scalar(each) for each in rest.values()):
        return None
    return estimate, ", ".join(f"{title[:1].lower()}{title[1:]} {_cell(each)}" for title, each in rest.items())


def _estimate_row(label: str, estimate: Estimate, note: str) -> tuple[str, str, str, str]:
    population = ", ".join(text for text in (estimate.population, note) if text)
    return label, str(estimate), population, estimate.method or ""


def _fields(model: BaseModel) -> Iterator[tuple[str, str, Any, FieldInfo]]:
    for name, info in type(model).model_fields.items():
        yield name, info.title or named(name), getattr(model, name), info


def _is_sentence(info: FieldInfo) -> bool:
    annotated = [each for each in get_args(info.annotation) if get_origin(each) is Annotated]
    return SENTENCE in info.metadata or any(SENTENCE in each.__metadata__ for each in annotated)


def _mapping(heading: str, values: Mapping[str, object]) -> Block:
    """Return a block of estimates or models by name; plain values that were too many for a cell are facts."""
    content = _Content()
    for name, value in values.items():
        content.add(name, named(name), value, is_sentence=False)
    return content.block(heading)


def _is_column(name: str, records: Sequence[BaseModel]) -> bool:
    """Whether a field fits into a cell in every record, and is not empty in all of them."""
    values = [getattr(record, name) for record in records]
    fits = all(_annotated(value) is not None or _is_plain(value) for value in values)
    return fits and any(value is not None and value not in ("", (), {}) for value in values)


def _table(records: Sequence[BaseModel], columns: Sequence[str]) -> Table:
    fields = type(records[0]).model_fields
    heads = tuple(fields[name].title or named(name) for name in columns)
    rows = tuple(tuple(_record_cell(record, name) for name in columns) for record in records)
    annotated = [_annotated(getattr(record, name)) for record in records for name in columns]
    methods = "; ".join(dict.fromkeys(each[0].method for each in annotated if each is not None and each[0].method))
    note = f"95% intervals: {methods}." if methods else ""
    if len(columns) <= WIDEST or len(records) > FEWEST:
        return Table(columns=heads, rows=rows, note=note)
    turned = [(head, *cells) for head, cells in zip(heads, zip(*rows, strict=True), strict=True)]
    return Table(columns=turned[0], rows=tuple(turned[1:]), note=note)


def _record_cell(record: BaseModel, name: str) -> str:
    value = getattr(record, name)
    annotated = _annotated(value)
    if annotated is None:
        return _cell(value, name)
    estimate, note = annotated
    repeated = estimate.n is None or estimate.n == getattr(record, "n", None)
    return ", ".join(text for text in (str(estimate), "" if repeated else f"n {estimate.n}", note) if text)


def _confusion(matrix: Confusion) -> Table:
    rows = zip(matrix.classes, matrix.rows, strict=True)
    return Table(
        columns=("True, called:", *matrix.calls),
        rows=tuple((name, *(str(count) for count in counts)) for name, counts in rows),
    )


def _cell(value: Any, name: str = "") -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item, str(key))}" for key, item in value.items()) or "–"
    if isinstance(value, tuple):
        return ", ".join(_cell(item) for item in value) or "–"
    return named(value) if name == "metric" and isinstance(value, str) else written(value, name)


def _name(record: BaseModel, position: int) -> str:
    """Return the first plain value of a record, which says what it is about, and what it is compared with."""
    values = (getattr(record, name) for name in type(record).model_fields)
    first = next((value for value in values if isinstance(value, str | int | float)), position + 1)
    name, reference = f"{first:g}" if isinstance(first, float) else str(first), getattr(record, "reference", None)
    return f"{name} against {reference}" if reference else name


def _rows(value: Any, place: str, label: str) -> Iterator[Row]:
    if isinstance(value, Estimate):
        yield Row(label, value, place)
    elif isinstance(value, BaseModel):
        yield from rows_of(value, place, label)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _rows(item, below(place, str(key)), _joined(label, named(str(key))))
    elif _records(value):
        for position, record in enumerate(value):
            name = label if len(value) == 1 else _joined(label, _name(record, position))
            yield from rows_of(record, f"{place}[{position}]", name)


def _joined(label: str, name: str) -> str:
    return f"{label}: {name}" if label else name


def _records(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, BaseModel) for item in value)


def _is_plain(value: Any) -> bool:
    """Whether it is a word or number, or so few of them that they fill a cell."""
    if isinstance(value, Mapping):
        return len(value) <= LONGEST and all(_is_scalar(item) for item in value.values())
    if isinstance(value, tuple):
        return len(value) <= LONGEST and all(_is_scalar(item) for item in value)
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)

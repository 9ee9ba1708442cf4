"""What several blocks read of a report: its parts, their figures, their tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mil.cards.card_facts import Facts
from mil.cards.content import Figure, Subsection
from mil.cards.measured import below
from mil.report.page.html import CAPTIONS, HOMES
from mil.report.page.words import named
from mil.report.schema import Table


def endpoint_reports(facts: Facts) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """The report of all folds, or of a tool of several endpoints that of each, with its name and its place."""
    parts = facts.all_folds.get("parts")
    if not parts:
        yield "", facts.all_folds, facts.source
        return
    for name, found in parts.items():
        yield name, found, below(below(facts.source, "parts"), name)


def figures_of(facts: Facts, keys: Sequence[str]) -> list[Figure]:
    """The figures that belong to any of these sections; of the report of these weights."""
    order = list(HOMES)
    own = [name for name in facts.figures if _home(facts, name.rpartition(".")[0]) in keys]
    own.sort(key=lambda name: order.index(stem) if (stem := name.rpartition(".")[0]) in order else len(order))
    of = f" (fold {facts.manifest.data['split']['fold']}, the report patients of these weights)"
    more = of if facts.report.get("run") else ""
    return [Figure(name, CAPTIONS.get(name.rpartition(".")[0], named(name)) + more) for name in own]


def figures_only(facts: Facts, *keys: str) -> list[Subsection]:
    """Figures that no table stands beside."""
    figures = figures_of(facts, keys)
    return [Subsection("Figures", figures=figures)] if figures else []


def confusion(found: Mapping[str, Any], place: str) -> Table:
    """True classes by calls."""
    calls = [f"called {name}" for name in found["calls"]]
    rows = [
        (f"truly {name}", *map(str, row), f"{place}.confusion.rows[{at}]")
        for at, (name, row) in enumerate(zip(found["classes"], found["rows"], strict=True))
    ]
    return Table(columns=("Patients", *calls, "Source"), rows=tuple(rows))


def with_endpoint(heading: str, name: str) -> str:
    """A heading, with the endpoint where there are several."""
    return f"{name}: {heading}" if name else heading


def _home(facts: Facts, stem: str) -> str:
    there = [key for key in HOMES.get(stem, ()) if facts.report.get(key)]
    return there[0] if there else "fitted" if "fitted" in HOMES.get(stem, ()) else "further"

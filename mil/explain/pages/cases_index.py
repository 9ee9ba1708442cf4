"""The index of cases: misses and false calls first, then those the tool is unsure of, then the rest."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from urllib.parse import quote

from markupsafe import Markup

from mil.explain.pages.case import Call, Case, Verdict
from mil.explain.pages.case_page import AS_MISSED, policy
from mil.report.page.templates import page_environment

UNSURE = (Verdict.NOT_RULED_OUT, Verdict.NOT_RULED_IN, Verdict.UNDECIDED)
MANY = 3
"""Calls that a row of the index writes out; of more it writes those that are to be looked at."""


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """One case in the index."""

    patient: str
    file: str
    """address of its page"""
    verdict: Verdict
    call: str
    number: str
    number_name: str
    """what the number is, such as "probability of MSI-H"; empty where there are several"""
    truth: str
    margin: float | None
    """distance from the cut, or size of the error"""

    @property
    def order(self) -> tuple[int, float, str]:
        """Place in the index: by verdict; wrong calls by how sure they were, unsure ones by how near the cut."""
        margin = 0.0 if self.margin is None else self.margin
        return self.verdict.place, margin if self.verdict in UNSURE else -margin, self.patient


def index_row(case: Case, file: str) -> IndexRow:
    """Return the row of a case."""
    calls = sorted(case.calls, key=lambda call: call.verdict.place)
    shown = calls if len(calls) <= MANY else calls[:MANY]
    margins = [call.margin for call in calls[:1] if call.margin is not None]
    return IndexRow(
        patient=case.scores.patient,
        file=quote(file),
        verdict=case.verdict,
        call="withheld" if case.withheld else _joined([_named(call, call.call, case) for call in shown]),
        number="" if case.withheld else _joined([_named(call, call.number, case) for call in shown]),
        number_name=case.calls[0].number_name if len(case.calls) == 1 else "",
        truth=_joined([_named(call, call.truth, case) for call in shown]),
        margin=margins[0] if margins else None,
    )


def index_page(rows: Sequence[IndexRow], title: str, banner: str) -> str:
    """Return the index as a page; it works without its script, which sorts and filters."""
    script = (package_files("mil.explain.pages") / "cases.js").read_text(encoding="utf-8")
    ordered = sorted(rows, key=lambda row: row.order)
    counts = Counter(row.verdict for row in rows)
    return (
        page_environment("mil.explain.pages")
        .get_template("cases.html.j2")
        .render(
            title=title,
            banner=banner,
            number_name=_heading(rows),
            rows=ordered,
            counts={verdict: counts[verdict] for verdict in Verdict if counts[verdict]},
            first=AS_MISSED,
            script=Markup(script),
            policy=policy([script]),
        )
    )


def _heading(rows: Sequence[IndexRow]) -> str:
    """Return the heading of the numbers: their name, where all have the same."""
    names = {row.number_name for row in rows}
    name = names.pop() if len(names) == 1 else ""
    return f"{name[0].upper()}{name[1:]}" if name else "Number"


def _named(call: Call, text: str, case: Case) -> str:
    """Return a text with the name of its question, where there are several questions."""
    return f"{call.question}: {text}" if text and len(case.calls) > 1 else text


def _joined(texts: Sequence[str]) -> str:
    return "; ".join(text for text in texts if text)

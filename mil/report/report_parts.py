"""The reports that a report consists of: of all folds, and of each endpoint where there are several."""

from collections.abc import Iterator
from typing import NamedTuple

from mil.report.page.words import below
from mil.report.schema import Report, Section

REPORT_FILE = "report.json: "
"""What the source of a number begins with; its key follows."""


class EndpointReport(NamedTuple):
    """The report on one endpoint of a tool."""

    name: str
    """of the endpoint; empty if the tool has only one"""
    report: Report
    source: str
    """file and key of the report"""

    def section_source(self, section: Section) -> str:
        """Return file and key of a section of this report."""
        return below(self.source, "sections", section.key)

    def headed(self, heading: str) -> str:
        """Return the heading, with the endpoint's name if there are several."""
        return f"{self.name}: {heading}" if self.name else heading


def of_all_folds(report: Report) -> tuple[Report, str]:
    """Return the report of all folds, and its file and key."""
    return (report, REPORT_FILE) if report.run is None else (report.run, f"{REPORT_FILE}run")


def reports_by_endpoint(report: Report) -> Iterator[EndpointReport]:
    """Yield the report of all folds; for a tool of several endpoints the report of each endpoint."""
    all_folds, source = of_all_folds(report)
    if not all_folds.parts:
        yield EndpointReport("", all_folds, source)
    for name, part in all_folds.parts.items():
        yield EndpointReport(name, part, below(source, "parts", name))

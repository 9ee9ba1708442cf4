"""A perfect reader of the simulated tiles."""

from typing import ClassVar

from mil.report.schema import Estimate, Section


class Oracle(Section):
    """The metric of a reader who knows what every simulated tile shows: the most that can be reached."""

    key: ClassVar[str] = "oracle"
    title: ClassVar[str] = "Oracle"
    explanation: ClassVar[str] = "A reader who knows what every simulated tile shows: the most that can be reached."
    not_applicable: ClassVar[str] = "It exists for simulated cohorts only."
    position: ClassVar[int] = 130

    metrics: dict[str, Estimate]

"""A part of a cohort, so that several processes can predict it: patients in their order, cut into equal parts."""

from collections.abc import Sequence
from dataclasses import dataclass

from mil.cohort.clinical_table import Cohort


@dataclass(frozen=True)
class Shard:
    """A part of the patients of a cohort.

    Attributes:
        number: Which part, from 0.
        shards: Into how many parts the patients are cut.
    """

    number: int
    shards: int

    def among(self, patients: Sequence[str]) -> tuple[str, ...]:
        """Return the patients of this part, in their order; parts differ by one patient at most."""
        start, end = (len(patients) * number // self.shards for number in (self.number, self.number + 1))
        return tuple(patients[start:end])

    def of(self, cohort: Cohort) -> Cohort:
        """Return the cohort of these patients."""
        is_ours = cohort.table["patient"].isin(set(self.among(list(map(str, cohort.patients.index)))))
        return cohort.only(cohort.table.loc[is_ours, "slide"])

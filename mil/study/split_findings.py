"""What a split does to the patients, beyond what `Split` itself refuses."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pandas as pd

from mil.slide_names import patient_of
from mil.splits.folds import Split
from mil.study.findings import Finding, finding


def same_person(split: Split, table: pd.DataFrame) -> list[Finding]:
    """People who, by the barcodes of public cohorts, stand on two sides of a fold under several patient ids.

    Args:
        split: Who is where.
        table: The cohort's, one row a slide.
    """
    person = {patient: patient_of(patient) for patient in table["patient"]}
    person |= {patient: told for patient, slide in _rows(table) if (told := patient_of(slide))}
    found = []
    for fold, roles in _roles(split).items():
        sides: dict[str, set[str]] = defaultdict(set)
        for patient, role in roles.items():
            if told := person.get(patient):
                sides[told].add(role)
        both = sorted(who for who, stands in sides.items() if len(stands) > 1)
        if both:
            message = f"fold {fold}: {len(both)} patients, by their slides' barcodes, stand on two sides"
            found.append(finding("error", "two-sides", message, both))
    return found


def apart(groups: Iterable[Iterable[str]], split: Split | None, owner: Mapping[str, str]) -> list[list[str]]:
    """Those groups of slides whose patients stand on two sides of some fold.

    Args:
        groups: Slides that are the same.
        split: Who is where; None where there is none to be had.
        owner: Each slide's patient.
    """
    if split is None:
        return []
    folds = _roles(split).values()
    return [
        slides
        for slides in map(list, groups)
        if any(len({roles.get(owner[slide]) for slide in slides} - {None}) > 1 for roles in folds)
    ]


def of_one_class(split: Split, strata: "pd.Series[int]") -> list[Finding]:
    """Folds whose selecting or reporting patients are all of one class; of those training, fitting says it."""
    found = []
    for fold in split.folds:
        for role in ("select", "report"):
            patients = split.patients(fold, role)
            if patients and strata[patients].nunique() == 1 < strata.nunique():
                message = f"fold {fold}: all {len(patients)} {role} patients are of one class, which metrics cannot use"
                found.append(Finding("warning", "one-class", message, len(patients)))
    return found


def _rows(table: pd.DataFrame) -> Iterable[tuple[str, str]]:
    return zip(table["patient"], table["slide"], strict=True)


def _roles(split: Split) -> dict[int, dict[str, str]]:
    return {
        int(str(fold)): dict(zip(own["patient"], own["role"], strict=True)) for fold, own in split.table.groupby("fold")
    }

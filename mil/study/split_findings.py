"""What is wrong with a split beyond what `Split` itself refuses: people on two sides, folds that teach nothing."""

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pandas as pd
from torch import Tensor

from mil.cohort.clinical_table import Cohort
from mil.cohort.similar_ids import described, similar
from mil.endpoints.endpoint import Endpoint
from mil.errors import MilError, SplitError
from mil.findings import Checked, Finding, attempt
from mil.slide_names import patient_of
from mil.splits.folds import KFold, Split, Strategy
from mil.study.label_findings import too_few
from mil.study.study import Labels

FEW_EVENTS = 20
"""Fewer events in the whole cohort are reported; a subgroup needs as many to be estimated at all."""


def check_split(
    strategy: Strategy,
    seed: int,
    endpoint: Endpoint,
    cohort: Cohort,
    labels: Labels,
    balanced: bool,
    learnable: bool = True,
) -> Checked[Split]:
    """Split the patients, and look at what that does to them.

    Args:
        strategy: Decides who trains, selects and reports.
        seed: Of the random choice.
        endpoint: What is to be learnt from the patients who train.
        cohort: The patients' slides.
        labels: The patients and their targets.
        balanced: Whether the loss balances classes.
        learnable: Whether all patients together can be learnt from; where not, folds are not tried.
    """
    patients, target = labels.patients, labels.target
    strata = endpoint.strata(target)
    if isinstance(strategy, KFold):
        few = too_few(pd.Series(strata, patients.index), patients[list(cohort.labels)], strategy.folds)
        if few:
            return Checked(None, tuple(few))
    made = attempt("split", lambda: strategy(list(patients.index), strata, cohort.table, seed))
    if made.value is None:
        return made
    split = made.value
    findings = [
        *split.findings,
        *same_person(split, cohort.table),
        *similar_patients(split),
        *similar_sites(split, cohort.table),
    ]
    if learnable:
        findings += unlearnable_folds(split, endpoint, labels, balanced)
    findings += few_events(endpoint, target, len(split.folds))
    if endpoint.classes:
        findings += of_one_class(split, pd.Series(strata, patients.index))
    return Checked(split, tuple(findings))


def unlearnable_folds(split: Split, endpoint: Endpoint, labels: Labels, balanced: bool) -> list[Finding]:
    """Return an error for each fold from whose training patients the endpoint cannot be fitted."""
    findings = []
    for fold in split.folds:
        rows = labels.patients.index.get_indexer(pd.Index(split.patients(fold, "train")))
        try:
            copy.deepcopy(endpoint).fit(labels.target[rows], balance=balanced)
        except MilError as error:
            findings.append(Finding("error", "fold", f"fold {fold}: {error}", len(rows), raises=type(error)))
    return findings


def same_person(split: Split, table: pd.DataFrame) -> list[Finding]:
    """Return people who, by the barcodes of public cohorts, stand on two sides of a fold under several patient ids.

    Args:
        split: Who is where.
        table: The cohort's, one row a slide.
    """
    person = {patient: patient_of(patient) for patient in table["patient"]}
    person |= {patient: barcode for patient, slide in _rows(table) if (barcode := patient_of(slide))}
    findings = []
    for fold, roles in _roles(split).items():
        roles_of_person: dict[str, set[str]] = defaultdict(set)
        for patient, role in roles.items():
            if barcode := person.get(patient):
                roles_of_person[barcode].add(role)
        both = sorted(barcode for barcode, sides in roles_of_person.items() if len(sides) > 1)
        if both:
            message = f"fold {fold}: {len(both)} patients, by their slides' barcodes, stand on two sides"
            findings.append(Finding.of_items("error", "two-sides", message, both, SplitError))
    return findings


def similar_patients(split: Split) -> list[Finding]:
    """Return patients whose ids differ in spelling only, such as `p1` and `P01`, and who stand on two sides."""
    groups = similar(split.table["patient"].unique())
    split_groups: dict[tuple[str, ...], None] = {}
    for roles in _roles(split).values():
        split_groups |= {group: None for group in groups if len({roles.get(name) for name in group} - {None}) > 1}
    if not split_groups:
        return []
    message = (
        f"{len(split_groups)} patients whose ids differ in spelling only stand on two sides of a fold: "
        f"{described(list(split_groups))}; give each person one id, or clearly different ones"
    )
    return [Finding("error", "two-sides", message, len(split_groups), raises=SplitError)]


def similar_sites(split: Split, table: pd.DataFrame) -> list[Finding]:
    """Return sites whose names differ in spelling only and which a split that keeps sites apart puts on two sides.

    Args:
        split: Who is where.
        table: The cohort's, one row a slide.
    """
    groups = similar(name for name in table["site"].unique() if name) if "site" in table else []
    if not groups:
        return []
    site_of = dict(zip(table["patient"], table["site"], strict=True))
    split_groups: dict[tuple[str, ...], None] = {}
    for roles in _roles(split).values():
        is_report: dict[str, set[bool]] = defaultdict(set)
        for patient, role in roles.items():
            is_report[site_of[patient]].add(role == "report")
        if any(len(sides) > 1 for sides in is_report.values()):
            return []  # patients of each site are on both sides anyway
        split_groups |= {group: None for group in groups if len(set().union(*map(is_report.__getitem__, group))) > 1}
    if not split_groups:
        return []
    message = (
        f"{len(split_groups)} sites whose names differ in spelling only are kept apart as two: "
        f"{described(list(split_groups))}; give each site one name, or clearly different ones"
    )
    return [Finding("error", "two-sides", message, len(split_groups), raises=SplitError)]


def apart(groups: Iterable[Iterable[str]], split: Split | None, owner: Mapping[str, str]) -> list[list[str]]:
    """Return the groups of slides whose patients stand on two sides of some fold.

    Args:
        groups: Slides that are the same.
        split: Who is where; None where it could not be made.
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


def few_events(endpoint: Endpoint, target: Tensor, folds: int) -> list[Finding]:
    """Return a warning where patients are followed and so few have the event that no fold shows much."""
    events = endpoint.events(target)
    if events is None or events.sum() >= FEW_EVENTS:
        return []
    message = f"{events.sum()} of {len(events)} patients have the event, in {folds} folds: intervals will be wide"
    return [Finding("warning", "few-events", message, int(events.sum()))]


def of_one_class(split: Split, strata: "pd.Series[int]") -> list[Finding]:
    """Return folds whose selecting or reporting patients are all of one class; `unlearnable_folds` covers training."""
    findings = []
    for fold in split.folds:
        for role in ("select", "report"):
            patients = split.patients(fold, role)
            if patients and strata[patients].nunique() == 1 < strata.nunique():
                message = f"fold {fold}: all {len(patients)} {role} patients are of one class, which metrics cannot use"
                findings.append(Finding("warning", "one-class", message, len(patients)))
    return findings


def _rows(table: pd.DataFrame) -> Iterable[tuple[str, str]]:
    return zip(table["patient"], table["slide"], strict=True)


def _roles(split: Split) -> dict[int, dict[str, str]]:
    return {
        int(str(fold)): dict(zip(rows["patient"], rows["role"], strict=True))
        for fold, rows in split.table.groupby("fold")
    }

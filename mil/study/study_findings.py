"""What a study and its split show beyond what making them refuses."""

import copy

import pandas as pd
from torch import Tensor

from mil.cohort.clinical_table import Cohort
from mil.endpoints.endpoint import Endpoint
from mil.errors import MilError
from mil.splits.folds import Split
from mil.study import encoder_findings, label_findings, split_findings
from mil.study.config import RunConfig
from mil.study.findings import Finding
from mil.study.pipeline import Study


def of_study(settings: RunConfig, study: Study, split: Split) -> list[Finding]:
    """All of it, without a look at the files."""
    called = settings.data.name
    return [
        *encoder_findings.seen(study.encoder, list(study.cohort.table["slide"]), called),
        *of_labels(study.endpoint, study.patients, study.target),
        *of_split(settings, study.endpoint, study.cohort, study.patients, study.target, split),
    ]


def of_labels(endpoint: Endpoint, patients: pd.DataFrame, target: Tensor) -> list[Finding]:
    """Labels that go along with the site."""
    if "site" not in patients:
        return []
    classes = classes_of(endpoint, patients, target)
    return [one for name, own in classes.items() for one in label_findings.confounded(name, own, patients["site"])]


def classes_of(endpoint: Endpoint, patients: pd.DataFrame, target: Tensor) -> dict[str, "pd.Series[str]"]:
    """What patients are told apart by, each a word a patient; of survival the event."""
    index = patients.index
    if endpoint.survival is not None:
        return {endpoint.survival.event_column: label_findings.words(target[:, 1].numpy(), index)}
    if endpoint.parts():
        parts = [classes_of(one, patients[known], own) for _, one, known, own in endpoint.part_targets(target)]
        return {name: words for part in parts for name, words in part.items()}
    if labels := endpoint.label_columns:
        return {name: label_findings.words(target[:, at].numpy(), index) for at, name in enumerate(labels)}
    if endpoint.classes:
        return {endpoint.columns[0]: patients[endpoint.columns[0]]}
    return {", ".join(endpoint.columns): label_findings.words(endpoint.strata(target), index)}


def of_split(
    settings: RunConfig,
    endpoint: Endpoint,
    cohort: Cohort,
    patients: pd.DataFrame,
    target: Tensor,
    split: Split,
    fits: bool = True,
) -> list[Finding]:
    """People on two sides, and folds from which nothing can be learnt, or nothing measured."""
    found = split_findings.same_person(split, cohort.table)
    for fold in split.folds if fits else []:
        rows = patients.index.get_indexer(pd.Index(split.patients(fold, "train")))
        try:
            copy.deepcopy(endpoint).fit(target[rows], balance=settings.data.balance == "loss")
        except MilError as error:
            found.append(Finding("error", "fold", f"fold {fold}: {error}", len(rows)))
    if endpoint.classes:
        found += split_findings.of_one_class(split, pd.Series(endpoint.strata(target), patients.index))
    return found

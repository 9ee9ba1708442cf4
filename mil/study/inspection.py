"""A cohort, its features and its split against a tool, stage by stage: one that fails does not stop the others."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast

import pandas as pd
import torch
from torch import Tensor

from mil import config
from mil.cohort.clinical_table import Cohort
from mil.cohort.columns import Columns
from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.errors import FeatureError, MilError
from mil.features.encoders import Encoder
from mil.features.formats import Header
from mil.features.geometry import Expected, settled
from mil.features.packing import Progress
from mil.features.store import FeatureStore
from mil.splits.folds import KFold, Split
from mil.study import build, content_findings, encoder_findings, file_findings, label_findings, table_findings
from mil.study.config import RunConfig
from mil.study.findings import Finding, softened
from mil.study.log_findings import diverted, finding_of, quiet
from mil.study.pipeline import Study, Tables, carried, covariates_of, rehearse, store_of, tables_of
from mil.study.study_findings import of_labels, of_split

T = TypeVar("T")


@dataclass
class Inspection:
    """What was read, what is wrong with it, and what could not be looked at; None is what a stage did not give."""

    settings: RunConfig
    endpoint: Endpoint
    covariates: Covariates | None = None
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    raw: pd.DataFrame | None = None
    """the table as it stands, one row a slide"""
    cohort: Cohort | None = None
    """without slides that the user lets be skipped"""
    store: FeatureStore | None = None
    headers: dict[str, Header] = field(default_factory=dict)
    """of slides with tiles"""
    encoder: Encoder | None = None
    patients: pd.DataFrame | None = None
    target: Tensor | None = None
    split: Split | None = None

    def of(self, severity: str) -> list[Finding]:
        """The errors, or the warnings."""
        return [one for one in self.findings if one.severity == severity]

    def attempt(self, stage: str, make: Callable[[], T]) -> T | None:
        """What `make` gives; its error is a finding."""
        try:
            return make()
        except MilError as error:
            self.findings.append(Finding("error", stage, str(error)))
            return None


def inspect(settings: RunConfig, deep: bool = False, workers: int = 2, advance: Progress | None = None) -> Inspection:
    """Everything that `mil train` would stumble over, and what it would not see.

    Args:
        settings: The whole configuration.
        deep: Also read the features themselves.
        workers: Processes that read files.
        advance: Is told how far it is.

    Raises:
        ConfigError: Options that cannot be, before anything is read.
    """
    found = Inspection(settings, build.endpoint(settings), covariates_of(settings))
    places = tables_of(settings)
    with diverted() as told:
        _read(found, places)
        found.store = found.attempt("features", partial(store_of, settings, places.features))
        _match(found, workers, advance or _silent)
        _resolve(found)
        _encode(found, places)
        _divide(found)
        if deep:
            _open(found, workers, advance or _silent)
    found.findings += [finding_of(record) for record in told if record.name != "mil.cohort.clinical_table"]
    return found


def _read(found: Inspection, places: Tables) -> None:
    """The table, as it stands and as it is checked."""
    data, wanted = found.settings.data, found.endpoint.columns
    columns, words = Columns(**data.columns.plain()), data.labels
    given = (wanted, carried(found.settings, found.covariates))
    known = found.endpoint.known
    read = partial(Cohort.read, places.cohort, columns, *given, slides=places.slides, words=words, known=known)
    found.cohort = found.attempt("cohort", read)
    with diverted(logging.NOTSET):  # said once is enough
        try:
            found.raw = raw = table_findings.raw(places.cohort, places.slides, columns, *given, words)
        except MilError:
            return  # the cohort cannot be read either, and that is told
        errors = [
            *table_findings.without_ids(places.cohort, raw),
            *table_findings.doubled(places.cohort, raw),
            *table_findings.differing(places.cohort, raw, wanted),
        ]
        if errors:
            counted = tuple(one.message for one in errors)
            found.findings = [one for one in found.findings if not one.message.startswith(counted)] + errors
        if places.slides is not None:
            found.findings += table_findings.strangers(places.cohort, places.slides, columns)
    found.findings += table_findings.several_sites(raw)
    if found.cohort is not None:
        patients = sorted(set(raw["patient"]))
        lost = sorted(set(patients) - set(found.cohort.table["patient"]))
        lacking = {label: sorted(set(own) & set(lost)) for label, own in table_findings.lacking(raw, wanted).items()}
        found.findings += table_findings.left_out(len(patients), lacking, lost)


def _match(found: Inspection, workers: int, advance: Progress) -> None:
    """Slides and files against each other, and every file's header."""
    if (store := found.store) is None:
        found.unchecked += ["features", "encoder"]
        return
    data, table = found.settings.data, found.raw if found.cohort is None else found.cohort.table
    missing, bad = softened(data.on_missing), softened(data.on_bad_bag)
    slides = store.slides if table is None else sorted(set(table["slide"]) - {""})
    if found.raw is not None:
        found.findings += file_findings.without_files(slides, store.slides, missing)
        found.findings += file_findings.without_slides(store.slides, set(found.raw["slide"]), store.folder)
    there = [slide for slide in slides if slide in store]
    read = store.headers(there, workers, lambda done, of: advance("headers", done, of))
    headers = {slide: said for slide, said in read.items() if not isinstance(said, FeatureError)}
    found.findings += [*file_findings.unreadable(read, bad), *file_findings.empty(headers, bad)]
    found.headers = {slide: said for slide, said in headers.items() if said.tiles}
    _leave_out(found, [slide for slide in slides if slide not in store] if missing == "warning" else [])
    _leave_out(found, [slide for slide in there if slide not in found.headers] if bad == "warning" else [])


def _leave_out(found: Inspection, slides: list[str]) -> None:
    if found.cohort is None or not slides:
        return
    left = _of_slides(found.cohort, set(found.cohort.table["slide"]) - set(slides))
    if left.table.empty:
        found.findings.append(Finding("error", "nothing-left", "no slide is left once those are left out"))
    found.cohort = None if left.table.empty else left


def _of_slides(cohort: Cohort, slides: Collection[str]) -> Cohort:
    table = cohort.table[cohort.table["slide"].isin(list(slides))].reset_index(drop=True)
    return Cohort(table, cohort.labels, cohort.covariates)


def _resolve(found: Inspection) -> None:
    """The encoder and the tiles' size, and what the model asks of them."""
    store, headers = found.store, found.headers
    if store is None:
        return
    if not headers:
        found.unchecked.append("encoder")
        return
    found.encoder = found.attempt("encoder", lambda: store.resolve(list(headers)))
    if found.encoder is None:
        try:
            settled(headers, store.expected or Expected(), store.folder)
        except MilError as error:
            told = Finding("error", "geometry", str(error))
            found.findings += [told] if all(one.message != told.message for one in found.findings) else []
        return
    called = found.settings.data.name
    found.findings += encoder_findings.seen(found.encoder, list(headers), called)


def _encode(found: Inspection, places: Tables) -> None:
    """The labels, and whether everything that a fit is made of can be made."""
    if found.cohort is None:
        found.unchecked.append("labels")
    else:
        found.patients = patients = found.cohort.patients
        if (beside := found.covariates) is not None:
            found.attempt("covariates", lambda: beside.check(patients))
        found.target = _encoded(found, found.patients)
    if found.encoder is None:
        found.unchecked.append("model")
        return
    _make(found, places, found.encoder)


def _make(found: Inspection, places: Tables, known: Encoder) -> None:
    """Everything that a fit is made of."""
    with torch.device("meta"):
        model = found.attempt("model", lambda: build.network(found.settings, known.dim, found.endpoint))
    if model is None:
        return
    placeless = file_findings.without_positions(
        found.headers, found.settings.model.target if model.needs_coords else None
    )
    found.findings += placeless
    study = _study(found, places, known)
    if study is not None and not any(one.severity == "error" for one in placeless):
        with quiet():
            found.attempt("options", lambda: rehearse(_light(found.settings), study))


class Unmade:
    """Stands for something that need not be made."""

    def __init__(self, *given: object, **options: object) -> None:
        """Takes what the other would."""


def _light(settings: RunConfig) -> RunConfig:
    """The settings, without what is one of `conf/` as it stands, which tests have made, and slow to make.

    Lightning and torch's optimisers each take as long to load as a thousand headers to read.
    """
    values, unmade = settings.plain(), {"_target_": f"{__name__}.{Unmade.__name__}"}
    for group in ("optimizer", "trainer", "callbacks"):
        if values[group] in config.described(group).values():
            nodes = values[group].values() if group == "callbacks" else [values[group]]
            for node in nodes:
                node.update(unmade)
    return RunConfig.parse(values)


def _encoded(found: Inspection, patients: pd.DataFrame) -> Tensor | None:
    endpoint = found.endpoint
    try:
        target = endpoint.encode(patients)
    except MilError as error:
        bad = [name for name in patients.index if _refuses(endpoint, patients.loc[[name]])]
        shown = tuple(bad[:10]) if len(bad) > 1 else ()
        found.findings.append(Finding("error", "label", str(error), max(1, len(bad)), shown))
        return None
    found.attempt("label", lambda: endpoint.fit(target, balance=found.settings.data.balance != "none"))
    found.findings += of_labels(endpoint, patients, target)
    return target


def _refuses(endpoint: Endpoint, patient: pd.DataFrame) -> bool:
    try:
        endpoint.encode(patient)
    except MilError:
        return True
    return False


def _study(found: Inspection, places: Tables, known: Encoder) -> Study | None:
    """The study of those slides that can be read."""
    store, patients, target = found.store, found.patients, found.target
    if found.cohort is None or store is None or patients is None or target is None:
        return None
    cohort = _of_slides(found.cohort, found.headers)
    bags, beside = cohort.bags(found.settings.data.bag), found.covariates
    return Study(cohort, store, known, found.endpoint, patients, target, bags, places.cohort, places.truth, beside)


def _divide(found: Inspection) -> None:
    """The split, made or given."""
    patients, target, cohort = found.patients, found.target, found.cohort
    if patients is None or target is None or cohort is None:
        found.unchecked.append("split")
        return
    settings, strata = found.settings, found.endpoint.strata(target)
    strategy = found.attempt("split", lambda: build.make(settings.split))
    if isinstance(strategy, KFold):
        few = label_findings.too_few(pd.Series(strata, patients.index), patients[list(cohort.labels)], strategy.folds)
        found.findings += few
        strategy = None if few else strategy
    if strategy is None:
        found.unchecked.append("split")
        return
    divide = partial(strategy, list(patients.index), strata, cohort.table, settings.seed)
    found.split = cast(Split | None, found.attempt("split", divide))
    if found.split is not None:
        refused = any(one.code == "label" for one in found.findings)
        found.findings += of_split(settings, found.endpoint, cohort, patients, target, found.split, fits=not refused)


def _open(found: Inspection, workers: int, advance: Progress) -> None:
    """The features themselves."""
    if found.store is None or not found.headers:
        found.unchecked.append("contents")
        return
    read = content_findings.contents(
        found.store, list(found.headers), workers, lambda done, of: advance("contents", done, of)
    )
    found.findings += content_findings.problems(read, softened(found.settings.data.on_bad_bag))
    owner = {} if found.raw is None else dict(zip(found.raw["slide"], found.raw["patient"], strict=True))
    found.findings += content_findings.copies(read, found.split, owner)


def _silent(step: str, done: int, total: int) -> None:
    pass

"""Reads a cohort, its features and its labels stage by stage; a stage that fails does not stop independent ones."""

from collections.abc import Iterator
from functools import cached_property, partial

import pandas as pd

from mil.cohort.clinical_table import Cohort, without_files
from mil.cohort.gdc_names import named_as_files
from mil.cohort.slide_resolutions import slide_mpps
from mil.cohort.slide_rows import read_rows
from mil.endpoints.endpoint import Endpoint
from mil.errors import FeatureError, MilError
from mil.features.encoders import Encoder
from mil.features.formats import Header
from mil.features.geometry import Expected, common_geometry
from mil.features.store import FeatureStore
from mil.findings import MOST_NAMED, Checked, Finding, attempt, severity_where
from mil.progress import advance
from mil.slide_names import matching_files
from mil.study import content_findings, encoder_findings, file_findings
from mil.study.content_findings import Content
from mil.study.flow import FlowStep, flow_of
from mil.study.label_findings import of_labels
from mil.study.source import StudySource
from mil.study.study import Labels, Study
from mil.study.time_findings import of_times


class StudyReader:
    """The stages of reading a study, each run once, when it or a later one is first asked for.

    A stage returns its value with its findings. `cohort`, `features`, `headers`, `contents`, `encoder` and `labels`
    depend on each other in this order; one that lacks what it needs has no value and no findings (`Checked.untried`).
    """

    def __init__(self, source: StudySource, read_contents: bool = False, workers: int = 2) -> None:
        """Prepare to read.

        Args:
            source: The files, and what the user says of them.
            read_contents: Whether `contents` reads the features; otherwise only headers are looked at.
            workers: Processes that read files.
        """
        self.source = source
        self.read_contents = read_contents
        self.workers = workers

    def stages(self) -> Iterator[tuple[str, Checked[object]]]:
        """Run the stages one after another and yield each with its name."""
        yield "cohort", self.cohort
        yield "features", self.features
        yield "headers", self.headers
        if self.read_contents:
            yield "contents", self.contents
        yield "opened", self.opened
        yield "encoder", self.encoder
        yield "labels", self.labels

    @cached_property
    def rows(self) -> Checked[pd.DataFrame]:
        """The clinical table as it stands, one row a slide, under the names of the feature files."""
        source, store = self.source, self.features.value
        path = source.slides or source.cohort

        def has_file(table: pd.DataFrame) -> "pd.Series[bool]":
            files = [] if store is None else store.slides
            by_name, _ = matching_files(table["slide"], files)
            return table["slide"].map(lambda slide: by_name.get(slide, slide)).isin(files)

        rows = read_rows(
            source.cohort,
            source.columns,
            source.endpoint.columns,
            source.clinical_columns,
            source.slides,
            source.words,
            source.declared_words,
            has_file if source.on_missing == "skip" and store is not None else None,
        )
        if store is None:
            return rows
        return rows.then(lambda table: named_as_files(path, table, store.slides))

    @cached_property
    def cohort(self) -> Checked[Cohort]:
        """The patients with labels, and their slides."""
        source, rows = self.source, self.rows
        if rows.errors:
            return Checked(None, rows.findings)
        endpoint, covariates, declared = source.endpoint, source.clinical_columns, source.declared_words
        return rows.then(
            lambda table: Cohort.from_rows(
                source.cohort, table, endpoint.columns, covariates, endpoint.has_target, declared
            )
        )

    @cached_property
    def features(self) -> Checked[FeatureStore]:
        """The listed feature files."""
        return attempt("features", self.source.store)

    @cached_property
    def headers(self) -> Checked[dict[str, Header]]:
        """The headers of the cohort's slides that have a readable file with tiles."""
        store = self.features.value
        if store is None:
            return Checked(None)
        rows = self._slide_rows()
        findings: list[Finding] = []
        slides = store.slides
        if rows is not None:
            resolutions = slide_mpps(self.source.slides or self.source.cohort, rows, self.source.columns.mpp)
            findings += resolutions.findings
            store.set_resolutions(resolutions.value or {})
        if rows is not None:
            slides = [slide for slide in dict.fromkeys(rows["slide"]) if slide]
            findings += file_findings.without_encoder(store, slides, self.source.on_missing)
            files = [*store.slides, *(slide for slide in slides if store.lacking(slide))]
            findings += without_files(rows[rows["slide"] != ""], files, self.source.on_missing)
            mentioned = rows if self.rows.value is None else self.rows.value
            findings += file_findings.without_slides(store.slides, set(mentioned["slide"]), store.folder)
        present = [slide for slide in slides if slide in store]
        read = store.headers(present, self.workers, partial(advance, "reading headers"))
        headers = {slide: header for slide, header in read.items() if not isinstance(header, FeatureError)}
        severity = severity_where(self.source.on_bad_bag)
        findings += [*file_findings.unreadable(read, severity), *file_findings.empty(headers, severity)]
        return Checked({slide: header for slide, header in headers.items() if header.tiles}, tuple(findings))

    def _slide_rows(self) -> pd.DataFrame | None:
        """Return the cohort's rows; those of the table as it stands where no cohort could be made of it."""
        return self.rows.value if self.cohort.value is None else self.cohort.value.table

    @cached_property
    def contents(self) -> Checked[dict[str, Content]]:
        """What is in the feature files; an empty value where they are not to be read."""
        store, headers = self.features.value, self.headers.value
        if not self.read_contents:
            return Checked({})
        if store is None or not headers:
            return Checked(None)
        contents = content_findings.contents(store, list(headers), self.workers, partial(advance, "reading features"))
        severity = severity_where(self.source.on_bad_bag)
        return Checked(contents, tuple(content_findings.problems(contents, severity)))

    @cached_property
    def opened(self) -> Checked[list[str]]:
        """One slide of each layout, read as training reads it: a header alone may hide that the rest cannot be read."""
        store = self.features.value
        if store is None or self.contents.value:
            return Checked([])
        read = partial(store.read, check=False)
        slides = store.one_of_each_layout(self.usable)
        attempts = [attempt("unreadable", partial(read, slide)) for slide in slides]
        return Checked(slides, tuple(finding for result in attempts for finding in result.findings))

    @cached_property
    def usable(self) -> dict[str, Header]:
        """The headers of the slides that training can use."""
        contents = self.contents.value or {}
        if self.source.on_bad_bag != "skip":
            contents = {}
        unusable = {slide for slide, content in contents.items() if not content.usable}
        return {slide: header for slide, header in (self.headers.value or {}).items() if slide not in unusable}

    @property
    def tiles_by_bag(self) -> dict[str, int]:
        """Number of tiles of each bag of the slides that training can use; empty without a cohort."""
        cohort, usable = self.remaining.value, self.usable
        if cohort is None or not usable:
            return {}
        bags = cohort.only(usable).bags(self.source.bag)
        return {
            str(bag): sum(usable[slide].tiles for slide in slides)
            for bag, slides in zip(bags["bag"], bags["slides"], strict=True)
        }

    @cached_property
    def remaining(self) -> Checked[Cohort]:
        """The cohort without the slides that the user lets be left out."""
        cohort, store = self.cohort.value, self.features.value
        if cohort is None or store is None:
            return Checked(cohort)
        slides = set(cohort.table["slide"])
        missing = {slide for slide in slides if slide not in store}
        left_out = missing if self.source.on_missing == "skip" else set[str]()
        if self.source.on_bad_bag == "skip":
            left_out |= slides - missing - set(self.usable)
        if not left_out:
            return Checked(cohort)
        if left_out == slides:
            message = f"no slide is left once the {len(slides)} without usable features are left out"
            return Checked(None, (Finding("error", "nothing-left", message, len(slides), raises=FeatureError),))
        remaining = cohort.only(slides - left_out)
        lost = len(cohort.patients) - len(remaining.patients)
        message = (
            f"{len(left_out)} of {len(slides)} slides cannot be used and are left out, and with them {lost} patients"
        )
        return Checked(remaining, (Finding.of_items("warning", "left-out", message, sorted(left_out)),))

    @cached_property
    def encoder(self) -> Checked[Encoder]:
        """The one encoder of the features, with the tiles' size; both stay with the store."""
        store, slides = self.features.value, list(self.usable)
        if store is None or not slides:
            return Checked(None)
        try:
            encoder = store.resolve(slides)
        except MilError as error:
            return Checked(None, (Finding.of_error("encoder", error), *self._geometry_errors(store, str(error))))
        return encoder.then(
            lambda value: Checked(value, tuple(encoder_findings.pretrained_on(value, slides, self.source.name)))
        )

    def _geometry_errors(self, store: FeatureStore, encoder_error: str) -> list[Finding]:
        """Return what is wrong with the tiles' size where the encoder could not be resolved."""
        try:
            common_geometry(self.usable, store.expected or Expected(), store.folder)
        except MilError as error:
            return [] if str(error) == encoder_error else [Finding.of_error("geometry", error)]
        return []

    @cached_property
    def labels(self) -> Checked[Labels]:
        """The patients and their encoded labels, where these can be learnt from."""
        return self.remaining.then(self._encoded)

    def study(self) -> Checked[Study]:
        """Run all stages and return the study of the slides that training can use, with the findings of all."""
        findings = tuple(finding for _, stage in self.stages() for finding in stage.findings)
        cohort, store = self.remaining.value, self.features.value
        encoder, labels = self.encoder.value, self.labels.value
        if cohort is None or store is None or encoder is None or labels is None:
            return Checked(None, findings)
        source, cohort = self.source, cohort.only(self.usable)
        study = Study(
            cohort,
            store,
            encoder,
            source.endpoint,
            labels.patients,
            labels.target,
            cohort.bags(source.bag),
            source.cohort,
            source.truth,
            source.covariates,
            source.balance,
            tuple(finding for finding in findings if finding.severity == "warning"),
            tuple(self._flow(store)),
        )
        return Checked(study, findings)

    def _flow(self, store: FeatureStore) -> Iterator[FlowStep]:
        rows, cohort = self.rows.value, self.cohort.value
        if rows is not None and cohort is not None:
            with_files = {slide for slide in cohort.table["slide"] if slide in store}
            yield from flow_of(rows, cohort.table, with_files, set(self.usable))

    def _encoded(self, cohort: Cohort) -> Checked[Labels]:
        endpoint, patients = self.source.endpoint, cohort.patients
        findings: list[Finding] = []
        if (covariates := self.source.covariates) is not None:
            levels = attempt("covariates", lambda: covariates.check(patients))
            findings += [*levels.findings, *(levels.value or [])]
        try:
            target = endpoint.encode(patients)
        except MilError as error:
            return Checked(None, (*findings, _refused_labels(endpoint, patients, error)))
        # refuses what cannot be learnt or balanced; fitted again on each fold's training patients
        fitted = attempt("label", lambda: endpoint.fit(target, balance=self.source.balance != "none"))
        findings += [*fitted.findings, *of_labels(endpoint, patients, target), *of_times(endpoint, patients, target)]
        return Checked(Labels(patients, target), tuple(findings))


def _refused_labels(endpoint: Endpoint, patients: pd.DataFrame, error: MilError) -> Finding:
    """Return the error with the patients whose labels the endpoint refuses."""

    def is_refused(patient: str) -> bool:
        return bool(attempt("label", lambda: endpoint.encode(patients.loc[[patient]])).errors)

    refused = list(filter(is_refused, patients.index))
    named = tuple(refused[:MOST_NAMED]) if len(refused) > 1 else ()
    message = f"{error}{_words_of(endpoint, patients.loc[refused])}"
    return Finding("error", "label", message, max(1, len(refused)), named, type(error))


def _words_of(endpoint: Endpoint, refused: pd.DataFrame) -> str:
    """Return all words that are no class of an endpoint with one label, and the options that give them a meaning."""
    if refused.empty or not endpoint.classes or len(endpoint.columns) != 1:
        return ""
    [column] = endpoint.columns
    counts = refused[column].value_counts()
    words = ", ".join(f"'{word}' ({count})" for word, count in counts.head(MOST_NAMED).items())
    more = f" and {len(counts) - MOST_NAMED} more" if len(counts) > MOST_NAMED else ""
    meaning = f"data.labels.{column}={{{counts.index[0]}: {endpoint.classes[0]}, ...}}"
    return f"; of no class are {words}{more}: give them a meaning by {meaning}, or name the classes in tool.endpoint"

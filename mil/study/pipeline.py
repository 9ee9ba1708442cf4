"""The stages of a study in their order: `mil train` stops at the first error, `mil check` collects them all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from mil.findings import Checked, Finding, attempt, raise_first_error
from mil.splits.folds import Split, Strategy
from mil.study import build, content_findings
from mil.study.copied_files import copies_of
from mil.study.reader import StudyReader
from mil.study.rehearsal import check_model
from mil.study.run_config import RunConfig
from mil.study.source import StudySource, source_of
from mil.study.split_findings import check_split
from mil.study.study import Labels, Study

HINT = "; mil check with the same words shows all"


def read_study(config: RunConfig) -> Study:
    """Return the study that a configuration describes, which holds the warnings of its stages.

    Raises:
        MilError: The first error in the options, the cohort or its features.
    """
    return read_source(source_of(config))


def read_source(source: StudySource) -> Study:
    """Return the study of these files, which holds the warnings of its stages.

    Where unusable slides are to be left out, the features are read too, as headers do not show all of them.

    Raises:
        MilError: The first error in the cohort or its features.
    """
    return _read(_reader(source))


def prepare_study(config: RunConfig, split_file: Path | None = None) -> tuple[Study, Split]:
    """Return what `mil train` trains on, once everything that a fit is made of has been built without weights.

    Args:
        config: The whole configuration.
        split_file: The split of a run that has begun; None splits the patients.

    Raises:
        MilError: The first error in options, cohort, features, labels, model or split.
    """
    reader = _reader(source_of(config))
    study = _read(reader)
    model = check_model(config, reader)
    raise_first_error(model.findings, HINT)
    study = replace(study, findings=(*study.findings, *model.findings))
    if split_file is not None:
        return study, Split.read(split_file, list(study.patients.index))
    return study, split_study(config, study)


def _reader(source: StudySource) -> StudyReader:
    return StudyReader(source, read_contents=source.on_bad_bag == "skip")


def _read(reader: StudyReader) -> Study:
    for _, stage in reader.stages():
        raise_first_error(stage.findings, HINT)
    return reader.study().value_or_raise()


def split_study(config: RunConfig, study: Study) -> Split:
    """Return who trains, selects and reports in each fold, with the warnings about it.

    Raises:
        MilError: The first error: folds that cannot be made, learnt from, or that share a person.
    """
    return split_by(cast(Strategy, build.make(config.split)), study, config.seed)


def split_by(strategy: Strategy, study: Study, seed: int) -> Split:
    """Return the split that a strategy makes, with the warnings about it.

    Raises:
        MilError: The first error: folds that cannot be made, learnt from, or that share a person.
    """
    labels = Labels(study.patients, study.target)
    split = check_split(strategy, seed, study.endpoint, study.cohort, labels, study.balance == "loss")
    warnings = tuple(finding for finding in split.findings if finding.severity == "warning")
    return Split(split.value_or_raise(HINT).table, warnings)


@dataclass(frozen=True)
class StudyCheck:
    """What `mil check` looked at.

    Attributes:
        config: The configuration.
        reader: The stages of reading, each with its value.
        split: Who is where, if that could be decided.
        findings: What is wrong.
        unchecked: The stages that lacked what they need.
    """

    config: RunConfig
    reader: StudyReader
    split: Split | None
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop a training."""
        return [finding for finding in self.findings if finding.severity == "error"]


def check_study(config: RunConfig, deep: bool = False, workers: int = 2) -> StudyCheck:
    """Run every stage, whatever the others found.

    Args:
        config: The whole configuration.
        deep: Also read the features themselves.
        workers: Processes that read files.

    Raises:
        ConfigError: Options that cannot be, before anything is read.
    """
    reader = StudyReader(source_of(config), deep, workers)
    results = [*reader.stages(), ("model", check_model(config, reader))]
    split = _split(config, reader)
    results.append(("split", split))
    findings = [finding for _, stage in results for finding in stage.findings]
    rows = reader.rows.value
    owner = {} if rows is None else dict(zip(rows["slide"], rows["patient"], strict=True))
    findings += _copies(reader, split.value, owner)
    unchecked = tuple(name for name, stage in results if stage.untried)
    return StudyCheck(config, reader, split.value, tuple(findings), unchecked)


def _copies(reader: StudyReader, split: Split | None, owner: Mapping[str, str]) -> list[Finding]:
    """Return slides that are copies of each other, by all their values or, where these were not read, by samples."""
    store = reader.features.value
    if reader.contents.value or store is None:
        return content_findings.copies(reader.contents.value or {}, split, owner)
    owner_of_usable = {slide: owner[slide] for slide in reader.usable if slide in owner}
    copied = attempt("copies", lambda: copies_of(store, split, owner_of_usable))
    return [*copied.findings, *(copied.value or [])]


def _split(config: RunConfig, reader: StudyReader) -> Checked[Split]:
    cohort, labels = reader.remaining.value, reader.labels.value
    if cohort is None or labels is None:
        return Checked(None)
    source, learnable = reader.source, not any(finding.code == "label" for finding in reader.labels.findings)
    return attempt("split", lambda: cast(Strategy, build.make(config.split))).then(
        lambda strategy: check_split(
            strategy,
            config.seed,
            source.endpoint,
            cohort,
            labels,
            source.balance == "loss",
            learnable,
        )
    )

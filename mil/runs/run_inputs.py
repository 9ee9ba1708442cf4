"""What a run was begun with: digests of tables, split and feature files, compared when it goes on."""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mil import files
from mil.errors import ConfigError
from mil.features.content_samples import Samples, parse, texts
from mil.features.feature_folders import paths_of
from mil.features.fingerprints import Fingerprint
from mil.runs.looks import FILE as LOOKS
from mil.runs.looks import changed_predictions, read_looks
from mil.runs.states import checkpoints_in
from mil.runs.trained_manifests import FILE as MANIFESTS
from mil.runs.trained_manifests import changed_manifests
from mil.storage import read_bytes
from mil.study.compose import read_config, to_yaml
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.tables import listed

logger = logging.getLogger(__name__)
CONFIG, SPLIT, PATIENTS = "config.yaml", "split.csv", "patients.csv"
_WRITTEN = (CONFIG, SPLIT, PATIENTS)
"""What the beginning of a run writes and nothing changes."""
INPUTS = "inputs.json"
"""In a run folder; runs of earlier versions have none."""


class Accepted(BaseModel):
    """Changes that the user accepted with `--accept-changes`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    when: str
    changes: tuple[str, ...]


class RunInputs(BaseModel):
    """What a run was begun with, as far as it can be compared later.

    Attributes:
        files: Digests of `config.yaml`, `split.csv` and `patients.csv` in the run folder, and of the tables that the
            options name.
        patients: Digest of each patient's rows: labels, slides, covariates.
        features: Size, time and sampled digest of each slide's feature file.
        samples: Values of some tiles of each slide, the same in a packed or converted copy; empty in earlier versions.
        accepted: Changes since, with which the run went on.
        rounding: Type of the copy that features were read from, and the largest change of a value by it; None where no
            value was changed.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    files: Mapping[str, str]
    patients: Mapping[str, str]
    features: Mapping[str, tuple[int, int, str]]
    samples: Mapping[str, str] = {}
    accepted: tuple[Accepted, ...] = ()
    rounding: tuple[str, float] | None = None


def record_inputs(config: RunConfig, study: Study, folder: Path, accepted: tuple[Accepted, ...] = ()) -> None:
    """Write what a run is begun, or goes on, with."""
    slides = study.cohort.table["slide"].unique()
    fingerprints = study.store.fingerprints(slides)
    # config.yaml is written after this file, as it marks the run as begun
    written = {CONFIG: hashlib.sha256(to_yaml(config).encode()).hexdigest()}
    record = RunInputs(
        files=_file_digests(config, folder, study.source) | written,
        patients=_patients_of(study),
        features={slide: (each.size, each.modified, each.sha256) for slide, each in fingerprints.items()},
        samples={slide: texts(each) for slide, each in study.store.samples(slides).items()},
        accepted=accepted,
        rounding=study.store.rounding,
    )
    files.write_json(folder / INPUTS, record.model_dump(mode="json"))


def read_inputs(folder: Path) -> RunInputs | None:
    """Return what a run was begun with; None for runs of earlier versions.

    Raises:
        ConfigError: The file holds something else.
    """
    path = folder / INPUTS
    if not path.is_file():
        return None
    try:
        return RunInputs.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.errors()[0]['msg']}, expected the record of a run's inputs") from None


def recorded_samples(record: RunInputs) -> list[Samples]:
    """Return the samples of a run's slides.

    Raises:
        ConfigError: The record holds something else.
    """
    try:
        return [parse(text) for text in record.samples.values()]
    except ValueError:
        raise ConfigError(f"{INPUTS}: samples of features that cannot be read, expected the record of a run") from None


def changed_files(record: RunInputs, config: RunConfig, folder: Path, source: Path | None = None) -> list[str]:
    """Return which tables differ from those that the run was begun with; without reading a cohort.

    Args:
        record: Of the beginning.
        config: The run's options.
        folder: Its folder.
        source: The cohort's table, where that is known; None takes the one of the options.
    """
    now = _file_digests(config, folder, source)
    return [name for name, digest in record.files.items() if name in now and now[name] != digest]


def changes(record: RunInputs, config: RunConfig, study: Study, folder: Path) -> list[str]:
    """Return what differs from the beginning of a run, one sentence each.

    A feature file with another time but the same content, as a copy has it, is only warned of.
    """
    sentences = [f"{name} is not what it was" for name in changed_files(record, config, folder, study.source)]
    slides = [slide for slide in study.cohort.table["slide"].unique() if slide in record.features]
    differing, newer = list[str](), 0
    for slide, now in study.store.fingerprints(slides).items():
        before = Fingerprint(*record.features[slide])
        if not before.has_same_content(now):
            differing.append(slide)
        newer += before.modified != now.modified and slide not in differing
    if newer:
        logger.warning("%d feature files are newer than the run, with the same content as far as samples show", newer)
    sentences += _differing("patients have other labels, slides or covariates", record.patients, _patients_of(study))
    if differing:
        sentences.append(
            f"{len(differing)} of {len(record.features)} feature files are not what they were: {listed(differing)}"
        )
    return sentences


def _differing(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing:
        yield f"{len(differing)} of {len(before)} {what}: {listed(differing)}"


def input_paths(config: RunConfig) -> list[Path]:
    """Return the tables and the folder of features that a run reads, as its options name them."""
    data = config.data
    named = (data.cohort, data.slides, config.split.options.file)
    features = [] if data.features is None else paths_of(Path(data.features).expanduser())
    return [*(Path(path).expanduser() for path in named if path is not None), *features]


def with_recorded(runs: Iterable[Path]) -> list[Path]:
    """Return run folders and what these runs read, as far as their configurations say it."""
    places = list[Path]()
    for run in runs:
        places.append(run)
        if (run / CONFIG).is_file():
            with suppress(ConfigError):  # opening the run says what is wrong with it
                places += input_paths(read_config(run / CONFIG))
    return places


def _file_digests(config: RunConfig, folder: Path, source: Path | None) -> dict[str, str]:
    data = config.data
    given = {"data.cohort": data.cohort, "data.slides": data.slides, "split.file": config.split.options.file}
    paths = {name: Path(path).expanduser() for name, path in given.items() if path is not None}
    if source is not None and data.cohort is None:
        paths["the simulated cohort's table"] = source
    paths |= {name: folder / name for name in _WRITTEN}
    return {name: files.sha256(path) for name, path in paths.items() if path.is_file()}


def _patients_of(study: Study) -> dict[str, str]:
    table = study.cohort.table.fillna("").astype(str)
    rows = {patient: group.to_numpy().tolist() for patient, group in table.groupby("patient", sort=True)}
    texts = {patient: "\x1e".join("\x1f".join(row) for row in sorted(cells)) for patient, cells in rows.items()}
    return {str(patient): _digest(text) for patient, text in texts.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def accepted_now(record: RunInputs, sentences: list[str]) -> tuple[Accepted, ...]:
    """Return what was accepted before and is now."""
    return (*record.accepted, Accepted(when=datetime.now(UTC).isoformat(timespec="seconds"), changes=tuple(sentences)))


def remarks_of(folder: Path) -> tuple[str, ...] | None:
    """Return what a reader of a run's report must know of its inputs and predictions; None where there is nothing.

    Raises:
        ConfigError: The record of the inputs cannot be read.
        PredictionsError: The record of the looks cannot be read.
    """
    record, changed = read_inputs(folder), changed_predictions(folder)
    sentences = [] if changed is None else [changed]
    if record is not None:
        accepted = "although its inputs had changed since it began"
        sentences = [
            *(f"The run went on {each.when[:10]} {accepted}: {'; '.join(each.changes)}." for each in record.accepted),
            *_changed_since(record, folder),
            *_rounded(record),
            *sentences,
        ]
    sentences += changed_manifests(folder)
    return tuple(sentences) or None


def warn_of_changes(folder: Path) -> None:
    """Log what `remarks_of` says of a run, with its folder: for commands that write no report of it."""
    for sentence in remarks_of(folder) or ():
        logger.warning("%s: %s", folder, sentence)


def _changed_since(record: RunInputs, folder: Path) -> Iterator[str]:
    """Yield a sentence for each file of the run's beginning that is another now, or is not there."""
    for name in (name for name in _WRITTEN if name in record.files):
        path = folder / name
        if not path.is_file():
            yield f"{name}, which the run began with, is missing."
        elif files.sha256(path) != record.files[name]:
            yield f"{name} is not what the run began with: it was changed."
    if not any(look.what == "train" for look in read_looks(folder)) and _reports(folder / SPLIT):
        yield f"{LOOKS} has no look of the training: whether predictions.csv is what it wrote cannot be known."
    if record.samples and checkpoints_in(folder) and not (folder / MANIFESTS).is_file():
        yield f"{MANIFESTS} is missing: whether the manifests are what training wrote cannot be known."


def _rounded(record: RunInputs) -> Iterator[str]:
    """Yield the sentence about features that were rounded in a copy."""
    if record.rounding is not None:
        dtype, largest = record.rounding
        yield (
            f"Features were read from a copy in {dtype} (data.cache_dtype), whose values were rounded by at most "
            f"{largest:.3g}."
        )


def _reports(split: Path) -> bool:
    """Return whether a split has patients who are reported, at whom training looks."""
    return split.is_file() and any(line.rstrip().endswith(",report") for line in split.read_text("utf-8").splitlines())

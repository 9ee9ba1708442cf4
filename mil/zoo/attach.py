"""Attach an evaluation on another cohort to a release: an external validation that its card and gates count.

The folder `external/<key>/` of a release holds the report and what is known of the cohort; no patient and no prediction
goes there. Weights and everything fitted stay as they are, so that the release gets the next patch version.
"""

import hashlib
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from mil import files
from mil.cards.external_validation import FOLDER, ExternalCohort, ExternalValidation
from mil.checkpoint import WEIGHTS, Checkpoint
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError, ConfigError
from mil.manifest import Manifest
from mil.report.prediction_files import read as read_predictions
from mil.report.report_files import read_report, write_report
from mil.runs.describe import REPORT
from mil.runs.evaluate import EvaluatedCohort
from mil.storage import read_bytes
from mil.tables import SIMULATED_COLUMN

COHORT = "cohort.json"
PREDICTIONS = "predictions.csv"
_SAME_SCORE = 1e-6
"""Relative difference below which two scores are of the same features; another platform rounds differently."""
_ROWS = 256
"""Patients that are compared at a time with all of the development cohort."""


@dataclass(frozen=True)
class StatedCohort:
    """What the user says of a cohort.

    Attributes:
        name: Name of the cohort, unique in a release.
        centre: Where its patients were treated.
        dates: When, such as `2019 to 2021`.
        simulated: Whether its patients are simulated.
    """

    name: str
    centre: str | None = None
    dates: str | None = None
    simulated: bool = False

    @property
    def key(self) -> str:
        """The name as the name of a folder.

        Raises:
            ConfigError: if no letter or digit is left.
        """
        letters = unicodedata.normalize("NFKD", self.name.casefold())  # accents become characters of their own
        without_accents = "".join(letter for letter in letters if not unicodedata.combining(letter))
        key = re.sub(r"[^a-z0-9]+", "-", without_accents).strip("-")
        if not key:
            raise ConfigError(f"--name {self.name!r}: expected letters or digits")
        return key


def read_external(folder: Path) -> tuple[ExternalValidation, ...]:
    """Return the external validations of a release, by folder name.

    Raises:
        CheckpointError: if a description cannot be read.
        ReportError: if a report cannot be read.
    """
    return tuple(_read(place) for place in sorted((folder / FOLDER).glob("*")) if place.is_dir())


def _read(place: Path) -> ExternalValidation:
    path = place / COHORT
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing, expected the description of an external cohort")
    try:
        cohort = ExternalCohort.model_validate_json(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return ExternalValidation(cohort, read_report(place / REPORT))


def problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with the external validations of a release, one line each."""
    digests = dict[str, str]()
    for validation in read_external(folder):
        cohort, report = validation.cohort, validation.report
        place = f"{FOLDER}/{cohort.key}"
        if not (folder / place / COHORT).is_file():
            yield f"{FOLDER}: {cohort.key} is not the name of its folder"
            continue
        if cohort.weights_sha256 != manifest.files.get(WEIGHTS):
            yield f"{place}/{COHORT}: evaluated other weights than those of this release"
        if cohort.report_sha256 != files.sha256(folder / place / REPORT):
            yield f"{place}/{REPORT} is not the report that {COHORT} names"
        if cohort.patients != report.patients or report.about.tool != manifest.tool.name or not report.about.external:
            yield f"{place}/{COHORT}: tool or patients are not those of {REPORT}"
        if cohort.overlap:
            yield f"{place}/{COHORT}: {cohort.overlap} patients of the development cohort"
        if cohort.sha256 in digests:
            yield f"{place}/{COHORT}: the cohort of {digests[cohort.sha256]}"
        digests[cohort.sha256] = place


def attach(
    release: Checkpoint,
    evaluated: EvaluatedCohort,
    stated: StatedCohort,
    rewrite: Callable[[Path], None],
    run: Path | None = None,
) -> ExternalCohort:
    """Write an evaluation into a copy of a release, which `rewrite` completes and puts in its place.

    Args:
        release: The released folder, loaded.
        evaluated: Its evaluation on the cohort.
        stated: What the user says of the cohort.
        rewrite: Receives the copy, makes card, gates and manifest anew, and replaces the release.
        run: Folder of the run that was released, to compare its patients with those of the cohort; the release of a
            simulated tool holds its patients itself.

    Raises:
        ConfigError: if a cohort with this name or these patients is attached already, is simulated without being called
            so, or has patients of the development cohort.
    """
    cohort = _described(release, evaluated, stated, run)
    _check_new(read_external(release.folder), cohort)
    draft = release.folder.with_name(f".{release.folder.name}.{uuid4().hex}")
    try:
        with files.writing(release.folder):
            shutil.copytree(release.folder, draft)
        place = draft / FOLDER / cohort.key
        write_report(place / REPORT, evaluated.report)
        cohort = cohort.model_copy(update={"report_sha256": files.sha256(place / REPORT)})
        files.write_json(place / COHORT, cohort.model_dump(mode="json"))
        rewrite(draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return cohort


def _described(
    release: Checkpoint, evaluated: EvaluatedCohort, stated: StatedCohort, run: Path | None
) -> ExternalCohort:
    manifest, report, table = release.manifest, evaluated.report, evaluated.table
    if evaluated.simulated and not stated.simulated and not manifest.data.simulated:
        raise ConfigError(
            f"--attach: the patients of {stated.name} are simulated, those of {manifest.tool.name} are not; expected "
            "real patients, or --simulated to state it"
        )
    overlap = shared_patients(release, table, run)
    if overlap:
        raise ConfigError(
            f"--attach: {overlap} of {len(table)} patients of {stated.name} are of the cohort that "
            f"{manifest.tool.name} was developed on, expected other patients"
        )
    return ExternalCohort(
        key=stated.key,
        name=stated.name,
        centre=stated.centre,
        dates=stated.dates,
        simulated=stated.simulated or evaluated.simulated,
        patients=report.patients,
        withheld=report.about.withheld,
        overlap=overlap,
        sha256=_digest(table, release.endpoint.columns),
        weights_sha256=manifest.files[WEIGHTS],
        report_sha256="",
    )


def _check_new(attached: Sequence[ExternalValidation], cohort: ExternalCohort) -> None:
    for validation in attached:
        if validation.cohort.sha256 == cohort.sha256:
            raise ConfigError(f"--attach: the patients of {cohort.name} are attached as {validation.cohort.name}")


def _digest(table: pd.DataFrame, targets: Sequence[str]) -> str:
    """Return the digest of patients and targets, whatever their order."""
    rows = table[["patient", *targets]].astype(str).sort_values("patient")
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def shared_patients(release: Checkpoint, table: pd.DataFrame, run: Path | None) -> int | None:
    """Return how many patients of a table are of the development cohort; None if its patients are not at hand.

    They are told by their names and, since names are given anew at another site, by their scores: the same features get
    the same score from the same weights. Names of simulated patients are the same in every cohort and tell nothing.

    Args:
        release: The released folder.
        table: patient, targets and scores of the cohort.
        run: Folder of the run that was released.
    """
    path = (release.folder if run is None else run) / PREDICTIONS
    if not path.is_file():
        return None
    endpoint, fold = release.endpoint, release.manifest.data.split.fold
    developed = read_predictions(path, endpoint.columns)
    names = set() if release.manifest.data.simulated else set(developed["patient"])
    same_score = _same_scores(table, developed[developed["fold"] == fold], endpoint)
    return int((table["patient"].isin(names).to_numpy() | same_score).sum())


def _same_scores(table: pd.DataFrame, developed: pd.DataFrame, endpoint: Endpoint) -> NDArray[np.bool_]:
    """Return which rows have all scores of a row of the development cohort, `(p,)`."""
    columns = [name for name in _score_columns(developed, endpoint) if name in table]
    if not columns or developed.empty:
        return np.zeros(len(table), dtype=bool)
    new, old = table[columns].to_numpy(np.float64), developed[columns].to_numpy(np.float64)
    blocks = [new[start : start + _ROWS, None, :] for start in range(0, len(new), _ROWS)]  # (r, 1, c)
    same = [np.isclose(block, old, rtol=_SAME_SCORE, atol=0).all(axis=2).any(axis=1) for block in blocks]
    return np.concatenate(same)


def _score_columns(table: pd.DataFrame, endpoint: Endpoint) -> list[str]:
    no_scores = {"patient", "fold", "role", SIMULATED_COLUMN, *endpoint.columns}
    return [str(name) for name in table if name not in no_scores and pd.api.types.is_numeric_dtype(table[name])]


def external_companion(name: str) -> str | None:
    """Return the file that belongs to one of an external validation; None for the name of any other file."""
    folder, _, rest = name.partition("/")
    key, _, file = rest.partition("/")
    if folder != FOLDER or not key or file not in (COHORT, REPORT):
        return None
    return f"{folder}/{key}/{REPORT if file == COHORT else COHORT}"

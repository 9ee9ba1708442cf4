"""Release a run's checkpoint under a version, ready for a model hub."""

import logging
import re
import shutil
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import pandas as pd

from mil import checkpoint, files
from mil.cards.external_validation import FOLDER
from mil.cards.statements import STATEMENTS
from mil.checkpoint import Checkpoint
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError, ConfigError
from mil.manifest import Manifest
from mil.report.report_files import read_report, write_report
from mil.report.schema import GateResult, Report
from mil.report.sections.federation import FILE as FEDERATION
from mil.runs.describe import FIGURES, REPORT, latest_log
from mil.runs.evaluate import EvaluatedCohort
from mil.runs.run import open_run
from mil.runs.run_inputs import remarks_of
from mil.runs.states import checkpoints_in, read_states, write_states
from mil.storage import read_bytes
from mil.tables import csv_text, without_marks
from mil.zoo import golden
from mil.zoo.attach import StatedCohort, attach, read_external
from mil.zoo.figures import EPOCHS, draw_figures
from mil.zoo.gates import EXTERNAL_GATE, GATES, Evidence, external_verdict, gates
from mil.zoo.index import INDEX, is_index, write_index
from mil.zoo.released import TABLES, misplaced, texts
from mil.zoo.signing import signature_path
from mil.zoo.verify import recompute, report_differences
from mil.zoo.versions import CHANGELOG, change, changelog, check_version, next_patch, parse

logger = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def release(
    run: Path, version: str, out: Path, fold: int = 0, note: str | None = None, date: str | None = None
) -> Path:
    """Copy a checkpoint to `out/<tool>` as this version and return the folder; another version there is replaced.

    Golden predictions, the results of the release gates and a changelog are added to the checkpoint. If the cohort is
    simulated, so are the predictions and the table of patients; no table of real patients is ever copied.

    Args:
        run: Folder of a finished run.
        version: See `mil.zoo.versions`.
        out: Folder of released tools.
        fold: Which fold to release, if the run has several.
        note: What changed, for the changelog; by default what differs from the version before.
        date: Date for the changelog, YYYY-MM-DD; by default none, so that a release can be reproduced.

    Raises:
        ConfigError: if the version is malformed, already released, or too small a step for what changed.
        CheckpointError: if the run has no such checkpoint.
    """
    parse(version)
    source = _checkpoint_folder(run, fold)
    loaded = checkpoint.load(source)
    manifest = loaded.manifest.model_copy(update={"tool": loaded.manifest.tool.model_copy(update={"version": version})})
    name = manifest.tool.name
    if not NAME.fullmatch(name):
        raise CheckpointError(f"{source}: tool name {name!r}, expected letters, digits, - and _")
    place = out / name
    _recover(place)
    before = checkpoint.read_manifest(place) if (place / checkpoint.MANIFEST).is_file() else None
    changes = _changelog(before, manifest, place, note, date)
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f".{place.name}.{uuid4().hex}"
    try:
        with files.writing(place):
            shutil.copytree(source, draft)
        files.write(draft / CHANGELOG, changes)
        golden.write(loaded, draft)
        if (log := latest_log(source)).is_file():
            files.write(draft / EPOCHS, read_bytes(log))
        if before is not None and before.files.get(checkpoint.WEIGHTS) == loaded.manifest.files[checkpoint.WEIGHTS]:
            _copy_external(place, draft)
        if (run / FEDERATION).is_file():
            files.write(draft / FEDERATION, read_bytes(run / FEDERATION))
        if (run / STATEMENTS).is_file():  # people may have stated more since the run ended
            files.write(draft / STATEMENTS, read_bytes(run / STATEMENTS))
        if manifest.data.simulated:
            _copy_tables(run, draft, loaded.endpoint)
            _copy_states(run, draft, manifest.data.split.fold)
        describe_release(run, draft, loaded, manifest)
        checkpoint.seal(draft, manifest)
        _replace(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def describe_release(run_folder: Path, draft: Path, loaded: Checkpoint, manifest: Manifest) -> None:
    """Judge the gates and write report, card, XML and page with their results."""
    remarks = remarks_of(run_folder)
    for sentence in remarks or ():
        logger.warning("%s", sentence)
    report = read_report(draft / REPORT).model_copy(update={"remarks": remarks})
    run = open_run(run_folder)
    shutil.rmtree(draft / FIGURES, ignore_errors=True)  # those of a run are larger
    draw_figures(run, report, draft, manifest.data.split.fold)
    differing = report_differences(report, recompute(run, loaded, report), exact=True)
    results = gates(Evidence(run, manifest, report, differing, read_external(draft)))
    _write_texts(draft, manifest, loaded.endpoint, report.model_copy(update={"gates": tuple(results)}))


def _write_texts(draft: Path, manifest: Manifest, endpoint: Endpoint, report: Report) -> None:
    write_report(draft / REPORT, report)
    for name, text in texts(draft, manifest, endpoint, report).items():
        files.write(draft / name, text)


def attach_external(
    folder: Path,
    evaluated: EvaluatedCohort,
    stated: StatedCohort,
    run: Path | None = None,
    date: str | None = None,
) -> str:
    """Attach an evaluation on another cohort to a release, as its next patch version, and return that version.

    The card, its XML, the report page, the gates, the changelog and the index beside the release are written again;
    weights and everything that is fitted stay. A signature of the version before is removed.

    Args:
        folder: A released folder.
        evaluated: Its evaluation on the cohort.
        stated: What is known of the cohort.
        run: Folder of the run that was released, to compare patients.
        date: For the changelog, YYYY-MM-DD.

    Raises:
        ConfigError: if the cohort cannot be attached, see `mil.zoo.attach.attach`.
        CheckpointError: if the folder is not a release.
    """
    loaded = checkpoint.load(folder)
    check_attachable(loaded, stated, run)
    version = next_patch(loaded.manifest.tool.version)
    tool = loaded.manifest.tool.model_copy(update={"version": version})
    manifest = loaded.manifest.model_copy(update={"tool": tool})

    def rewrite(draft: Path) -> None:
        attached = read_external(draft)
        holds, sentence = external_verdict(attached, manifest.data.simulated)
        stored = read_report(draft / REPORT)
        name = list(GATES)[EXTERNAL_GATE - 1]
        judged = GateResult(number=EXTERNAL_GATE, name=name, holds=holds, sentence=sentence)
        others = [gate for gate in stored.gates if gate.number != EXTERNAL_GATE]
        report = stored.model_copy(update={"gates": (*others, judged)})
        older = (draft / CHANGELOG).read_text(encoding="utf-8")
        note = f"External validation on {stated.name}, n {evaluated.report.patients.get('n', 0)}. Same weights."
        files.write(draft / CHANGELOG, changelog(older, version, note, date))
        _write_texts(draft, manifest, loaded.endpoint, report)
        checkpoint.seal(draft, manifest)
        _replace(draft, folder)

    attach(loaded, evaluated, stated, rewrite, run)
    signature_path(folder).unlink(missing_ok=True)
    if is_index(folder.parent / INDEX):
        write_index(folder.parent)
    return version


def check_release(folder: Path, manifest: Manifest) -> None:
    """Check that a folder holds what a release holds.

    Raises:
        CheckpointError: if it is another checkpoint.
    """
    if misplaced(manifest):
        raise CheckpointError(f"{folder}: is not a release, expected a folder that mil release wrote")


def check_attachable(release: Checkpoint, stated: StatedCohort, run: Path | None = None) -> None:
    """Check what can be checked before a cohort is predicted.

    Raises:
        CheckpointError: if the checkpoint is no release.
        ConfigError: if a cohort of this name is attached, or the run is not the one that was released.
    """
    check_release(release.folder, release.manifest)
    if any(validation.cohort.key == stated.key for validation in read_external(release.folder)):
        raise ConfigError(f"--attach: a cohort named {stated.name} is attached, expected another --name")
    weights = release.manifest.files[checkpoint.WEIGHTS]
    if run is None:
        return
    folders = checkpoints_in(run).values()
    if weights not in {checkpoint.unverified(folder).files.get(checkpoint.WEIGHTS) for folder in folders}:
        raise ConfigError(
            f"--trained {run}: has other weights than {release.folder}, expected the run that was released"
        )


def _checkpoint_folder(run: Path, fold: int) -> Path:
    folder = checkpoints_in(run).get(fold)
    if folder is None:
        raise CheckpointError(f"{run}: no checkpoint of fold {fold}, expected a finished run")
    return folder


def _changelog(before: Manifest | None, manifest: Manifest, place: Path, note: str | None, date: str | None) -> str:
    """Return the changelog with the new version, after checking that it may be released."""
    version = manifest.tool.version
    if before is None:
        return changelog("", version, note or "First release.", date)
    if before.tool.version == version:
        raise ConfigError(f"{place}: version {version} is released already, expected a new one")
    check_version(before, manifest, version, str(place))
    path = place / CHANGELOG
    older = path.read_text(encoding="utf-8") if path.is_file() else ""
    return changelog(older, version, note or f"Another {change(before, manifest)[1]} than before.", date)


def _copy_tables(run: Path, draft: Path, endpoint: Endpoint) -> None:
    """Copy the tables of a simulated run, as far as a report reads them."""
    for name in TABLES:
        if (run / name).is_file():
            files.write(draft / name, read_bytes(run / name))
    for name in ("baseline.csv", "covariates.csv", "encoders.csv"):
        if (draft / name).is_file():
            table = without_marks(pd.read_csv(BytesIO(read_bytes(draft / name)), dtype=str, keep_default_na=False))
            files.write(draft / name, csv_text(table[table["role"] == "report"]))
    if (draft / "oracle.csv").is_file():
        truth = without_marks(pd.read_csv(BytesIO(read_bytes(draft / "oracle.csv")), dtype=str))
        files.write(draft / "oracle.csv", csv_text(truth[["patient", *endpoint.oracle_columns]]))


def _copy_external(before: Path, draft: Path) -> None:
    """Copy the external validations of the version before, which has the same weights."""
    if (before / FOLDER).is_dir():
        shutil.copytree(before / FOLDER, draft / FOLDER)


def _copy_states(run: Path, draft: Path, fold: int) -> None:
    """Copy what the run's other folds fitted, with which the report of all folds is made."""
    others = {number: state for number, state in read_states(run).items() if number != fold}
    if others:
        write_states(draft, others)


def _replace(draft: Path, place: Path) -> None:
    """Move the new version into place; the old one is deleted only afterwards."""
    if place.exists():
        place.rename(_set_aside(place))
    draft.rename(place)
    shutil.rmtree(_set_aside(place), ignore_errors=True)


def _recover(place: Path) -> None:
    """Restore the old version if a process was killed between the two renames of `_replace`."""
    if place.exists():
        shutil.rmtree(_set_aside(place), ignore_errors=True)
    elif _set_aside(place).exists():
        _set_aside(place).rename(place)


def _set_aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")

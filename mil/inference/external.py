"""Predict a labelled cohort that a checkpoint was not trained on; nothing is fitted to it.

The two exceptions are called by name: `with_new_cut` writes a copy of a checkpoint with a cut set on known positives of
a new site or scanner, and `with_new_calibration` one that is calibrated on patients of the new site.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pandas as pd

from mil import checkpoint as checkpoints
from mil import files
from mil.checkpoint import Checkpoint
from mil.cohort.clinical_table import Cohort
from mil.cohort.columns import Columns
from mil.endpoints.question import Question
from mil.errors import ConfigError, PredictionsError
from mil.features.formats import Reading
from mil.fitted.calibration_check import fit_where_it_helps
from mil.fitted.calibrators import LOCAL, Calibrator, calibrated_name, raw_and_calibrated
from mil.fitted.decision_rules import STATED, Decision, on_calibrated_columns, recalibrate
from mil.fitted.withholding import WITHHELD
from mil.inference.bad_slides import SKIPPED, OnBad
from mil.inference.predict import predict
from mil.tables import listed

logger = logging.getLogger(__name__)
EXTERNAL_FOLD = 0
"""The fold of a cohort that the checkpoint was not trained on."""


class Labelled(NamedTuple):
    """Predictions for patients whose targets are known."""

    table: pd.DataFrame
    """patient, fold 0, role report, targets, scores and what follows from them"""
    patients: pd.DataFrame
    """the clinical table, by patient"""
    withheld: int
    """patients without a result, who are not in `table`"""
    skipped: pd.DataFrame
    """slides that were left out as they cannot be used: `patient` and `skipped`, which names them and says why"""
    without_slides: int
    """patients with a label none of whose slides can be used, who are not in `table`"""
    slides: tuple[str, ...] = ()
    """of the patients in `table`"""


def labelled(
    checkpoint: Checkpoint,
    features: Path,
    cohort: Path,
    slides: Path | None = None,
    reading: Reading | None = None,
    on_bad: OnBad = "error",
    ids: Columns | None = None,
) -> Labelled:
    """Predict a cohort and return the predictions with its targets.

    Args:
        checkpoint: The model.
        features: Its feature files.
        cohort: The clinical table.
        slides: Table of slides, for a cohort table with one row for each patient.
        reading: How files that leave it open are read; None reads them as in training.
        on_bad: Whether slides that cannot be used are an error or left out.
        ids: What the tables call patients, slides and resolutions; None looks for common names.

    Raises:
        MilError: as in `predict`, or the table lacks the endpoint's columns.
        PredictionsError: no patient has a result.
    """
    endpoint = checkpoint.endpoint
    words = checkpoint.words_of(endpoint.columns)
    labels = Cohort.read(
        cohort,
        ids,
        labels=endpoint.columns,
        slides=slides,
        words=words,
        labelled=endpoint.has_target,
        declared=endpoint.declared_words,
    ).require()
    scores = predict(checkpoint, features, cohort, slides=slides, reading=reading, on_bad=on_bad, ids=ids).astype(
        {"patient": str}
    )
    scores = scores[scores["patient"].isin(labels.patients.index)].reset_index(drop=True)
    skipped = scores[["patient", SKIPPED]] if SKIPPED in scores else pd.DataFrame(columns=["patient", SKIPPED])
    unread = scores["tiles"] == 0
    scores = scores[~unread].drop(columns=SKIPPED, errors="ignore").reset_index(drop=True)
    withheld = scores.get(WITHHELD, pd.Series("", index=scores.index)) != ""
    results = scores[~withheld].reset_index(drop=True)
    if results.empty:
        raise PredictionsError(f"{cohort}: all {len(scores)} patients with a label are withheld, expected some results")
    targets = labels.patients.loc[results["patient"], list(endpoint.columns)].reset_index(drop=True)
    head = results[["patient"]].assign(fold=EXTERNAL_FOLD, role="report")
    table = pd.concat([head, targets, results.drop(columns=["patient", WITHHELD], errors="ignore")], axis=1)
    clinic = labels.table.drop(columns="slide").drop_duplicates("patient").set_index("patient")
    slides_read = labels.table.loc[labels.table["patient"].isin(set(table["patient"])), "slide"].astype(str)
    unusable = skipped[skipped[SKIPPED] != ""]
    slides_of = tuple(dict.fromkeys(slides_read))
    return Labelled(table, clinic, int(withheld.sum()), unusable, int(unread.sum()), slides_of)


def with_new_cut(
    checkpoint: Checkpoint,
    cohort: Labelled,
    out: Path,
    decision: str | None = None,
    sensitivity: float | None = None,
    confidence: float = 0.95,
) -> Decision:
    """Write a copy of the checkpoint whose decision is cut on the known positives of a cohort.

    Args:
        checkpoint: What is to be used at a new site.
        cohort: Its predictions there; patients who are not positive are ignored.
        out: A new folder.
        decision: Name of the decision, where there are several.
        sensitivity: Promised sensitivity; by default that of the tool's rule.
        confidence: How often the promise holds.

    Raises:
        ConfigError: the folder exists, or no such decision.
        PredictionsError: too few positives to carry the promise.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already, expected a new folder")
    manifest = checkpoint.manifest
    states = manifest.fitted.decisions
    chosen = _chosen(states, decision, checkpoint)
    question = _question(checkpoint, chosen)
    positives = cohort.table[question.truth(cohort.table.set_index("patient")) == 1]
    promised = sensitivity or chosen.rule.promises().get("sensitivity", 0.95)
    fresh = recalibrate(chosen, chosen.score(positives), promised, confidence)
    decisions = tuple(fresh if fitted.name == chosen.name else fitted for fitted in states)
    changed = manifest.model_copy(update={"fitted": manifest.fitted.model_copy(update={"decisions": decisions})})
    _copy(checkpoint, out, lambda place: checkpoints.seal(place, changed))
    return fresh


def with_new_calibration(checkpoint: Checkpoint, cohort: Labelled, out: Path, method: str) -> Calibrator:
    """Write a copy of the checkpoint whose probabilities or risks are calibrated on the patients of a cohort.

    Cuts at stated probabilities are then of the new calibration; cuts that patients set stay with the model's scores.

    Args:
        checkpoint: What is to be used at a new site.
        cohort: Its predictions there, with the targets.
        out: A new folder.
        method: As a tool's `calibration` names it.

    Raises:
        ConfigError: the folder exists, no such method for the endpoint, or a decision was cut on what is replaced.
        PredictionsError: too few patients, a score that does not rise with the truth, or a calibration that does not
            help by cross-validation.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already, expected a new folder")
    manifest = checkpoint.manifest
    choice = fit_where_it_helps(method, checkpoint.endpoint, cohort.table.set_index("patient"))
    if choice.calibrator is None:
        raise PredictionsError(choice.reason(method))
    fresh = choice.calibrator.model_copy(update={"on": LOCAL})
    states = manifest.fitted.decisions
    for decision in states:
        if decision.on != STATED and set(decision.columns) & set(map(calibrated_name, fresh.columns)):
            raise ConfigError(
                f"{checkpoint.folder}: decision {decision.name} was cut by {decision.on} on the calibration that it has"
                ", expected a checkpoint whose calibration is set before its cut"
            )
    decisions = tuple(on_calibrated_columns(decision, fresh) for decision in states)
    groups = tuple(on_calibrated_columns(group, fresh) for group in manifest.fitted.risk_groups)
    update = {"decisions": decisions, "calibration": fresh, "risk_groups": groups}
    fitted = manifest.fitted.model_copy(update={**update, "calibration_checks": choice.checks})
    changed = manifest.model_copy(update={"fitted": fitted})
    _copy(checkpoint, out, lambda place: checkpoints.seal(place, changed))
    return fresh


def _copy(checkpoint: Checkpoint, out: Path, finish: Callable[[Path], None]) -> None:
    """Copy the weights into a new folder and finish it; an interrupted copy leaves nothing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.{uuid4().hex}")
    try:
        with files.writing(out):
            fresh.mkdir()
            shutil.copy2(checkpoint.folder / checkpoints.WEIGHTS, fresh / checkpoints.WEIGHTS)
        finish(fresh)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _chosen(states: Sequence[Decision], name: str | None, checkpoint: Checkpoint) -> Decision:
    if name is None and len(states) == 1:
        return states[0]
    by_name = {decision.name: decision for decision in states}
    if name not in by_name:
        names = listed(list(by_name)) or "none"
        raise ConfigError(f"{checkpoint.folder}: decision {name or 'not named'}, expected one of {names}")
    return by_name[name]


def _question(checkpoint: Checkpoint, decision: Decision) -> Question:
    endpoint = checkpoint.endpoint
    classes = decision.rule.joint_classes()
    for question in endpoint.questions() if classes is None else [endpoint.joint_question(classes)]:
        if decision.columns in raw_and_calibrated(question.columns):
            return question
    raise ConfigError(f"{checkpoint.folder}: decision {decision.name} asks no yes-or-no question, expected one")

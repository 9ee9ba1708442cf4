"""A cohort with labels that a checkpoint was not trained on: scored, never learnt from.

What was fitted stays as it is. The two exceptions are asked for by name: `recalibrated` sets a cut anew from known
positives of a new site or scanner, and says what that promises; `put_right` fits probabilities or risks to what is true
of patients of the new place.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pandas as pd

from mil import checkpoint as checkpoints
from mil.checkpoint import Checkpoint
from mil.cohort.clinical_table import Cohort
from mil.endpoints.question import Question
from mil.errors import ConfigError, PredictionsError
from mil.features.formats import Reading
from mil.fitted import calibrators
from mil.fitted.calibrators import LOCAL, Calibrator, calibrated_name, raw_and_calibrated
from mil.fitted.decision_rules import STATED, Decision, on_calibrated_columns, recalibrate
from mil.fitted.withholding import WITHHELD
from mil.inference.predict import predict
from mil.tables import listed

logger = logging.getLogger(__name__)
EXTERNAL_FOLD = 0
"""The fold of a cohort that the checkpoint was not trained on."""


class Labelled(NamedTuple):
    """What a checkpoint says of patients whose targets are known."""

    table: pd.DataFrame
    """patient, fold 0, role report, targets and scores, and what follows from the scores"""
    patients: pd.DataFrame
    """everything that the clinical table says, by patient"""
    withheld: int
    """patients without a result, who are not in `table`"""


def labelled(
    checkpoint: Checkpoint, features: Path, cohort: Path, slides: Path | None = None, reading: Reading | None = None
) -> Labelled:
    """Scores of a cohort beside its targets.

    Raises:
        MilError: as in `predict`, or the table lacks the endpoint's columns.
        PredictionsError: no patient has a result.
    """
    endpoint = checkpoint.endpoint
    words = checkpoint.words_of(endpoint.columns)
    known = Cohort.read(
        cohort, labels=endpoint.columns, slides=slides, words=words, labelled=endpoint.has_target
    ).require()
    scores = predict(checkpoint, features, cohort, slides=slides, reading=reading).astype({"patient": str})
    scores = scores[scores["patient"].isin(known.patients.index)].reset_index(drop=True)
    out = scores.get(WITHHELD, pd.Series("", index=scores.index)) != ""
    kept = scores[~out].reset_index(drop=True)
    if kept.empty:
        raise PredictionsError(f"{cohort}: all {len(scores)} patients with a label are withheld, expected some results")
    targets = known.patients.loc[kept["patient"], list(endpoint.columns)].reset_index(drop=True)
    head = kept[["patient"]].assign(fold=EXTERNAL_FOLD, role="report")
    table = pd.concat([head, targets, kept.drop(columns=["patient", WITHHELD], errors="ignore")], axis=1)
    clinic = known.table.drop(columns="slide").drop_duplicates("patient").set_index("patient")
    return Labelled(table, clinic, int(out.sum()))


def recalibrated(
    checkpoint: Checkpoint,
    found: Labelled,
    out: Path,
    decision: str | None = None,
    sensitivity: float | None = None,
    confidence: float = 0.95,
) -> Decision:
    """Writes a copy of the checkpoint whose decision is cut at the known positives among `found`.

    Args:
        checkpoint: What is to be used at a new site.
        found: Its scores there; who is no positive is not looked at.
        out: A new folder.
        decision: Which, where there are several.
        sensitivity: What is promised; as the tool's rule has it where left out.
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
    positives = found.table[question.truth(found.table.set_index("patient")) == 1]
    asked = sensitivity or chosen.rule.promises().get("sensitivity", 0.95)
    fresh = recalibrate(chosen, chosen.score(positives), asked, confidence)
    decisions = tuple(fresh if one.name == chosen.name else one for one in states)
    changed = manifest.model_copy(update={"fitted": manifest.fitted.model_copy(update={"decisions": decisions})})
    _copied(checkpoint, out, lambda place: checkpoints.seal(place, changed))
    return fresh


def put_right(checkpoint: Checkpoint, found: Labelled, out: Path, method: str) -> Calibrator:
    """Writes a copy of the checkpoint whose probabilities or risks are calibrated by the patients of `found`.

    What is cut at a stated probability is cut at the new one; cuts that patients set stay with the model's own scores.

    Args:
        checkpoint: What is to be used at a new site.
        found: Its scores there, beside what is true.
        out: A new folder.
        method: As a tool's `calibration` names it.

    Raises:
        ConfigError: the folder exists, no such method for the endpoint, or a decision was cut on what is replaced.
        PredictionsError: too few patients, or a score that does not rise with the truth.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already, expected a new folder")
    manifest = checkpoint.manifest
    fresh = calibrators.fit(method, checkpoint.endpoint, found.table.set_index("patient")).model_copy(
        update={"on": LOCAL}
    )
    states = manifest.fitted.decisions
    for one in states:
        if one.on != STATED and set(one.columns) & set(map(calibrated_name, fresh.columns)):
            raise ConfigError(
                f"{checkpoint.folder}: decision {one.name} was cut by {one.on} on the calibration that it has, "
                "expected a checkpoint whose calibration is set before its cut"
            )
    decisions = tuple(on_calibrated_columns(one, fresh) for one in states)
    groups = tuple(on_calibrated_columns(one, fresh) for one in manifest.fitted.risk_groups)
    fitted = manifest.fitted.model_copy(update={"decisions": decisions, "calibration": fresh, "risk_groups": groups})
    changed = manifest.model_copy(update={"fitted": fitted})
    _copied(checkpoint, out, lambda place: checkpoints.seal(place, changed))
    return fresh


def _copied(checkpoint: Checkpoint, out: Path, finish: Callable[[Path], None]) -> None:
    """Whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.with_name(f".{out.name}.{uuid4().hex}")
    try:
        fresh.mkdir()
        shutil.copy2(checkpoint.folder / checkpoints.WEIGHTS, fresh / checkpoints.WEIGHTS)
        finish(fresh)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _chosen(states: Sequence[Decision], name: str | None, checkpoint: Checkpoint) -> Decision:
    names = listed([one.name for one in states]) or "none"
    if name is None and len(states) == 1:
        return states[0]
    found = [one for one in states if one.name == name]
    if not found:
        raise ConfigError(f"{checkpoint.folder}: decision {name or 'not named'}, expected one of {names}")
    return found[0]


def _question(checkpoint: Checkpoint, decision: Decision) -> Question:
    endpoint = checkpoint.endpoint
    positive = decision.rule.joint_classes()
    for one in endpoint.questions() if positive is None else [endpoint.joint_question(positive)]:
        if decision.columns in raw_and_calibrated(one.columns):
            return one
    raise ConfigError(f"{checkpoint.folder}: decision {decision.name} asks no yes-or-no question, expected one")

"""Explain the predictions of checkpoints and write the scores of the tiles."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mil import files
from mil.checkpoint import Checkpoint
from mil.cohort.columns import Columns
from mil.explain.explain_patients import Request, explain_patients
from mil.explain.faithfulness import FILE as EXPLAIN
from mil.explain.faithfulness import ExplainResult
from mil.explain.writers import FileChoices

logger = logging.getLogger(__name__)
__all__ = ["EXPLAIN", "explain_checkpoint"]


def explain_checkpoint(
    checkpoints: Sequence[Checkpoint],
    features: Path,
    out: Path,
    cohort: Path | None = None,
    slides: Path | None = None,
    request: Request | None = None,
    choices: FileChoices | None = None,
    columns: Columns | None = None,
) -> ExplainResult:
    """Explain patients and write files that other programs read and, last, `explain.json`.

    Args:
        checkpoints: The models; several give their mean and disagreement.
        features: Folder of feature files.
        out: Folder to write.
        cohort: Table of patients and slides.
        slides: Table of slides, for a cohort table with one row for each patient.
        request: What is explained, and how.
        choices: Which files for other programs are written, and where the scans are.
        columns: What the tables call patients, slides and resolutions; None looks for common names.

    Raises:
        MilError: features or cohort cannot be read or do not fit the tool, or the model lacks a method or an output.
    """
    request = request or Request()
    where = (features, cohort, slides)
    names, outputs, reference = list[str](), tuple[str, ...](), ""
    with _made(out), (choices or FileChoices()).files(out) as written:
        for scores in explain_patients(checkpoints, *where, request, None, columns, written.options.scans):
            written.write(scores)
            names.append(scores.patient)
            outputs, reference = tuple(each.name for each in scores.outputs), scores.reference
    for sentence in written.options.warnings:
        logger.warning("%s", sentence)
    manifest = checkpoints[0].manifest
    result = ExplainResult(
        tool=manifest.tool.name,
        model=manifest.model.name,
        simulated=manifest.data.simulated,
        methods=request.methods,
        outputs=outputs,
        reference=reference,
        patients=tuple(names),
        max_tiles=request.max_tiles or None,
    )
    files.write(out / EXPLAIN, result.model_dump_json(indent=2) + "\n")
    return result


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder, and remove a new one again if nothing was written before an error."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise

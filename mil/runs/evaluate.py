"""Evaluate a run again, a checkpoint on a new cohort, or a table of any software's predictions."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mil import files
from mil.checkpoint import Checkpoint
from mil.cohort.columns import Columns
from mil.endpoints.endpoint import Endpoint
from mil.features.feature_folders import paths_of
from mil.features.joined_store import open_store
from mil.findings import Finding, log_warnings
from mil.inference.bad_slides import OnBad
from mil.inference.external import labelled
from mil.inference.provenance import with_origin
from mil.output_places import check_output_folder
from mil.report.assemble import evaluate
from mil.report.evaluation import Evaluation
from mil.report.foreign_predictions import Foreign, read
from mil.report.prediction_columns import PredictionColumns
from mil.report.report_files import read_report
from mil.report.schema import NOT_OURS, About, PredictionWarning, Report
from mil.report.sections.discrimination import Discrimination
from mil.runs.describe import FIGURES, REPORT, describe, describe_run, external
from mil.runs.looks import FILE, count_look
from mil.runs.trained_patients import trained_patients
from mil.study.time_findings import OF_PREDICTIONS, of_times
from mil.study.tool import Tool
from mil.tables import SIMULATED_COLUMN, csv_text, says_simulated, stated_simulated

logger = logging.getLogger(__name__)
OF_PROBABILITIES = ("calibration", "utility", "conformal")
"""Sections that mean nothing where a score only orders patients."""
RESAMPLES = 2000
SKIPPED_FILE = "skipped.csv"


@dataclass(frozen=True)
class EvaluatedTable:
    """The report of a table, and how its columns were understood.

    Attributes:
        report: The report.
        notes: Sentences for the user: the kind of prediction, the classes, what was rescaled.
    """

    report: Report
    notes: tuple[str, ...]


def evaluate_run(folder: Path) -> Report:
    """Evaluate a run's stored predictions again and rewrite its report, figures and cards.

    Raises:
        ConfigError: The folder holds no finished run.
    """
    describe_run(folder, "evaluate")
    return read_report(folder / REPORT)


@dataclass(frozen=True, eq=False)
class EvaluatedCohort:
    """A checkpoint's report on a labelled cohort, and the predictions behind it.

    Attributes:
        report: The report.
        table: patient, targets, scores and what follows from them.
        simulated: Whether the cohort's table says that its patients are simulated.
        skipped: Patients with slides that were left out: `patient` and `skipped`, which says which and why.
        without_slides: Number of patients with a label who are not in the table as no slide of them can be used.
    """

    report: Report
    table: pd.DataFrame
    simulated: bool
    skipped: pd.DataFrame
    without_slides: int


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    cohort: Path,
    features: Path,
    slides: Path | None,
    out: Path,
    resamples: int = RESAMPLES,
    on_bad: OnBad = "error",
    ids: Columns | None = None,
) -> EvaluatedCohort:
    """Evaluate a checkpoint on a cohort that it was not trained on; nothing is fitted to the cohort.

    An earlier evaluation in the same folder is replaced and counted as a look: the checkpoint itself cannot count them.

    Args:
        checkpoint: Loaded.
        cohort: Clinical table with labels.
        features: Feature files of the cohort.
        slides: Table of slides, if the cohort has one row per patient.
        out: Folder for predictions.csv, report.json, report.html and figures.
        resamples: Bootstrap resamples.
        on_bad: Whether slides that cannot be used are an error or left out; `skipped.csv` then names them.
        ids: What the tables call patients, slides and resolutions; None looks for common names.

    Raises:
        MilError: `out` holds something else, or checkpoint, features and cohort do not fit.
    """
    check_output_folder(out, [cohort, *paths_of(features), slides, checkpoint.folder], FILE)
    predictions = labelled(checkpoint, features, cohort, slides, on_bad=on_bad, ids=ids)
    evaluation, report = external(checkpoint, predictions, resamples)
    table = with_origin(predictions.table, [checkpoint])
    table[SIMULATED_COLUMN] = report.about.simulated  # the cohort may be, where the weights are not
    files.write(out / "predictions.csv", csv_text(table))
    (out / SKIPPED_FILE).unlink(missing_ok=True)
    if len(predictions.skipped):
        files.write(out / SKIPPED_FILE, csv_text(predictions.skipped))
    store = open_store(features, checkpoint.encoder, (), checkpoint.reading)
    remarks = trained_patients(checkpoint.folder, set(predictions.table["patient"]), store, predictions.slides)
    for sentence in remarks:
        logger.warning("%s", sentence)
    report = report.model_copy(update={"looks": count_look(out, "evaluate --cohort"), "remarks": remarks or None})
    shutil.rmtree(out / FIGURES, ignore_errors=True)
    describe(evaluation, report, out, f"{checkpoint.manifest.tool.title}, on {cohort.name}")
    return EvaluatedCohort(
        report,
        predictions.table,
        says_simulated(predictions.patients),
        predictions.skipped,
        predictions.without_slides,
    )


def evaluate_table(
    path: Path, columns: PredictionColumns, out: Path | None = None, resamples: int = RESAMPLES
) -> EvaluatedTable:
    """Evaluate a table of any software's predictions; every further column may be a subgroup.

    Of scores that are not probabilities only the ranks are used.

    Args:
        path: CSV or Excel file.
        columns: What its columns are.
        out: Folder for report.json, report.html and figures; None writes nothing.
        resamples: Bootstrap resamples.

    Raises:
        ConfigError: Columns that do not go together, or `out` holds something else.
        PredictionsError: A column is missing, or holds values that cannot be scored.
    """
    if out is not None:
        check_output_folder(out, [path], REPORT)
    table = read(path, columns)
    log_warnings(_of_times(table))
    tool = Tool(name=path.name, decision=table.decision)
    evaluation = Evaluation.refitted(table.table, table.endpoint, tool, table.patients, resamples)
    about = About(tool=path.name, simulated=stated_simulated(table.patients), model=NOT_OURS)
    report = evaluate(evaluation, about)
    if table.ranks is not None:
        report = _of_ranks(report, table.endpoint.metric, table.ranks)
    if out is not None:
        describe(evaluation, report, out, f"Predictions in {path.name}")
    return EvaluatedTable(report, tuple(table.notes))


def _of_times(foreign: Foreign) -> list[Finding]:
    rows = foreign.table.drop_duplicates("patient").set_index("patient")
    return of_times(foreign.endpoint, rows, foreign.endpoint.encode(rows), OF_PREDICTIONS)


def evaluate_predictions(
    predictions: pd.DataFrame,
    endpoint: Endpoint,
    patients: pd.DataFrame | None = None,
    out: Path | None = None,
    resamples: int = RESAMPLES,
) -> Report:
    """Evaluate a table as `predictions.csv` has it.

    Args:
        predictions: patient, the endpoint's targets and scores; `fold` (0) and `role` (report) may be absent.
        endpoint: What the scores predict.
        patients: Clinical table indexed by patient, for subgroups.
        out: Folder for report.json, report.html and figures; None writes nothing.
        resamples: Bootstrap resamples.

    Raises:
        ConfigError: `out` holds something else.
        PredictionsError: A column is missing, or holds values that cannot be scored.
    """
    if out is not None:
        check_output_folder(out, [], REPORT)
    table = predictions.copy()
    table["fold"] = predictions.get("fold", 0)
    table["role"] = predictions.get("role", "report")
    evaluation = Evaluation.refitted(table, endpoint, Tool(), patients, resamples)
    report = evaluate(evaluation, About(simulated=stated_simulated(predictions), model=NOT_OURS))
    if out is not None:
        describe(evaluation, report, out, "Predictions")
    return report


def _of_ranks(report: Report, metric: str, warning: PredictionWarning) -> Report:
    """Return the report without what needs probabilities, and with the warning that says so."""
    sections = {key: section for key, section in report.sections.items() if key not in OF_PROBABILITIES}
    if (areas := report.section(Discrimination)) is not None:
        sections[Discrimination.key] = Discrimination(questions=areas.questions)
    warnings = (warning, *(each for each in report.warnings if each.code == "inverse"))
    return report.model_copy(
        update={"metrics": {metric: report.metrics[metric]}, "warnings": warnings, "sections": sections}
    )

"""The run folder of one hospital: its own patients' predictions by the common model, report and card."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pandas as pd

from mil import checkpoint, files
from mil.federation.prepared_fold import PreparedFold
from mil.fitted.state import FittedState
from mil.inference.external import EXTERNAL_FOLD
from mil.manifest import Manifest
from mil.report.assemble import evaluate
from mil.report.evaluation import Evaluation
from mil.report.report_files import read_report
from mil.report.schema import About, Estimate, Report
from mil.report.sections.calibration import Calibration
from mil.report.sections.time_to_event import TimeToEvent
from mil.runs.describe import REPORT, describe_run
from mil.runs.fit_run import write_inputs
from mil.runs.run import one_row_per_patient
from mil.runs.run_inputs import CONFIG
from mil.splits.folds import Split
from mil.storage import read_bytes
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.tables import csv_text


def write_fold(
    folder: Path, prepared: PreparedFold, manifest: Manifest, config: RunConfig, split: Split
) -> dict[str, int]:
    """Write a fold's checkpoint and the predictions of the hospital's patients; return the reported patients' number.

    Args:
        folder: Of the hospital's run.
        prepared: The fold, at the final weights.
        manifest: Of the common checkpoint.
        config: With the hospital's own files.
        split: Roles of the hospital's patients.
    """
    study = prepared.study
    if not (folder / CONFIG).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_inputs(config, study, split, folder)
    several = len(split.folds) > 1
    place = folder / f"fold_{prepared.fold.number}" if several else folder
    roles = [role for role in ("train", "select", "report") if role in prepared.fold.data]
    table = pd.concat([prepared.table(role).reset_index() for role in roles])
    checkpoint.save(place / "checkpoint", prepared.model.cpu().eval(), manifest)
    files.write(place / "predictions.csv", csv_text(table))
    if several:
        done = sorted(folder.glob("fold_*/predictions.csv"))
        tables = [pd.read_csv(BytesIO(read_bytes(path)), dtype=str, keep_default_na=False) for path in done]
        files.write(folder / "predictions.csv", csv_text(pd.concat(tables)))
    return {role: prepared.patients(role) for role in roles}


def describe_site(folder: Path) -> Report:
    """Write the report, page and cards of the hospital's run, and return the report."""
    describe_run(folder)
    return read_report(folder / REPORT)


def external_report(prepared: PreparedFold, fitted: FittedState, config: RunConfig, resamples: int) -> Report:
    """Return the report of all patients of a hospital that the model was not trained on."""
    study = prepared.study
    roles = [role for role in ("train", "select", "report") if role in prepared.fold.data]
    rows = [prepared.table(role).reset_index() for role in roles]
    table = pd.concat(rows).assign(fold=EXTERNAL_FOLD, role="report").sort_values("patient", ignore_index=True)
    evaluation = Evaluation.of(
        table,
        prepared.fold.endpoint,
        config.tool,
        _clinical(study),
        resamples,
        config.seed,
        {EXTERNAL_FOLD: fitted},
    )
    about = About(tool=config.tool.name, simulated=study.simulated, external=True)
    return evaluate(evaluation, about, ())


def _clinical(study: Study) -> pd.DataFrame:
    return one_row_per_patient(study.cohort.table)


def site_metrics(report: Report, metric: str) -> dict[str, Estimate]:
    """Return what a site tells of its report patients: the main metric, calibration slope, observed over expected."""
    metrics = {metric: report.metrics[metric]} if metric in report.metrics else {}
    calibration, follow_up = report.section(Calibration), report.section(TimeToEvent)
    questions = () if calibration is None else calibration.questions
    for question in questions:
        suffix = "" if len(questions) == 1 else f" {question.name}"
        if question.slope is not None:
            metrics[f"calibration slope{suffix}"] = question.slope
    for horizon in () if follow_up is None else follow_up.calibration:
        if horizon.slope is not None:
            metrics[f"calibration slope {horizon.horizon}"] = horizon.slope
        if horizon.observed_expected is not None:
            metrics[f"observed over expected {horizon.horizon}"] = horizon.observed_expected
    return {name: estimate for name, estimate in metrics.items() if estimate.value is not None}


def safe_metrics(metrics: Mapping[str, Estimate], reported: int, minimum: int) -> dict[str, Estimate]:
    """Return the estimates that rest on enough patients, without counts that are below the minimum."""
    enough = {name: each for name, each in metrics.items() if (each.n or reported) >= minimum}
    return {
        name: each.model_copy(
            update={
                "counts": {key: n for key, n in each.counts.items() if n >= minimum or n == 0},
                "folds": (),
                "caveat": None,
            }
        )
        for name, each in enough.items()
    }

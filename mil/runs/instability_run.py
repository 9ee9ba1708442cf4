"""Prediction instability of a run: how much its models differ about the same patients.

Which models may be compared about a patient: only those whose weights were not fitted to that patient. Within a run
these are the model that reports the patient and those that selected their epoch on them; with repeats, or runs of other
seeds, there are more. On a cohort that the run was not trained on, all models of the run predict all patients.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil import checkpoint, files
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.features.feature_folders import paths_of
from mil.inference.predict import predict
from mil.output_places import check_output_folder
from mil.report.figures.style import save, styled
from mil.report.sections.prediction_instability import FILE, FOLDER, InstabilityResult, ScoreInstability
from mil.runs.describe import REPORT, add_measured
from mil.runs.instability_plot import draw_instability
from mil.runs.run import Run, open_run
from mil.runs.run_inputs import with_recorded
from mil.runs.states import checkpoints_in
from mil.stats.instability import FEWEST, Floats, prediction_instability
from mil.tables import csv_text

QUANTILES = (0.5, 0.9)
MORE = "Models trained on samples of patients that share none would differ more: these errors are lower bounds."


def evaluate_instability(
    folder: Path,
    seeds: Sequence[Path] = (),
    cohort: Path | None = None,
    features: Path | None = None,
    slides: Path | None = None,
    out: Path | None = None,
) -> InstabilityResult:
    """Compare the models of a run, and write `instability.json`, a table of patients and a figure.

    In the run's own folder it becomes a section of the run's report, page and cards.

    Args:
        folder: Of the run.
        seeds: Of further runs of the same tool, model and cohort, with other seeds.
        cohort: Table of patients that none of the models was trained on; None compares the runs' own predictions.
        features: Their feature files.
        slides: Table of slides, for a cohort with one row per patient.
        out: Folder to write; None: `instability` in the run.

    Raises:
        ConfigError: runs that do not belong together, or no patient has two models.
        MilError: `out` holds something else, or cohort and features do not fit the checkpoints.
    """
    place = folder / FOLDER if out is None else out
    check_output_folder(place, [cohort, *paths_of(features), slides, *with_recorded([folder, *seeds])], FILE)
    runs = [open_run(each) for each in (folder, *seeds)]
    _check_same(runs)
    if cohort is not None and features is not None:
        tables, left_out = _on_cohort(runs, cohort, features, slides)
        source = _cohort_sentence(len(tables), left_out)
    else:
        tables = [table for run in runs for table in _own_tables(run)]
        source = ""
    endpoint = runs[0].endpoint
    names = sorted({name for table in tables for name in table.index})
    matrices = {name: _matrix(name, tables, names, endpoint) for name in _columns(endpoint, tables[0])}
    if not matrices:
        raise ConfigError("--instability: scores that only order patients cannot be compared, expected a horizon")
    scores, patients = [], pd.DataFrame({"patient": names})
    for name, matrix in matrices.items():
        result = prediction_instability(matrix)
        scores.append(_summary(name, result.models, result.error))
        patients[f"{name}: models"], patients[f"{name}: mean"] = result.models, result.mean
        patients[f"{name}: error"] = result.error
    shared = _shared_training(runs)
    instability = InstabilityResult(
        tool=runs[0].tool.name,
        simulated=runs[0].simulated,
        models=len(tables),
        shared_training=shared,
        source=source or _run_sentence(runs, len(tables), scores[0], shared),
        scores=tuple(scores),
    )
    files.write_json(place / FILE, instability.model_dump(mode="json"))
    files.write(place / "instability.csv", csv_text(patients))
    with styled():
        save(draw_instability(matrices, instability.simulated), place, FOLDER)
    if place == folder / FOLDER and (folder / REPORT).is_file():
        add_measured(folder)
    return instability


def _check_same(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        same = (run.tool.name, run.endpoint.columns, run.model) == (
            first.tool.name,
            first.endpoint.columns,
            first.model,
        )
        if not same:
            raise ConfigError(f"{run.folder}: another tool or model than {first.folder}, expected another seed of it")


def _own_tables(run: Run) -> Iterator[pd.DataFrame]:
    """Yield each model's predictions of patients that its weights were not fitted to, indexed by patient."""
    table = run.tables["predictions"]
    for _, rows in table[table["role"] != "train"].groupby("fold", sort=True):
        yield rows.assign(patient=rows["patient"].astype(str)).drop_duplicates("patient").set_index("patient")


def _on_cohort(
    runs: Sequence[Run], cohort: Path, features: Path, slides: Path | None
) -> tuple[list[pd.DataFrame], int]:
    """Return every model's predictions of a cohort without the runs' own patients, and how many of these there were."""
    own_patients = {str(name) for run in runs for name in run.tables["predictions"]["patient"]}
    places = [place for run in runs for place in checkpoints_in(run.folder).values()]
    tables, left_out = [], 0
    for place in places:
        table = predict(checkpoint.load(place), features, cohort, slides=slides).astype({"patient": str})
        table = table.set_index("patient")
        left_out = int(table.index.isin(own_patients).sum())
        tables.append(table[~table.index.isin(own_patients)])
    if not tables:
        raise ConfigError(f"{runs[0].folder}: holds no checkpoint, expected a finished run")
    return tables, left_out


def _columns(endpoint: Endpoint, table: pd.DataFrame) -> list[str]:
    """Return the numbers that can be compared between models: probabilities, risks at horizons, values."""
    parts = list(endpoint.parts().values()) or [endpoint]
    names = [question.name for part in parts for question in part.questions()]
    names += [part.value_column for part in parts if part.value_column is not None]
    views = [view for part in parts if (view := part.survival) is not None]
    return names + [column for view in views for column in view.risk_columns().values() if column in table]


def _matrix(name: str, tables: Sequence[pd.DataFrame], names: Sequence[str], endpoint: Endpoint) -> Floats:
    """Return the number of this name by model and patient, `(m, p)`; NaN where a model has none."""
    parts = list(endpoint.parts().values()) or [endpoint]
    question = next((each for part in parts for each in part.questions() if each.name == name), None)
    rows = []
    for table in tables:
        values = table[name].to_numpy(np.float64) if question is None else question.probability(table)
        rows.append(pd.Series(values, index=table.index).reindex(list(names)).to_numpy(np.float64))
    return np.stack(rows)


def _summary(name: str, models: NDArray[np.int64], error: Floats) -> ScoreInstability:
    enough = models >= FEWEST
    if not enough.any():
        raise ConfigError(
            f"--instability: no patient has {FEWEST} models that were not trained on them, expected folds with a "
            "selection part, --seeds, or --cohort"
        )
    middle, ninth = np.quantile(error[enough], QUANTILES).tolist()
    return ScoreInstability(
        name=name,
        n=int(enough.sum()),
        fewest_models=int(models[enough].min()),
        most_models=int(models.max()),
        mean_error=float(error[enough].mean()),
        median_error=middle,
        ninth_decile=ninth,
    )


def _shared_training(runs: Sequence[Run]) -> float | None:
    """Return the share of training patients that two models have in common, mean over pairs; None for one model."""
    trained = []
    for run in runs:
        table = run.tables["predictions"]
        trained += [set(rows["patient"].astype(str)) for _, rows in table[table["role"] == "train"].groupby("fold")]
    pairs = [len(first & second) / min(len(first), len(second)) for first, second in combinations(trained, 2)]
    return float(np.mean(pairs)) if pairs else None


def _run_sentence(runs: Sequence[Run], models: int, score: ScoreInstability, shared: float | None) -> str:
    fewest, most = score.fewest_models, score.most_models
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    seeds = f" of {len(runs)} seeds" if len(runs) > 1 else ""
    common = "" if shared is None else f" Two models share {shared:.0%} of their training patients."
    return (
        f"{models} models{seeds}; each patient is predicted by the {each} whose weights were not fitted to them "
        f"(some chose their epoch on them).{common} {MORE}"
    )


def _cohort_sentence(models: int, left_out: int) -> str:
    excluded = f" {left_out} patients of the run are left out." if left_out else ""
    return f"All {models} models predict all patients of a cohort that none was trained on.{excluded} {MORE}"

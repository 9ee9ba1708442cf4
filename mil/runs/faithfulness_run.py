"""Measure on a run's report patients how far explanations can be believed, by models not trained on the patient."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mil import checkpoint
from mil.checkpoint import Checkpoint
from mil.errors import ConfigError
from mil.explain.call_cuts import call_cuts
from mil.explain.explain_patients import Cohort, Request, check_output, explained_model, read_bag
from mil.explain.faithfulness import Faithfulness
from mil.explain.measure_faithfulness import (
    BagMeasures,
    FaithfulnessMeter,
    TrueTiles,
    discriminant,
    faithfulness_of,
)
from mil.explain.methods import scorers_of
from mil.explain.reference_tile import reference_of
from mil.progress import counted
from mil.runs.run import Run
from mil.runs.run_bags import bags_of_run, in_order_of_folds, patients_by_fold
from mil.runs.states import checkpoints_in
from mil.storage import read_bytes
from mil.study.source import StudySource, source_of

MOST = 40
"""Report patients that are measured unless told otherwise."""
_TAUGHT = 20
"""Training patients whose tiles the oracle learns from."""
BIOMARKER = "biomarker"
"""What names of simulated tissue contain that carries what is predicted."""
Telling = dict[str, NDArray[np.bool_]]


def run_faithfulness(run: Run, request: Request | None = None, most: int = MOST) -> Faithfulness:
    """Return how far each method's maps can be believed, measured on report patients of a run.

    Args:
        run: A finished run with its checkpoints.
        request: Methods and the only patients, if not all.
        most: Measure no more patients, drawn at random.

    Raises:
        ConfigError: the run has no configuration or no checkpoints.
        MilError: the features of the run cannot be read any more.
    """
    request = request or Request()
    return faithfulness_of(measure_patients(run, measured_patients(run, request, most), request))


def measured_patients(run: Run, request: Request, most: int) -> list[str]:
    """Return the report patients that are measured, those of a fold together, drawn at random if there are more."""
    reported = run.evaluation().reported
    if request.patients is not None:
        reported = reported[reported.index.isin(list(request.patients))]
    if len(reported) > most:
        rows = np.random.default_rng(run.seed).choice(len(reported), most, replace=False)
        reported = reported.iloc[np.sort(rows)]
    return in_order_of_folds(reported)


def measure_patients(run: Run, patients: Sequence[str], request: Request) -> list[BagMeasures]:
    """Return the measures of the maps of report patients, each by the model of the first fold that reports the patient.

    Args:
        run: A finished run with its checkpoints.
        patients: Some of `measured_patients`.
        request: Methods and their options.

    Raises:
        ConfigError: the run has no configuration or no checkpoints.
        MilError: the features of the run cannot be read any more.
    """
    if run.config is None or not (places := checkpoints_in(run.folder)):
        raise ConfigError(f"{run.folder}: holds no config.yaml or no checkpoints, expected a run with its models")
    source, meter = source_of(run.config), FaithfulnessMeter(scorers_of(request.methods), request.options)
    allow = (run.model, run.config.tool.endpoint.target)
    for fold, names in patients_by_fold(run.evaluation().reported, patients):
        loaded = checkpoint.load(places[fold], allow)
        cohort = bags_of_run(loaded, source, names)
        model = explained_model(loaded, reference_of(loaded, cohort.dataset))
        check_output(model, request.output)
        cuts = call_cuts(loaded.endpoint, loaded.manifest.fitted)
        outputs = [output.name for output in model.outputs]
        oracle = None if source.truth is None else _Oracle(run, fold, source, loaded, outputs)
        rows = cohort.bags["patient"].reset_index(drop=True).sort_values(kind="stable")
        for row, patient in counted(rows.items(), f"measuring maps of fold {fold}", len(rows)):
            bag = read_bag(cohort.dataset, int(str(row)))
            truth = None if oracle is None else oracle.of(cohort, int(str(row)), bag.features)
            meter.add(model, str(patient), bag, truth, cuts)
    return meter.measures


class _Oracle:
    """What is known of the tiles of a simulated cohort, and discriminants fitted to tiles of training patients."""

    def __init__(self, run: Run, fold: int, source: StudySource, loaded: Checkpoint, outputs: Sequence[str]) -> None:
        assert source.truth is not None
        self._truth, self._outputs = source.truth, list(outputs)
        table = run.tables["predictions"]
        taught = table[(table["fold"] == fold) & (table["role"] == "train")]["patient"].astype(str)
        cohort = bags_of_run(loaded, source, list(taught)[:_TAUGHT])
        features, masks = list[torch.Tensor](), list[Telling]()
        for row in range(len(cohort.bags)):
            features.append(read_bag(cohort.dataset, row).features)
            masks.append(self._telling(cohort, row))
        self._directions = dict[str, torch.Tensor]()
        for output in outputs:
            telling = np.concatenate([mask[output] for mask in masks])
            if telling.any() and not telling.all():
                self._directions[output] = discriminant(torch.cat(features), telling)

    def of(self, cohort: Cohort, row: int, features: torch.Tensor) -> TrueTiles:
        """Return what is known of the tiles of a bag."""
        oracle = {name: (features.double() @ way).numpy() for name, way in self._directions.items()}
        return TrueTiles(telling=self._telling(cohort, row), oracle=oracle)

    def _telling(self, cohort: Cohort, row: int) -> Telling:
        slides = list(cohort.dataset.slides[row])
        phenotypes = np.concatenate([phenotypes_of(self._truth, slide) for slide in slides])
        return {output: telling_tiles(output, phenotypes) for output in self._outputs}


def phenotypes_of(truth: Path, slide: str) -> NDArray[np.str_]:
    """Return the kind of tissue of each tile of a simulated slide, `(n,)`."""
    table = pd.read_csv(BytesIO(read_bytes(truth / "phenotypes" / f"{slide}.csv")), dtype={"phenotype": str})
    return table["phenotype"].to_numpy(dtype=np.str_)


def telling_tiles(output: str, phenotypes: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return which tiles carry what an output is about, `(n,)`.

    Where classes or labels have separate biomarkers (`biomarker:ER`), those of the output's name; in a cohort of
    several targets (`msi:biomarker`), those of the output's endpoint.
    """
    kinds = {str(kind) for kind in phenotypes if BIOMARKER in kind}
    endpoint, separator, name = output.partition(": ")
    if separator and any(kind.startswith(f"{endpoint}:") for kind in kinds):
        kinds = {kind for kind in kinds if kind.startswith(f"{endpoint}:")}
    else:
        name = output
    if any(kind.rpartition(BIOMARKER)[2] for kind in kinds):
        kinds = {kind for kind in kinds if kind.endswith(f"{BIOMARKER}:{name}")}
    return np.isin(phenotypes, sorted(kinds))

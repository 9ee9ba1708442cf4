"""What a checkpoint's manifest says of the fit that made it."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import JsonValue

import mil
from mil import files
from mil import manifest as manifests
from mil.fitted.novelty import Packed
from mil.fitted.state import FittedState
from mil.manifest import Clinical, DataRecord, Manifest, SelectionRecord, SimulationRecord, SplitRecord, TrainingRecord
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import members_of
from mil.splits.folds import Split
from mil.study import build
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.training.fold import Fold

PRIVATE = ("cohort", "slides", "features", "file", "cache", "cache_dtype", "cache_gib")
"""Where a site keeps its files is nobody else's business."""


class Outcome(NamedTuple):
    """What only the finished fit knows."""

    epochs: int
    best_epochs: list[int]
    """whose weights count, counted from one, that of the lowest loss first; empty: the last one"""
    precision: str
    mean_tile: Packed | None = None
    """mean features of the training tiles"""


def manifest(
    config: RunConfig,
    study: Study,
    split: Split,
    fold: Fold,
    model: MILModel,
    *,
    fitted: FittedState,
    outcome: Outcome,
) -> Manifest:
    """Return the manifest of a fit, without the digests of the files."""
    widths = build.sizes(config, study.encoder.dim, fold.endpoint)
    return Manifest(
        tool=config.tool,
        model=manifests.part(members_of(model)[0], widths | config.model.options.arguments()),
        members=config.model.options.members,
        endpoint=manifests.endpoint_part(fold.endpoint, config.tool.endpoint.options.keywords()),
        covariates=_clinical(fold, model),
        fitted=fitted,
        encoder=manifests.encoder_record(study.encoder, study.store.verified, config.model.options.encoders),
        data=_data(config, study, split, fold, outcome),
        training=_training(config, model, outcome),
    )


def _data(config: RunConfig, study: Study, split: Split, fold: Fold, outcome: Outcome) -> DataRecord:
    slides = config.data.slides
    return DataRecord(
        simulated=study.simulated,
        simulation=None if study.truth is None else SimulationRecord.model_validate(config.simulation.plain()),
        cohort_sha256=files.sha256(study.source),
        slides_sha256=None if slides is None else files.sha256(Path(slides).expanduser()),
        patients={role: fold.endpoint.counts(data.target) for role, data in fold.data.items()},
        flow=study.flow,
        bag=config.data.bag,
        geometry=study.store.geometry,
        reading=study.store.reading,
        split=SplitRecord(strategy=_public(config.split.plain()), sha256=split.digest(), fold=fold.number),
        mean_tile=outcome.mean_tile,
    )


def _training(config: RunConfig, model: MILModel, outcome: Outcome) -> TrainingRecord:
    return TrainingRecord(
        epochs=outcome.epochs,
        best_epoch=outcome.best_epochs[0] if outcome.best_epochs else None,
        averaged_epochs=outcome.best_epochs[1:],
        selection=None if model.solved else SelectionRecord(**config.selection.model_dump()),
        precision=outcome.precision,
        seed=config.seed,
        threads=torch.get_num_threads(),
        parameters=sum(weight.numel() for weight in model.parameters()),
        optimizer=config.optimizer.plain(),
        schedule=config.schedule.plain(),
        data=_public(config.data.plain()),
        versions={
            "mil-zoo": mil.__version__,
            "torch": torch.__version__,
            "lightning": version("lightning"),
            "python": platform.python_version(),
        },
    )


def _clinical(fold: Fold, model: MILModel) -> Clinical | None:
    covariates = fold.covariates
    if covariates is None or not isinstance(model, Fused):
        return None
    return Clinical(
        numeric=list(covariates.numeric),
        categorical={name: list(levels) for name, levels in covariates.categorical.items()},
        fusion=model.fusion,
        embed_dim=model.embed_dim,
        state=covariates.state(),
    )


def _public(options: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in options.items() if key not in PRIVATE}

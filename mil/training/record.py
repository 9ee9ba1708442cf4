"""What a checkpoint's manifest says of the fit that made it."""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

import mil
from mil import files
from mil import manifest as manifests
from mil.fitted.state import FittedState
from mil.manifest import Clinical, Manifest
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel
from mil.splits.folds import Split
from mil.study import build
from mil.study.config import RunConfig
from mil.study.study import Study
from mil.training.fold import Fold

PRIVATE = ("cohort", "slides", "features", "file")
"""Where a site keeps its files is nobody else's business."""


def manifest(
    config: RunConfig,
    study: Study,
    split: Split,
    fold: Fold,
    model: MILModel,
    *,
    fitted: FittedState,
    outcome: dict[str, object],
) -> Manifest:
    """The manifest, but for the files' digests.

    `outcome` is what only the finished fit knows of itself.
    """
    bare = model.inner if isinstance(model, Fused) else model
    widths = build.sizes(config, study.encoder.dim, fold.endpoint)
    return Manifest(
        tool=config.tool,
        model=manifests.part(bare, widths | config.model.options.keywords()),
        endpoint=manifests.endpoint_part(fold.endpoint, config.tool.endpoint.options.keywords()),
        covariates=_clinical(fold, model),
        fitted=fitted,
        encoder=manifests.encoder_record(study.encoder, study.store.verified),
        data=_data(config, study, split, fold),
        training=outcome | _training(config, model),
    )


def _data(config: RunConfig, study: Study, split: Split, fold: Fold) -> dict[str, object]:
    simulated = study.truth is not None
    slides = config.data.slides
    return {
        "simulated": simulated,
        "simulation": config.simulation.plain() if simulated else None,
        "cohort_sha256": files.sha256(study.source),
        "slides_sha256": None if slides is None else files.sha256(Path(slides).expanduser()),
        "patients": {role: fold.endpoint.counts(data.target) for role, data in fold.data.items()},
        "bag": config.data.bag,
        "geometry": asdict(study.store.geometry),
        "reading": asdict(study.store.reading),
        "split": {"strategy": _public(config.split.plain()), "sha256": split.digest(), "fold": fold.number},
    }


def _training(config: RunConfig, model: MILModel) -> dict[str, object]:
    return {
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "optimizer": config.optimizer.plain(),
        "schedule": config.schedule.plain(),
        "data": _public(config.data.plain()),
        "versions": {
            "mil-zoo": mil.__version__,
            "torch": torch.__version__,
            "lightning": version("lightning"),
            "python": platform.python_version(),
        },
    }


def _clinical(fold: Fold, model: MILModel) -> Clinical | None:
    beside = fold.covariates
    if beside is None or not isinstance(model, Fused):
        return None
    return Clinical(
        numeric=list(beside.numeric),
        categorical={name: list(levels) for name, levels in beside.categorical.items()},
        fusion=model.fusion,
        embed_dim=model.embed_dim,
        state=beside.state(),
    )


def _public(options: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in options.items() if key not in PRIVATE}

"""What a checkpoint's manifest says of the fit that made it."""

import platform
from importlib.metadata import version

import torch
from omegaconf import DictConfig

import mil
from mil import build, checkpoint, files
from mil.build import Study
from mil.checkpoint import Manifest
from mil.data.splits import Split
from mil.models.base import MILModel
from mil.training.fold import Fold

PRIVATE = ("cohort", "features", "file")
"""Where a site keeps its files is nobody else's business."""


def manifest(
    config: DictConfig,
    study: Study,
    split: Split,
    fold: Fold,
    model: MILModel,
    *,
    threshold: float | None,
    outcome: dict[str, object],
) -> Manifest:
    """The manifest, but for the files' digests; `outcome` is what only the finished fit knows of itself."""
    widths = {"in_dim": study.encoder.dim, "out_dim": fold.endpoint.out_dim}
    simulated = study.truth is not None
    return Manifest(
        tool=build.plain(config.tool),
        model=checkpoint.part(model, widths | build.options(config.model)),
        endpoint=checkpoint.part(fold.endpoint, build.options(config.tool.endpoint)),
        fitted={
            "endpoint": fold.endpoint.state(),
            "endpoint_on": "train",
            "threshold": threshold,
            "threshold_rule": build.plain(config.tool.decision) if config.tool.decision else None,
            "threshold_on": "select",
        },
        encoder=checkpoint.encoder_record(study.encoder, study.store.verified),
        data={
            "simulated": simulated,
            "simulation": build.plain(config.simulation) if simulated else None,
            "cohort_sha256": files.sha256(study.source),
            "patients": {role: fold.endpoint.counts(data.target) for role, data in fold.data.items()},
            "bag": config.data.bag,
            "split": {"strategy": _public(config.split), "sha256": split.digest(), "fold": fold.number},
        },
        training=outcome
        | {
            "seed": config.seed,
            "threads": torch.get_num_threads(),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "optimizer": build.plain(config.optimizer),
            "schedule": build.plain(config.schedule),
            "data": _public(config.data),
            "versions": {
                "mil-zoo": mil.__version__,
                "torch": torch.__version__,
                "lightning": version("lightning"),
                "python": platform.python_version(),
            },
        },
    )


def _public(node: DictConfig) -> dict[str, object]:
    return {key: value for key, value in build.plain(node).items() if key not in PRIVATE}

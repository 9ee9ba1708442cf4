"""What a checkpoint's manifest says of a training over sites."""

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from pydantic import JsonValue

import mil
from mil import manifest as manifests
from mil.features.geometry import Geometry
from mil.federation.fold_setup import FoldSetup
from mil.federation.measures import DECLARED
from mil.federation.protocol import Training
from mil.federation.shared_state import APPROXIMATE
from mil.fitted.state import FittedState
from mil.manifest import Clinical, DataRecord, Manifest, SimulationRecord, SplitRecord, TrainingRecord
from mil.models.fusion import Fused
from mil.models.network_ensemble import members_of
from mil.study import build
from mil.training.record import PRIVATE

if TYPE_CHECKING:
    from mil.federation.federated_run import FederatedRun


def federated_manifest(
    run: "FederatedRun",
    setup: FoldSetup,
    training: Training,
    fitted: FittedState,
    totals: Mapping[str, int],
    epsilon: float | None,
) -> Manifest:
    """Return the manifest of a checkpoint, without the digests of the files.

    Args:
        run: The federation.
        setup: What was fitted before training.
        training: The finished training.
        fitted: What was fitted after it.
        totals: Patients of all sites by role.
        epsilon: Of differential privacy; None without noise.
    """
    config, model = run.config, training.model
    widths = build.sizes(config, run.encoder.dim, setup.endpoint)
    return Manifest(
        tool=config.tool,
        model=manifests.part(members_of(model)[0], widths | config.model.options.arguments()),
        members=config.model.options.members,
        endpoint=manifests.endpoint_part(setup.endpoint, config.tool.endpoint.options.keywords()),
        covariates=_clinical(setup, training),
        fitted=fitted,
        encoder=manifests.encoder_record(run.encoder, True, config.model.options.encoders),
        data=_data(run, setup, totals),
        training=_training(run, setup, training, epsilon),
    )


def _data(run: "FederatedRun", setup: FoldSetup, totals: Mapping[str, int]) -> DataRecord:
    config = run.config
    strategy = {key: value for key, value in config.split.plain().items() if key not in PRIVATE}
    patients = {role: {"n": amount} for role, amount in totals.items() if amount}
    return DataRecord(
        simulated=run.simulated,
        simulation=SimulationRecord.model_validate(config.simulation.plain()) if _made_here(run) else None,
        patients=patients,
        bag=config.data.bag,
        geometry=_geometry(run),
        split=SplitRecord(strategy=strategy, fold=setup.fold),
    )


def _geometry(run: "FederatedRun") -> Geometry:
    """Return the size of tiles, which is the same at all sites; whether their files state it, they do not tell."""
    facts = next(iter(run.descriptions.values())).facts
    return Geometry(cast(float | None, facts.get("mpp")), cast(float | None, facts.get("tile_px")))


def _made_here(run: "FederatedRun") -> bool:
    return run.simulated and not run.options.sites


def _training(run: "FederatedRun", setup: FoldSetup, training: Training, epsilon: float | None) -> TrainingRecord:
    config, progress = run.config, training.progress
    record: dict[str, JsonValue] = {
        "algorithm": run.options.algorithm,
        "sites": cast(JsonValue, run.quantities(setup.fold)),
        "minimum": run.options.minimum,
        "secure": run.options.secure,
        "steps": progress.steps,
        "steps_per_epoch": training.steps,
        "epsilon": epsilon,
        "delta": run.options.delta if epsilon is not None else None,
        "released": progress.released if epsilon is not None else None,
        "state": APPROXIMATE,
        "grid": DECLARED.model_dump(),
        "notes": cast(JsonValue, _notes(run, setup, training)),
    }
    options = {key: value for key, value in config.data.plain().items() if key not in PRIVATE}
    return TrainingRecord.model_validate(
        {
            "epochs": progress.epoch,
            "best_epoch": next(iter(training.best_epochs), None),
            "averaged_epochs": training.best_epochs[1:],
            "selection": config.selection.model_dump(),
            "precision": "32-true",
            "seed": config.seed,
            "threads": torch.get_num_threads(),
            "parameters": sum(weight.numel() for weight in training.model.parameters()),
            "optimizer": config.optimizer.plain(),
            "schedule": config.schedule.plain(),
            "data": options,
            "versions": {
                "mil-zoo": mil.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "federation": record,
        }
    )


def _notes(run: "FederatedRun", setup: FoldSetup, training: Training) -> list[str]:
    """Return what a reader must know about how the sites trained."""
    notes = list[str]()
    if training.exact and training.steps > 1:
        largest = max(1, round(sum(training.counts.values()) / training.steps))
        notes.append(f"A step is over about {largest} training bags of all sites ({training.steps} steps an epoch).")
    timed = [name for name, part in (setup.endpoint.parts() or {"": setup.endpoint}).items() if part.survival]
    if timed and run.options.times == "grid":
        cells = ", ".join(str(len(setup.cells[name].times)) for name in timed)
        notes.append(
            f"Times were rounded up to {cells} cells of {run.options.grid:g} months or more, each with "
            f"{run.options.least_per_cell} patients or more."
        )
    compares = not setup.endpoint.alone or setup.endpoint.compares_pairs
    if compares and not training.exact:
        notes.append(
            "The loss compares patients of one site and batch only: it is not the partial likelihood of all patients."
        )
    notes.append(f"Cuts, calibration and limits were {APPROXIMATE}.")
    return notes


def _clinical(setup: FoldSetup, training: Training) -> Clinical | None:
    covariates = setup.covariates
    if covariates is None or not isinstance(training.model, Fused):
        return None
    return Clinical(
        numeric=list(covariates.numeric),
        categorical={name: list(levels) for name, levels in covariates.categorical.items()},
        fusion=training.model.fusion,
        embed_dim=training.model.embed_dim,
        state=covariates.state(),
    )

"""Builds everything that a fit is made of, without weights, so that a bad option is found before any work."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch

from mil import config as conf
from mil.bags import Bags
from mil.errors import ConfigError
from mil.findings import Checked, attempt
from mil.fitted.checks import check_specification
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import members_of
from mil.study import build, file_findings
from mil.study.available_devices import check_devices
from mil.study.component import Component
from mil.study.reader import StudyReader
from mil.study.run_config import RunConfig
from mil.study.study import Study

SELECT = "select_"
"""Prefix of what training logs of the patients of model selection."""
RANGE_IS_CHECKED = (
    *("lr", "max_epochs", "accumulate_grad_batches", "gradient_clip_val", "enable_progress_bar"),
    *("limit_train_batches", "devices", "num_nodes", "strategy"),
)
"""Options of optimisers and trainers that every value which `mil.study.run_config` lets through is right for."""


def check_model(config: RunConfig, reader: StudyReader) -> Checked[MILModel]:
    """Return the model without weights, with what is wrong with it, the tiles or any other option of the fit.

    Where the labels could not be read, the model alone is built.
    """
    encoder, endpoint = reader.encoder.value, reader.source.endpoint
    if encoder is None:
        return Checked(None)
    with torch.device("meta"):
        model = attempt("model", lambda: build.network(config, encoder.dim, endpoint, encoder.widths))
    if model.value is None:
        return model
    needed_by = config.model.target if model.value.needs_coords else None
    findings = file_findings.without_positions(reader.usable, needed_by)
    if config.tool.novelty is not None and encoder.level == "tile":
        findings += file_findings.below_minimum(reader.tiles_by_bag, config.tool.novelty.min_tiles)
    study = reader.study().value
    if study is not None and not any(finding.severity == "error" for finding in findings):
        findings += attempt("options", lambda: rehearse(config, study)).findings
    return Checked(model.value, tuple(findings))


def rehearse(config: RunConfig, study: Study) -> None:
    """Build model, loss, optimiser, schedule, callbacks and trainer of a configuration.

    Optimisers, callbacks and trainers that stand in `conf/` as they are have been built by the tests, and `RunConfig`
    has checked the range of some options. They are left out here, as torch's optimisers and Lightning take as long to
    load as a thousand headers to read.

    Raises:
        ConfigError: An option that one of them refuses, or a model that does not fit the endpoint or the tiles.
    """
    check_devices(config)
    check_specification(config.tool, study.endpoint)
    _refuse_batches(config, study)
    _refuse_epochs(config)
    with torch.device("meta"):
        network = build.network(config, study.encoder.dim, study.endpoint, study.encoder.widths)
    _refuse_whole(config, network)
    if not _is_shipped(config.optimizer, "optimizer"):
        _build_optimizer(config, network)
    _compute_loss(config, study)
    _try_schedule(config)
    _refuse_monitors(config, study)
    for callback in config.callbacks.values():
        if not _is_shipped(callback, "callbacks"):
            build.make(callback)
    if not _is_shipped(config.trainer, "trainer"):
        precision = config.trainer.options.precision
        precision = "32-true" if precision == "auto" else precision
        single = {"devices": 1, "strategy": "auto"}  # `check_devices` has counted them
        build.make(config.trainer, precision=precision, logger=False, enable_checkpointing=False, **single)


def _is_shipped(component: Component[Any], group: str) -> bool:
    """Return whether a component is one of the choices of `conf/` but for options whose range has been checked."""
    choices = conf.described(group).values()
    shipped = [node for choice in choices for node in (choice.values() if group == "callbacks" else [choice])]
    return _without_checked(component.plain()) in [_without_checked(node) for node in shipped]


def _without_checked(node: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in node.items() if value is None or name not in RANGE_IS_CHECKED}


def _build_optimizer(config: RunConfig, network: MILModel) -> None:
    try:
        build.optimizer(config)(network.parameters())
    except Exception as error:  # whatever torch raises on what the user gave, such as a list that is too short
        options = ", ".join(f"optimizer.{name}={value}" for name, value in config.optimizer.options.keywords().items())
        raise ConfigError(f"{config.optimizer.target}: {' '.join(str(error).split())}; found {options}") from error


def _try_schedule(config: RunConfig) -> None:
    """Call the schedule at its beginning, middle and end."""
    schedule, steps = build.make(config.schedule), 100
    for step in (0, 1, steps // 2, steps - 1, steps):
        factor = schedule(step, steps)
        if not isinstance(factor, int | float) or not math.isfinite(factor):
            raise ConfigError(
                f"{config.schedule.target}: the factor at step {step} of {steps} is {factor}, expected a finite number"
            )


def _refuse_monitors(config: RunConfig, study: Study) -> None:
    """Refuse callbacks that watch what is never logged, which Lightning says after the first epoch."""
    if config.selection.refit is not None and config.trainer.options.limit_val_batches == 0:
        raise ConfigError(
            f"trainer.limit_val_batches=0: selection.refit={config.selection.refit} needs validation, expected 1.0"
        )
    monitors = {
        f"callbacks.{name}.monitor": str(watched)
        for name, callback in config.callbacks.items()
        if (watched := callback.options.keywords().get("monitor")) is not None
    }
    if not monitors:
        return
    logged = ["train_loss", *_selection_metrics(study)]
    for option, watched in monitors.items():
        if watched not in logged:
            raise ConfigError(
                f"{option}={watched} is not logged{conf.nearest(watched, logged)}; there is {', '.join(logged)}"
            )
        if watched.startswith(SELECT) and config.trainer.options.limit_val_batches == 0:
            raise ConfigError(
                f"trainer.limit_val_batches=0: {option}={watched} needs validation, expected callbacks=none or "
                "trainer.limit_val_batches=1.0"
            )


def _selection_metrics(study: Study) -> list[str]:
    """Return the names of what is logged of the patients of model selection."""
    endpoint = copy.deepcopy(study.endpoint)
    endpoint.fit(study.target)
    scores = endpoint.score(torch.zeros(len(study.target), endpoint.out_dim), study.target)
    return [f"{SELECT}{name}" for name in ("loss", *scores)]


def _refuse_batches(config: RunConfig, study: Study) -> None:
    """Refuse batches of one patient where the loss compares patients, and options that whole-cohort losses exclude."""
    if config.data.batch_bags == 1 and not study.endpoint.alone and not config.data.whole_cohort:
        raise ConfigError(
            "data.batch_bags=1: the loss compares patients and one alone has none, expected data.batch_bags=16 or "
            "data.whole_cohort=true"
        )
    if not config.data.whole_cohort:
        return
    if config.data.balance == "sampling":
        raise ConfigError("data.balance=sampling: data.whole_cohort=true takes every bag once, expected none or loss")
    if (amount := config.trainer.options.accumulate_grad_batches) != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches={amount}: data.whole_cohort=true gathers the whole cohort, expected 1"
        )


def _refuse_epochs(config: RunConfig) -> None:
    """Refuse numbers of epochs that never come."""
    options = config.trainer.options
    for name, epochs in (
        ("min_epochs", options.min_epochs),
        ("check_val_every_n_epoch", options.check_val_every_n_epoch),
    ):
        if epochs is not None and epochs > options.max_epochs:
            raise ConfigError(
                f"trainer.{name}={epochs} with trainer.max_epochs={options.max_epochs}, expected at most "
                f"{options.max_epochs}"
            )


def _refuse_whole(config: RunConfig, network: MILModel) -> None:
    """Refuse models with a loss of their own under whole-cohort losses, which are computed from logits alone."""
    if config.data.whole_cohort and type(members_of(network)[0]).loss is not MILModel.loss:
        raise ConfigError(
            f"{config.model.target}: has a loss of its own beside the endpoint's, which data.whole_cohort=true "
            "cannot divide, expected a model without one or data.whole_cohort=false"
        )


def _compute_loss(config: RunConfig, study: Study) -> None:
    """Compute the loss of two bags of one tile: a model may refuse an endpoint, or tiles without coordinates."""
    placed = all(study.store.header(slide).has_coords for slide in study.cohort.table["slide"])
    covariates = None if study.covariates is None else torch.zeros(2, study.covariates.width)
    places = torch.zeros(2, 2) if placed else None
    bags = Bags(torch.zeros(2, study.encoder.dim), (1, 1), places, covariates=covariates)
    with torch.random.fork_rng(devices=()):
        network = build.network(config, study.encoder.dim, study.endpoint, study.encoder.widths)
        try:
            network.loss(network(bags), study.target[:2], study.endpoint)
        except ValueError as error:
            raise ConfigError(f"{config.model.target}: {' '.join(str(error).split())}") from error

"""From a configuration to the objects it names: endpoint, model, covariates, encoder, optimizer."""

import functools
import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from mil import config as conf
from mil.bags import Bags
from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError, MilError
from mil.features.encoders import Encoder
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel, Output
from mil.models.network_ensemble import NetworkEnsemble
from mil.simulation.simulated_cohort import Simulation
from mil.study.component import TARGET, Component, Options
from mil.study.run_config import RunConfig

PREDICTION_COLUMNS = ("patient", "fold", "role")
"""Columns of every table of predictions, next to targets and scores."""


def make(component: Component[Any], **extra: object) -> Any:
    """Return the object that a component describes; components among its arguments are made first.

    Args:
        component: The class and its arguments.
        extra: Further keyword arguments; they win over the component's own.

    Raises:
        ConfigError: The class cannot be imported, or its constructor does not take the arguments.
        MilError: Whatever the constructor itself raises.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(_with_texts(component.plain()), _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, MilError):
            raise cause from None
        raise ConfigError(f"{component.target}: {' '.join(str(cause or error).split())}") from error


def _with_texts(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component whose numbers are text where its constructor takes text, such as a column called 2024."""
    arguments = parameters(str(node[TARGET]), TARGET)
    values = dict(node)
    for name, value in node.items():
        if isinstance(value, Mapping):
            nested = {key: _with_texts(each) if _is_component(each) else each for key, each in value.items()}
            values[name] = _with_texts(value) if _is_component(value) else nested
        elif name in arguments and arguments[name].annotation in (str, str | None) and _is_number(value):
            values[name] = str(value)
    return values


def _is_component(value: object) -> bool:
    return isinstance(value, Mapping) and TARGET in value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def describe(instance: object) -> dict[str, object]:
    """Return an endpoint or a dataclass as the yaml of the component that builds it anew.

    Raises:
        ConfigError: An object of another kind, which does not tell its arguments.
    """
    if isinstance(instance, Endpoint):
        arguments = dict(instance.arguments)
    elif is_dataclass(instance):
        arguments = {field.name: getattr(instance, field.name) for field in fields(instance) if field.init}
    else:
        raise ConfigError(f"{instance!r}: expected an endpoint of mil.endpoints or a strategy of mil.splits")
    kind = type(instance)
    return {
        TARGET: f"{kind.__module__}.{kind.__qualname__}",
        **{name: _plain(value) for name, value in arguments.items()},
    }


def _plain(value: object) -> object:
    """Return a value of yaml: mappings, lists, strings and numbers."""
    if isinstance(value, Endpoint) or is_dataclass(value):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def class_of(component: Component[Any]) -> object:
    """Return the class that a component names.

    Raises:
        ConfigError: It cannot be imported.
    """
    return _imported(component.target, TARGET)


def _imported(target: str, key: str) -> Any:
    module, _, attribute = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}: {target} cannot be imported: {error}") from None


def parameters(target: str, key: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a constructor.

    Args:
        target: Its import path.
        key: The option that names it, for messages.

    Raises:
        ConfigError: It cannot be imported.
    """
    try:
        return inspect.signature(_imported(target, key)).parameters
    except ValueError as error:
        raise ConfigError(f"{key}: {target} cannot be imported: {error}") from None


def endpoint(config: RunConfig) -> Endpoint:
    """Return the tool's endpoint, not yet fitted.

    Raises:
        ConfigError: Wrong arguments, or a target column whose name the predictions use for something else.
    """
    endpoint = cast(Endpoint, make(config.tool.endpoint))
    if taken := sorted({*PREDICTION_COLUMNS, *endpoint.prediction_columns} & set(endpoint.columns)):
        raise ConfigError(f"endpoint: column {taken[0]!r} is one of the predictions' own, expected another name for it")
    return endpoint


def model(config: RunConfig, in_dim: int, out_dim: int) -> MILModel:
    """Return the chosen model with fresh weights."""
    return cast(MILModel, make(_bare(config), in_dim=in_dim, out_dim=out_dim))


def _bare(config: RunConfig) -> Component[Options]:
    """Return the model's class and arguments, without how its weights start."""
    options = Options.model_validate(config.model.options.arguments())
    return Component[Options](target=config.model.target, options=options)


def covariates(config: RunConfig) -> Covariates | None:
    """Return what the tool reads of the clinical table together with the slides, not yet fitted.

    Raises:
        ConfigError: Columns that cannot be read so.
    """
    inputs = config.tool.covariates
    return None if inputs is None else Covariates(inputs.numeric or (), inputs.categorical or {})


def sizes(config: RunConfig, in_dim: int, endpoint: Endpoint) -> dict[str, object]:
    """Return the model's arguments that follow from features and endpoint: widths, and the logits of each target."""
    widths: dict[str, object] = {"in_dim": in_dim, "out_dim": endpoint.out_dim}
    if endpoint.groups is None or config.model.options.keywords().get("groups") is not None:
        return widths
    takes_groups = "groups" in parameters(config.model.target, "model")
    return widths | ({"groups": list(endpoint.groups)} if takes_groups else {})


def network(config: RunConfig, in_dim: int, endpoint: Endpoint, widths: Sequence[int] = ()) -> MILModel:
    """Return the chosen model for an endpoint with fresh weights, joined with the tool's covariates if it has some.

    Args:
        config: All options.
        in_dim: Width of the features.
        endpoint: What is predicted.
        widths: Of each encoder's block of the features, where there are several.

    Raises:
        ConfigError: Arguments that the model does not take, or an ensemble of encoders that cannot be trained.
    """
    inner = _reader_of(config, in_dim, endpoint, widths)
    if inner.solved and config.selection.refit is not None:
        raise ConfigError(
            f"selection.refit={config.selection.refit}: {type(inner).__name__} is solved for and has no epochs, "
            "expected null"
        )
    inputs, table = config.tool.covariates, covariates(config)
    if inputs is None or table is None:
        return inner
    width = None if inputs.fusion == "late" else _embedding_width(config, in_dim, endpoint, widths)
    return Fused(inner, table.width, endpoint.out_dim, inputs.fusion, width)


def _reader_of(config: RunConfig, in_dim: int, endpoint: Endpoint, widths: Sequence[int]) -> MILModel:
    """Return the model of the features alone, with all members where it is an ensemble."""
    options = config.model.options
    by_encoder = options.encoders == "ensemble"
    if by_encoder and len(widths) < 2:
        raise ConfigError("model.encoders=ensemble: features are of one encoder, expected those of several")
    if by_encoder and options.pretrained is not None:
        raise ConfigError("model.encoders=ensemble: model.pretrained is one model's weights, expected one of the two")
    read = [width for width in (widths if by_encoder else (in_dim,)) for _ in range(options.members)]
    members = [cast(MILModel, make(_bare(config), **sizes(config, width, endpoint))) for width in read]
    if len(members) == 1:
        return members[0]
    try:
        return NetworkEnsemble(members, widths if by_encoder else ())
    except ValueError as error:
        option = "model.encoders=ensemble" if by_encoder else f"model.members={options.members}"
        raise ConfigError(f"{option}: {error}") from None


def _embedding_width(config: RunConfig, in_dim: int, endpoint: Endpoint, widths: Sequence[int]) -> int:
    """Return the width of the bag embedding, measured on one tile: models have no common name for it."""
    with torch.random.fork_rng(devices=()), torch.device("cpu"), torch.no_grad():
        model = _reader_of(config, in_dim, endpoint, widths).eval()
        output: Output = model(Bags(torch.zeros(1, in_dim), (1,), torch.zeros(1, 2)))
    return output.embedding.shape[1]


def create_model(name: str, in_dim: int, out_dim: int, **options: object) -> MILModel:
    """Return the bare module that `model=name` chooses, with fresh weights, for training loops of one's own.

        import mil, torch
        from mil.bags import Bags

        model = mil.create_model("abmil", in_dim=1024, out_dim=2, dropout=0.1)
        output = model(Bags.pack([torch.randn(300, 1024), torch.randn(80, 1024)]))
        output.logits  # (2, 2): two bags, two logits

    Args:
        name: A file of `conf/model/`; `mil list models` shows them.
        in_dim: Width of the tiles' features.
        out_dim: Logits of a bag.
        options: Keyword arguments of the model's constructor.

    Raises:
        ConfigError: No such model, or an option that its constructor does not take.
    """
    names = conf.choices("model")
    if name not in names:
        raise ConfigError(f"model {name!r} does not exist{conf.nearest(name, names)}; there is {', '.join(names)}")
    component = Component[Options].model_validate({**conf.described("model")[name], **options})
    return cast(MILModel, make(component, in_dim=in_dim, out_dim=out_dim))


def optimizer(config: RunConfig) -> "partial[torch.optim.Optimizer]":
    """Return the optimizer, still to be called with its parameters."""
    return cast("partial[torch.optim.Optimizer]", make(config.optimizer, _partial_=True))


@functools.cache
def known_encoders() -> tuple[Encoder, ...]:
    """Return every encoder of `conf/encoder/` whose width is given there."""
    nodes = [node for node in conf.described("encoder").values() if isinstance(node.get("dim"), int)]
    return tuple(make(Component[Options].model_validate(node)) for node in nodes)


def simulation(config: RunConfig) -> Simulation:
    """Return the parameters of the tool's simulated cohort.

    Raises:
        ConfigError: The tool does not say what to simulate, or a parameter is out of its range.
    """
    if "target" not in config.simulation.options.keywords():
        raise ConfigError(f"tool {config.tool.name} does not say what to simulate: give data.cohort and data.features")
    return cast(Simulation, make(config.simulation))


def cache_dir() -> Path:
    """Return where simulated cohorts are kept: `$MIL_CACHE`, or `mil-zoo` in the user's cache folder."""
    if folder := os.environ.get("MIL_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mil-zoo"


def workers(config: RunConfig) -> int:
    """Return how many processes read ahead; by default none on two cores, which the model needs itself."""
    if config.data.workers is not None:
        return config.data.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores - 1) if cores > 2 else 0

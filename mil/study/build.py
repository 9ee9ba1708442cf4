"""From a configuration to the things it names: endpoint, model, covariates, encoder, optimiser."""

import importlib
import inspect
import math
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mil import config as conf
from mil.bags import Bags
from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError, MilError
from mil.features.encoders import Encoder
from mil.features.formats import formats
from mil.models.fusion import FUSIONS, Fused
from mil.models.mil_model import MILModel, Output

CHOICES = {
    "data.bag": ("patient", "slide"),
    "data.balance": ("none", "loss", "sampling"),
    "data.on_missing": ("error", "skip"),
    "data.on_bad_bag": ("error", "skip"),
    "data.batch_axis": (False, True),
    "data.whole_cohort": (False, True),
    "data.layout": (None, *formats()),
}
REQUIRED = ("seed", "baseline", "resamples", "tool", "model", "encoder", "optimizer", "schedule", "trainer", "logger")
LEAST = {
    **dict.fromkeys(("data.batch_bags", "data.tiles_per_batch", "data.max_tiles", "resamples", "split.repeats"), 1),
    **dict.fromkeys(("trainer.max_epochs", "trainer.accumulate_grad_batches", "data.passes"), 1),
    **dict.fromkeys(("seed", "data.memory", "data.workers"), 0),
    "split.folds": 2,
    "split.inner": 2,
    "split.smallest": 1,
}
"""Whole numbers, and the smallest that each may be."""
GEOMETRY = ("data.slide_mpp", "encoder.mpp", "encoder.tile_px", "tool.tiles.mpp", "tool.tiles.tile_px")
OPTIONAL = (
    *("data.tiles_per_batch", "data.max_tiles", "data.workers", "trainer.gradient_clip_val", "optimizer.lr"),
    *GEOMETRY,
)
POSITIVE = ("optimizer.lr", "trainer.gradient_clip_val", *GEOMETRY)
SHARES = ("split.select", "split.report")
OWN_COLUMNS = ("patient", "fold", "role")
"""Of the predictions, beside targets and scores."""
PATHS = ("data.cohort", "data.slides", "data.features", "split.file", "hydra.run.dir", "hydra.sweep.dir")


def make(node: Any, **extra: Any) -> Any:
    """The object that a config node names by `_target_`.

    Raises:
        ConfigError: options that its constructor does not take.
        MilError: what the constructor itself says.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(node, _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, MilError):
            raise cause from None
        raise ConfigError(f"{node.get('_target_')}: {' '.join(str(cause or error).split())}") from error


def checked(config: DictConfig) -> DictConfig:
    """The configuration itself, where its values can be had.

    Raises:
        ConfigError: a value out of its range, in one line.
    """
    _refuse_holes(config)
    for key, allowed in CHOICES.items():
        if (value := OmegaConf.select(config, key)) not in allowed:
            words = ("null" if one is None else str(one).lower() for one in allowed)
            raise ConfigError(f"{key}={value}, expected {' or '.join(words)}")
    for key, least in LEAST.items():
        value = OmegaConf.select(config, key, default=least)
        if not (value is None and key in OPTIONAL) and (type(value) is not int or value < least):
            raise ConfigError(f"{key}={value}, expected a whole number of at least {least}")
    for key in (*POSITIVE, *SHARES):
        value = OmegaConf.select(config, key, default=0.5)
        if not (value is None and key in OPTIONAL) and not _positive(value):
            raise ConfigError(f"{key}={value}, expected a positive number")
    return config


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _refuse_holes(config: DictConfig) -> None:
    """Options that have to be given, that were taken away, or that refer to what is not there."""
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        absent = missing or [key for key in REQUIRED if OmegaConf.select(config, key) is None]
        if not absent:
            OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise conf.explained(error) from None
    if absent:
        raise ConfigError(f"{absent[0]} has no value: give {absent[0]}=...")


def prepared(words: list[str], extra: Path | None = None) -> list[str]:
    """The words of a command line, with `++` before options that only a constructor knows, and paths quoted.

    A yaml states what differs from the constructor's defaults; `model.dropout=0.1` should work all the same. Hydra's
    grammar takes commas, equal signs and quotes in a path for its own.

    Raises:
        ConfigError: an option that neither the yaml nor the constructor knows.
    """
    words = [_with_path_quoted(word) for word in words]
    dotted = [word for word in words if "." in word.partition("=")[0]]
    if not dotted:
        return words
    chosen = [word.partition(",")[0] for word in words if "." not in word.partition("=")[0] and "[" not in word]
    base = conf.compose([word for word in chosen if word.partition("=")[0].lstrip("+~") in conf.groups()], extra)
    return [
        f"++{word}" if word in dotted and _constructor_takes(base, word.partition("=")[0]) else word for word in words
    ]


def _with_path_quoted(word: str) -> str:
    key, _, value = word.partition("=")
    plain_path = re.fullmatch(r"[\w./~+:@%-]*", value, re.ASCII) or "${" in value or value[:1] in ("'", '"', "[")
    if key.lstrip("+") not in PATHS or plain_path:
        return word
    sweeps = "," in value and not key.startswith("hydra.") and not Path(value).exists()
    return word if sweeps else f"{key}={conf.quoted(value)}"


def _constructor_takes(base: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(base, parent)
    if key[:1] in "+~" or not isinstance(node, DictConfig) or name in node or "_target_" not in node:
        return False
    known = _known(node, parent)
    if name not in known and not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        near = conf.nearest(name, sorted({*map(str, node), *known} - {"self", "_target_"}), f"{parent}.")
        raise ConfigError(f"option {key!r} does not exist{near}")
    return True


def _known(node: DictConfig, where: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the constructor that a node names."""
    module, _, attribute = node["_target_"].rpartition(".")
    try:
        return inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: {node['_target_']} cannot be imported: {error}") from None


def endpoint(config: DictConfig) -> Endpoint:
    """The tool's endpoint, unfitted.

    Raises:
        ConfigError: what its constructor says, or a target column that the predictions have for something else.
    """
    made = cast(Endpoint, make(config.tool.endpoint))
    if taken := sorted({*OWN_COLUMNS, *made.prediction_columns} & set(made.columns)):
        raise ConfigError(f"endpoint: column {taken[0]!r} is one of the predictions' own, expected another name for it")
    return made


def model(config: DictConfig, in_dim: int, out_dim: int) -> MILModel:
    """The chosen model, with fresh weights."""
    return cast(MILModel, make(config.model, in_dim=in_dim, out_dim=out_dim))


def covariates(config: DictConfig) -> Covariates | None:
    """What the tool reads of the clinical table beside the slides, unfitted.

    Raises:
        ConfigError: an option that does not exist, or columns that cannot be read so.
    """
    said = OmegaConf.select(config, "tool.covariates")
    if said is None:
        return None
    if odd := sorted(set(map(str, said)) - {"numeric", "categorical", "fusion"}):
        raise ConfigError(f"tool.covariates.{odd[0]} does not exist, expected numeric, categorical or fusion")
    return Covariates(plain(said).get("numeric") or (), plain(said).get("categorical") or {})


def fusion(config: DictConfig) -> str:
    """How a model takes the covariates in.

    Raises:
        ConfigError: no such way.
    """
    kind = OmegaConf.select(config, "tool.covariates.fusion", default="late")
    if kind not in FUSIONS:
        raise ConfigError(f"tool.covariates.fusion={kind}, expected {' or '.join(FUSIONS)}")
    return str(kind)


def sizes(config: DictConfig, in_dim: int, endpoint: Endpoint) -> dict[str, Any]:
    """What the model's constructor is told of features and endpoint: widths, and the logits of each target."""
    widths: dict[str, Any] = {"in_dim": in_dim, "out_dim": endpoint.out_dim}
    if endpoint.groups is None or config.model.get("groups") is not None:
        return widths
    return widths | ({"groups": list(endpoint.groups)} if "groups" in _known(config.model, "model") else {})


def network(config: DictConfig, in_dim: int, endpoint: Endpoint) -> MILModel:
    """The chosen model for this endpoint, with fresh weights; with the tool's covariates where it has some."""
    inner = cast(MILModel, make(config.model, **sizes(config, in_dim, endpoint)))
    beside = covariates(config)
    if beside is None:
        return inner
    kind = fusion(config)
    width = None if kind == "late" else _embedding_width(config, in_dim, endpoint)
    return Fused(inner, beside.width, endpoint.out_dim, kind, width)


def _embedding_width(config: DictConfig, in_dim: int, endpoint: Endpoint) -> int:
    """As a model of the same options shows it: no two of them name it alike."""
    with torch.random.fork_rng(devices=()), torch.device("cpu"), torch.no_grad():
        model = cast(MILModel, make(config.model, **sizes(config, in_dim, endpoint))).eval()
        output: Output = model(Bags(torch.zeros(1, in_dim), (1,), torch.zeros(1, 2)))
    return output.embedding.shape[1]


def create_model(name: str, in_dim: int, out_dim: int, **options: Any) -> MILModel:
    """The bare module that `model=name` chooses, with fresh weights, for those who train it themselves.

    `in_dim` is the width of the tiles' features, `out_dim` the logits a bag; `options` are the constructor's own.

    Raises:
        ConfigError: no such model, or an option that its constructor does not take.
    """
    known = conf.choices("model")
    if name not in known:
        raise ConfigError(f"model {name!r} does not exist{conf.nearest(name, known)}; there is {', '.join(known)}")
    node = OmegaConf.load(conf.conf_dir() / "model" / f"{name}.yaml")
    return cast(MILModel, make({**plain(cast(DictConfig, node)), **options}, in_dim=in_dim, out_dim=out_dim))


def optimizer(config: DictConfig) -> "partial[Any]":
    """The optimiser, waiting for its parameters."""
    return cast("partial[Any]", make(config.optimizer, _partial_=True))


def known_encoders() -> list[Encoder]:
    """Every encoder of `conf/encoder/` that has a width of its own."""
    nodes = conf.described("encoder").values()
    return [make(OmegaConf.create(node)) for node in nodes if isinstance(node.get("dim"), int)]


def simulation(config: DictConfig) -> Any:
    """The tool's simulated cohort, not yet made."""
    if "target" not in config.simulation:
        raise ConfigError(f"tool {config.tool.name} does not say what to simulate: give data.cohort and data.features")
    return make(config.simulation)


def cache_dir() -> Path:
    """Where simulated cohorts are kept: `$MIL_CACHE`, or `mil-zoo` in the user's cache folder."""
    if own := os.environ.get("MIL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mil-zoo"


def plain(config: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """A configuration as plain containers, everything resolved, for a file."""
    return cast(dict[str, Any], OmegaConf.to_container(cast(DictConfig, config), resolve=True))


def options(node: DictConfig) -> dict[str, Any]:
    """What a node says to the constructor that its `_target_` names."""
    return {key: value for key, value in plain(node).items() if key != "_target_"}


def workers(config: DictConfig) -> int:
    """Processes that read ahead; where the user leaves it open, none on two cores, which the model needs itself."""
    if config.data.workers is not None:
        return int(config.data.workers)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores - 1) if cores > 2 else 0

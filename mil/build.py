"""From a configuration to the things it names: endpoint, model, encoder, and the study they are for."""

import importlib
import inspect
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from mil import config as conf
from mil.data.cohort import Cohort, Columns
from mil.data.encoders import Encoder
from mil.data.features import FeatureStore
from mil.data.splits import Split
from mil.data.tables import listed
from mil.endpoints.base import Endpoint
from mil.errors import ConfigError, FeatureError, MilError
from mil.models.base import MILModel

CHOICES = {
    "data.bag": ("patient", "slide"),
    "data.balance": ("none", "loss", "sampling"),
    "data.on_missing": ("error", "skip"),
    "data.on_bad_bag": ("error", "skip"),
}
REQUIRED = ("seed", "baseline", "resamples", "tool", "model", "encoder", "optimizer", "schedule", "trainer", "logger")
LEAST = {
    **dict.fromkeys(("data.batch_bags", "data.tiles_per_batch", "data.max_tiles", "resamples", "split.repeats"), 1),
    **dict.fromkeys(("trainer.max_epochs", "trainer.accumulate_grad_batches"), 1),
    **dict.fromkeys(("seed", "data.workers"), 0),
    "split.folds": 2,
}
"""Whole numbers, and the smallest that each may be."""
OPTIONAL = ("data.tiles_per_batch", "data.max_tiles", "data.workers", "trainer.gradient_clip_val", "optimizer.lr")
POSITIVE = ("optimizer.lr", "trainer.gradient_clip_val")
SHARES = ("split.select", "split.report")
PATHS = ("data.cohort", "data.features", "split.file", "hydra.run.dir", "hydra.sweep.dir")


@dataclass(frozen=True)
class Study:
    """A tool's patients with their bags, targets and features, checked against each other."""

    cohort: Cohort
    store: FeatureStore
    encoder: Encoder
    endpoint: Endpoint
    patients: pd.DataFrame
    """one row a patient, in the order of `target`"""
    target: Tensor
    """`(p, ...)`"""
    bags: pd.DataFrame
    """one row a bag: bag, patient, slides"""
    source: Path
    """the cohort's table"""
    truth: Path | None
    """folder of the simulated cohort; none for real data"""

    def rows(self, patients: list[str]) -> tuple[pd.DataFrame, Tensor]:
        """The bags of these patients `(b,)`, and each bag's target `(b, ...)`."""
        bags = self.bags[self.bags["patient"].isin(patients)].reset_index(drop=True)
        return bags, self.target[self.patients.index.get_indexer(pd.Index(bags["patient"]))]


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
            raise ConfigError(f"{key}={value}, expected {' or '.join(allowed)}")
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
    module, _, attribute = node["_target_"].rpartition(".")
    try:
        known = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{parent}: {node['_target_']} cannot be imported: {error}") from None
    if name not in known and not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        near = conf.nearest(name, sorted({*map(str, node), *known} - {"self", "_target_"}), f"{parent}.")
        raise ConfigError(f"option {key!r} does not exist{near}")
    return True


def endpoint(config: DictConfig) -> Endpoint:
    """The tool's endpoint, unfitted."""
    return cast(Endpoint, make(config.tool.endpoint))


def model(config: DictConfig, in_dim: int, out_dim: int) -> MILModel:
    """The chosen model, with fresh weights."""
    return cast(MILModel, make(config.model, in_dim=in_dim, out_dim=out_dim))


def optimizer(config: DictConfig) -> "partial[Any]":
    """The optimiser, waiting for its parameters."""
    return cast("partial[Any]", make(config.optimizer, _partial_=True))


def known_encoders() -> list[Encoder]:
    """Every encoder of `conf/encoder/` that has a width of its own."""
    nodes = conf.described("encoder").values()
    return [make(OmegaConf.create(node)) for node in nodes if isinstance(node.get("dim"), int)]


def study(config: DictConfig) -> Study:
    """Reads the cohort, finds its features, and checks both against the tool.

    Raises:
        MilError: whatever is wrong with them, before any work is done.
    """
    checked(config)
    tables = _tables(config)
    wanted = endpoint(config)
    cohort = Cohort.read(
        tables.cohort, Columns(**config.data.columns), labels=wanted.columns, covariates=list(config.data.covariates)
    )
    expected = None if config.encoder.name == "auto" else make(config.encoder)
    store = FeatureStore(tables.features, expected, known_encoders())
    cohort = cohort.having(store.slides, config.data.on_missing)
    if config.data.on_bad_bag == "skip":
        cohort = cohort.having(store.sound(cohort.table["slide"]), "skip", "unusable features")
    encoder = store.resolve(list(cohort.table["slide"]))
    _refuse_empty(store, list(cohort.table["slide"]))
    patients = cohort.patients
    target = wanted.encode(patients)
    # refuses what cannot be learnt or balanced; fitted again on each fold's training patients
    wanted.fit(target, balance=config.data.balance != "none")
    return Study(
        cohort, store, encoder, wanted, patients, target, cohort.bags(config.data.bag), tables.cohort, tables.truth
    )


def _refuse_empty(store: FeatureStore, slides: list[str]) -> None:
    if empty := [slide for slide in slides if store.header(slide).tiles == 0]:
        raise FeatureError(
            f"{len(empty)} of {len(slides)} slides have zero tiles, expected at least one: {listed(empty)} "
            "(data.on_bad_bag=skip leaves them out)"
        )


def split(config: DictConfig, study: Study) -> Split:
    """Who trains, selects and reports in each fold."""
    strategy = make(config.split)
    strata = study.endpoint.strata(study.target)
    return cast(Split, strategy(list(study.patients.index), strata, study.cohort.table, config.seed))


def rehearse(config: DictConfig, study: Study) -> None:
    """Makes everything that a fit is made of, without weights, so that a bad option is found before any work.

    Raises:
        ConfigError: what one of them says of its options.
    """
    with torch.device("meta"):
        network = model(config, study.encoder.dim, study.endpoint.out_dim)
    try:
        optimizer(config)(network.parameters())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config.optimizer._target_}: {' '.join(str(error).split())}") from error
    make(config.schedule)
    for node in config.callbacks.values():
        make(node)
    options = plain(config.trainer)
    precision = "32-true" if options.get("precision") == "auto" else options.get("precision")
    make(options | {"precision": precision}, logger=False, enable_checkpointing=False)


@dataclass(frozen=True)
class _Tables:
    cohort: Path
    features: Path
    truth: Path | None = None


def _tables(config: DictConfig) -> _Tables:
    cohort, features = config.data.cohort, config.data.features
    if (cohort is None) != (features is None):
        given, missing = ("data.cohort", "data.features") if features is None else ("data.features", "data.cohort")
        raise ConfigError(f"{given} is given without {missing}, expected both (real data) or neither (simulated)")
    if cohort is not None:
        return _Tables(Path(cohort).expanduser(), Path(features).expanduser())
    folder = _simulated(config)
    return _Tables(folder / "cohort.csv", folder / "features", folder)


def _simulated(config: DictConfig) -> Path:
    from mil.simulation.cohort import cached

    return cached(simulation(config), cache_dir() / "simulated")


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

"""Which classes a configuration may name: those of a run folder from elsewhere are data until they are trusted.

A configuration that the user composes, from `conf/`, from their own `--config-dir` or in Python, may name any class.
The `config.yaml` of a run folder may name the classes of this package that options choose from, torch's optimizers and
modules, Lightning's trainer, callbacks, loggers and strategies, classes that this process composed itself, and those
that the environment variable `MIL_ALLOW` lists. Other classes of these packages do more than they are called: a handler
of logs empties a file, `LightningCLI` builds what a file names.
"""

import importlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping

from mil.errors import ConfigError
from mil.study.component import TARGET

ALLOW = "MIL_ALLOW"
"""Environment variable with further import paths or packages that run folders may name, separated by commas."""
PACKAGES = (
    "mil.models",
    "mil.layers",
    "mil.endpoints",
    "mil.features.encoders",
    "mil.splits",
    "mil.simulation",
    "mil.training",
    "torch.optim",
    "torch.nn",
    *(
        f"lightning.pytorch.{name}"
        for name in ("trainer", "callbacks", "loggers", "strategies", "plugins", "profilers")
    ),
)
_OFFERED = "lightning.pytorch"
"""Offers classes of its packages, such as `lightning.pytorch.Trainer`."""

_PATH = re.compile(r"\w+(\.\w+)+")
"""Import paths; other words, such as the names of several models that were selected, cannot be imported at all."""

_composed: set[str] = set()


def trust(values: Mapping[str, object]) -> None:
    """Trust the classes of a configuration that the user composed, until the process ends."""
    _composed.update(target for _, target in _targets(values))


def refuse_foreign(values: Mapping[str, object]) -> None:
    """Check what a configuration from a run folder names.

    Raises:
        ConfigError: A class that is not trusted, or `${...}`, which could read the environment.
    """
    for key, text in _texts(values):
        if "${" in text:
            raise ConfigError(f"{key} holds the interpolation {text!r}, expected every value written out")
    for key, target in _targets(values):
        if _PATH.fullmatch(target) and not (target in _composed or _is_listed(target) or _is_ours(target)):
            raise ConfigError(
                f"{key} names {target!r}, which is no class of this package; if you trust it, set {ALLOW}={target}"
            )


def _is_listed(target: str) -> bool:
    listed = [name.strip() for name in os.environ.get(ALLOW, "").split(",")]
    return any(name and (target == name or target.startswith(f"{name}.")) for name in listed)


def _is_ours(target: str) -> bool:
    """Return whether a path leads to a class that one of the packages defines, and not one that it only imports."""
    module, _, name = target.rpartition(".")
    if name.startswith("_") or not (module == _OFFERED or _is_within(module)):
        return False
    try:
        named = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return inspect.isclass(named) and _is_within(named.__module__)


def _is_within(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in PACKAGES)


def _targets(values: object) -> Iterator[tuple[str, str]]:
    return ((key, text) for key, text in _texts(values) if key.rpartition(".")[2] == TARGET)


def _texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of nested values with its dotted key."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(str(name), f"{key}.(name)" if key else "(name)")
            yield from _texts(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            yield from _texts(each, f"{key}[{place}]")
    elif isinstance(value, str):
        yield key, value

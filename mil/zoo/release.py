"""A run's checkpoint under a version, ready for a model hub."""

import re
import shutil
from pathlib import Path
from uuid import uuid4

from mil import checkpoint, files
from mil.errors import CheckpointError, ConfigError
from mil.zoo.card import card
from mil.zoo.report import CARD, FIGURES, REPORT

SEMANTIC = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def release(run: Path, version: str, out: Path, fold: int = 0) -> Path:
    """Copies a checkpoint to `out/<tool>` as this version; a folder with another version there is replaced whole.

    Raises:
        ConfigError: a version that is none, or that is released already.
        CheckpointError: no such checkpoint in the run.
    """
    if not SEMANTIC.fullmatch(version):
        raise ConfigError(f"version {version!r}, expected X.Y.Z")
    several = list(run.glob("fold_*"))
    source = run / f"fold_{fold}" / "checkpoint" if several else run / "checkpoint"
    if not source.is_dir() or (fold and not several):
        raise CheckpointError(f"{run}: no checkpoint of fold {fold}, expected a finished run")
    loaded = checkpoint.load(source)
    manifest = loaded.manifest.model_copy(update={"tool": loaded.manifest.tool | {"version": version}})
    name = str(manifest.tool.get("name"))
    if not NAME.fullmatch(name):
        raise CheckpointError(f"{source}: tool name {name!r}, expected letters, digits, - and _")
    place = out / name
    _recover(place)
    if (place / checkpoint.MANIFEST).is_file() and checkpoint.read_manifest(place).tool["version"] == version:
        raise ConfigError(f"{place}: version {version} is released already, expected a new one")
    out.mkdir(parents=True, exist_ok=True)
    fresh = out / f".{place.name}.{uuid4().hex}"
    try:
        shutil.copytree(source, fresh)
        figures = sorted(path.name for path in (fresh / FIGURES).glob("*.png"))
        files.write(fresh / CARD, card(manifest, loaded.endpoint, files.read_json(fresh / REPORT), figures))
        checkpoint.seal(fresh, manifest)
        _put(fresh, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def _put(fresh: Path, place: Path) -> None:
    """The old version leaves only when the new one is whole."""
    if place.exists():
        place.rename(_old(place))
    fresh.rename(place)
    shutil.rmtree(_old(place), ignore_errors=True)


def _recover(place: Path) -> None:
    """Whoever was killed between the two renames left the old version aside: it comes back."""
    if place.exists():
        shutil.rmtree(_old(place), ignore_errors=True)
    elif _old(place).exists():
        _old(place).rename(place)


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")

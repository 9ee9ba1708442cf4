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
    place = out / str(manifest.tool["name"])
    if (place / checkpoint.MANIFEST).is_file() and checkpoint.read_manifest(place).tool["version"] == version:
        raise ConfigError(f"{place}: version {version} is released already, expected a new one")
    out.mkdir(parents=True, exist_ok=True)
    fresh = out / f".{place.name}.{uuid4().hex}"
    shutil.copytree(source, fresh)
    figures = sorted(path.name for path in (fresh / FIGURES).glob("*.png"))
    files.write(fresh / CARD, card(manifest, loaded.endpoint, files.read_json(fresh / REPORT), figures))
    checkpoint.seal(fresh, manifest)
    _put(fresh, place)
    return place


def _put(fresh: Path, place: Path) -> None:
    """The old version leaves only when the new one is whole."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)

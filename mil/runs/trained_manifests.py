"""What training wrote into the manifests of a run, compared when the run is evaluated, compared or released."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json

from mil import checkpoint, files
from mil.checkpoint import MANIFEST, WEIGHTS
from mil.errors import CheckpointError, ConfigError
from mil.manifest import Manifest
from mil.runs.states import checkpoints_in
from mil.storage import read_bytes
from mil.tables import listed

FILE = "manifests.json"
"""In a run folder; runs of earlier versions have none."""


class TrainedManifests(BaseModel):
    """The manifests of a run's folds when training had ended.

    Attributes:
        schema_version: Of the manifests; those of another are not compared, as their entries may have other names.
        folds: For each fold the digest of each entry. `files` counts with the weights only: cards are written again.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int
    folds: Mapping[int, Mapping[str, str]]


def record_manifests(folder: Path, manifests: Mapping[int, Manifest]) -> None:
    """Write what the manifests of a run hold, once: when its training has ended."""
    if manifests and not (folder / FILE).exists():
        folds = {fold: _digests(manifest) for fold, manifest in manifests.items()}
        versions = {manifest.schema_version for manifest in manifests.values()}
        record = TrainedManifests(schema_version=versions.pop(), folds=folds)
        files.write_json(folder / FILE, record.model_dump(mode="json"))


def changed_manifests(folder: Path) -> Iterator[str]:
    """Yield a sentence for each manifest of a run that training did not write as it is.

    Raises:
        ConfigError: The record cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return
    try:
        record = TrainedManifests.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.errors()[0]['msg']}, expected the record of a run's manifests") from None
    for fold, place in checkpoints_in(folder).items():
        name = (place / MANIFEST).relative_to(folder)
        try:
            manifest = checkpoint.unverified(place)
        except CheckpointError:
            yield f"{name} is not what training wrote: it cannot be read."
            continue
        if manifest.schema_version == record.schema_version and (changed := _changed(record.folds.get(fold), manifest)):
            yield f"{name} is not what training wrote: {listed(changed)} changed since."


def _changed(before: Mapping[str, str] | None, manifest: Manifest) -> list[str]:
    if before is None:
        return ["everything"]
    now = _digests(manifest)
    return [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]


def _digests(manifest: Manifest) -> dict[str, str]:
    """Return a digest of each entry that is not as by default, so that entries of later versions change nothing."""
    entries = manifest.model_dump(mode="json", exclude={"files", "schema_version"}, exclude_defaults=True)
    entries["weights"] = manifest.files.get(WEIGHTS)
    return {name: hashlib.sha256(to_json(_in_order(entry))).hexdigest()[:16] for name, entry in entries.items()}


def _in_order(entry: object) -> object:
    if isinstance(entry, dict):
        return {key: _in_order(entry[key]) for key in sorted(entry)}
    return list(map(_in_order, entry)) if isinstance(entry, list) else entry

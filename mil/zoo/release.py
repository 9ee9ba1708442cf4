"""A run's checkpoint under a version, ready for a model hub."""

import re
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from PIL import Image

from mil import checkpoint, files
from mil.checkpoint import Checkpoint
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError, ConfigError
from mil.manifest import Manifest
from mil.runs.describe import CARD, FIGURES, REPORT, drawn
from mil.runs.run import checkpoints_in, open_run
from mil.zoo import golden
from mil.zoo.gates import Evidence, gates
from mil.zoo.released import TABLES, missing_blocks, texts
from mil.zoo.verify import differences, regenerated
from mil.zoo.versions import CHANGELOG, change, changelog, parse, refuse_too_small

SCALE, COLOURS = 0.5, 24
"""Of released figures: 100 dots an inch."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def release(
    run: Path, version: str, out: Path, fold: int = 0, note: str | None = None, date: str | None = None
) -> Path:
    """Copies a checkpoint to `out/<tool>` as this version; a folder with another version there is replaced whole.

    Beside the checkpoint it gets golden predictions, the outcome of the release gates, its changelog, and, where the
    cohort is simulated, the predictions and what is known of the patients; no table of real patients leaves a run.

    Args:
        run: A finished run.
        version: See `mil.zoo.versions`.
        out: Folder of released tools.
        fold: Of a run with several folds.
        note: What changed, for the changelog; what differs from the version before where left out.
        date: For the changelog, YYYY-MM-DD; none where left out, so that a release can be made again.

    Raises:
        ConfigError: a version that is none, that is released already, or that says too little of what changed.
        CheckpointError: no such checkpoint in the run.
    """
    parse(version)
    source = _source(run, fold)
    loaded = checkpoint.load(source)
    manifest = loaded.manifest.model_copy(update={"tool": loaded.manifest.tool | {"version": version}})
    name = str(manifest.tool.get("name"))
    if not NAME.fullmatch(name):
        raise CheckpointError(f"{source}: tool name {name!r}, expected letters, digits, - and _")
    place = out / name
    _recover(place)
    before = checkpoint.read_manifest(place) if (place / checkpoint.MANIFEST).is_file() else None
    told = _history(before, manifest, place, note, date)
    out.mkdir(parents=True, exist_ok=True)
    fresh = out / f".{place.name}.{uuid4().hex}"
    try:
        shutil.copytree(source, fresh)
        files.write(fresh / CHANGELOG, told)
        golden.write(loaded, fresh)
        if manifest.data["simulated"]:
            _copy_tables(run, fresh, loaded.endpoint)
        describe_release(run, fresh, loaded, manifest)
        checkpoint.seal(fresh, manifest)
        _put(fresh, place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def describe_release(run: Path, fresh: Path, loaded: Checkpoint, manifest: Manifest) -> None:
    """Judges the gates, and writes report, card, XML and page with their outcome."""
    report = files.read_json(fresh / REPORT)
    opened = open_run(run)
    if not (fresh / FIGURES).is_dir():
        drawn(opened, report, fresh, int(manifest.data["split"]["fold"]))
    _lighten(fresh / FIGURES)
    found = list(differences(report, regenerated(opened, loaded, report), exact=True))
    card = texts(fresh, manifest, loaded.endpoint, report)[CARD]
    judged = gates(Evidence(opened, manifest, report, card, missing_blocks(card), found))
    report = report | {"gates": judged}
    files.write_json(fresh / REPORT, report)
    for name, text in texts(fresh, manifest, loaded.endpoint, report).items():
        files.write(fresh / name, text)


def _lighten(folder: Path) -> None:
    """Figures as small PNGs of few colours: git and hubs keep every version of them."""
    for path in sorted(folder.glob("*.svg")):
        path.unlink()
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            size = round(image.width * SCALE), round(image.height * SCALE)
            small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize(COLOURS)
        small.save(path, optimize=True)


def _source(run: Path, fold: int) -> Path:
    source = checkpoints_in(run).get(fold)
    if source is None:
        raise CheckpointError(f"{run}: no checkpoint of fold {fold}, expected a finished run")
    return source


def _history(before: Manifest | None, manifest: Manifest, place: Path, note: str | None, date: str | None) -> str:
    """The changelog with the new version; a version that may not be released is refused."""
    version = str(manifest.tool["version"])
    if before is None:
        return changelog("", version, note or "First release.", date)
    if before.tool["version"] == version:
        raise ConfigError(f"{place}: version {version} is released already, expected a new one")
    refuse_too_small(before, manifest, version, str(place))
    path = place / CHANGELOG
    older = path.read_text(encoding="utf-8") if path.is_file() else ""
    return changelog(older, version, note or f"Another {change(before, manifest)[1]} than before.", date)


def _copy_tables(run: Path, fresh: Path, endpoint: Endpoint) -> None:
    for name in TABLES:
        if (run / name).is_file():
            files.write(fresh / name, (run / name).read_bytes())
    for name in ("baseline.csv", "covariates.csv"):  # of which a report reads those who are reported
        if (fresh / name).is_file():
            beside = pd.read_csv(fresh / name, dtype=str, keep_default_na=False)
            files.write(fresh / name, beside[beside["role"] == "report"].to_csv(index=False))
    if (fresh / "oracle.csv").is_file():  # the simulation's whole truth, of which a report reads the oracle
        truth = pd.read_csv(fresh / "oracle.csv", dtype=str)
        files.write(fresh / "oracle.csv", truth[["patient", *endpoint.oracle_columns]].to_csv(index=False))


def outcome(place: Path) -> list[dict[str, Any]]:
    """The gates of a release, as its report keeps them."""
    found: list[dict[str, Any]] = files.read_json(place / REPORT).get("gates") or []
    return found


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

"""Whether a released folder is what it says it is: files, weights, predictions, numbers and texts."""

import json
import math
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch

from mil import checkpoint, files
from mil.checkpoint import Checkpoint
from mil.errors import MilError
from mil.runs.describe import CARD, REPORT, reported
from mil.runs.run import PATIENTS, Run, by_patient, tables_in
from mil.tables import read_table
from mil.zoo import golden
from mil.zoo.gates import Evidence, gates
from mil.zoo.released import misplaced, missing_blocks, texts

T = TypeVar("T", dict[str, Any], list[dict[str, Any]])
KEPT = ("looks", "gates", "run")
"""Of a report: what is not of the predictions alone."""
TOLERANCE = 1e-6
"""Relative, on another platform than the one that made the release."""


def verify(folder: Path) -> list[str]:
    """Everything that is wrong with a released folder, each as one line that names the file; nothing if it is sound.

    Files against the manifest, weights, golden predictions, every number of the report against the stored predictions,
    and the card, its XML and the page of the report, byte for byte, against manifest and report.
    """
    try:
        loaded = checkpoint.load(folder)
        if wrong := misplaced(loaded.manifest):
            return wrong
        golden.check(loaded)
        stored = files.read_json(folder / REPORT)
        return [*_numbers(loaded, stored), *_written(loaded, stored)]
    except (MilError, OSError) as error:
        return [str(error)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # of a report.json that is no report
        return [f"{folder / REPORT}: {type(error).__name__}: {' '.join(str(error).split())}"]


def recomputed(folder: Path) -> dict[str, Any] | None:
    """report.json of a released folder, anew from its stored predictions; none where these stayed at their site.

    Raises:
        MilError: what the folder holds cannot be read or evaluated.
    """
    loaded = checkpoint.load(folder)
    if not loaded.manifest.data["simulated"]:
        return None
    stored = files.read_json(folder / REPORT)
    return regenerated(opened(loaded, stored), loaded, stored)


def opened(loaded: Checkpoint, stored: Mapping[str, Any]) -> Run:
    """A released folder as a run: its tables, its tool and endpoint."""
    folder, manifest = loaded.folder, loaded.manifest
    endpoint = checkpoint.endpoint_of(manifest.endpoint, (), folder)  # not fitted, as of a run's report
    return Run(
        folder,
        manifest.tool,
        endpoint,
        manifest.model.name,
        manifest.encoder["name"],
        manifest.data["simulated"],
        stored["resamples"],
        stored.get("seed", manifest.training["seed"]),
        tables_in(folder, endpoint),
        by_patient(read_table(folder / PATIENTS)) if (folder / PATIENTS).is_file() else None,
    )


def regenerated(run: Run, loaded: Checkpoint, stored: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's report, from the tables of its run; looks, gates and what other folds fitted are taken over."""
    manifest = loaded.manifest
    kept = {key: stored[key] for key in KEPT if key in stored}
    if "run" not in stored:
        return _plain(reported(run, [manifest]) | kept)
    whole = {key: stored["run"][key] for key in ("looks", "fitted") if key in stored["run"]}
    own = reported(run, [manifest], manifest.data["split"]["fold"])
    return _plain(own | kept | {"run": reported(run, [manifest]) | whole})


def differences(stored: Any, found: Any, exact: bool, where: str = "") -> Iterator[str]:
    """Each place where two documents differ: `metrics.auroc.low is 0.8, the stored predictions give 0.7`."""
    if isinstance(stored, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*stored, *found]):
            yield from differences(stored.get(key), found.get(key), exact, f"{where}.{key}" if where else str(key))
    elif isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        for at, (one, other) in enumerate(zip(stored, found, strict=True)):
            yield from differences(one, other, exact, f"{where}[{at}]")
    elif not _same(stored, found, exact):
        yield f"{where} is {_short(stored)}, the stored predictions give {_short(found)}"


def _numbers(loaded: Checkpoint, stored: dict[str, Any]) -> Iterator[str]:
    if not loaded.manifest.data["simulated"]:
        return
    run, exact = opened(loaded, stored), golden.made_here(loaded.folder)
    found = list(differences(stored, regenerated(run, loaded, stored), exact))
    yield from (f"{REPORT}: {one}" for one in found)
    bare = {key: value for key, value in stored.items() if key != "gates"}
    text = texts(loaded.folder, loaded.manifest, loaded.endpoint, bare)[CARD]
    judged = gates(Evidence(run, loaded.manifest, bare, text, missing_blocks(text), found))
    yield from (f"{REPORT}: {one}" for one in differences(stored.get("gates"), _plain(judged), exact, "gates"))


def _written(loaded: Checkpoint, stored: Mapping[str, Any]) -> Iterator[str]:
    for name, wanted in texts(loaded.folder, loaded.manifest, loaded.endpoint, stored).items():
        found = (loaded.folder / name).read_text(encoding="utf-8")
        if found != wanted:
            line = _first_line(found, wanted)
            yield f"{name}: line {line} is not what manifest.json and report.json give"
    card = (loaded.folder / CARD).read_text(encoding="utf-8")
    yield from (f"{CARD}: block {name} is missing" for name in missing_blocks(card))


def _first_line(found: str, wanted: str) -> int:
    pairs = zip_longest(found.split("\n"), wanted.split("\n"))
    return next((number for number, (one, other) in enumerate(pairs, 1) if one != other), 0)


def _same(stored: Any, found: Any, exact: bool) -> bool:
    numbers = isinstance(stored, int | float) and isinstance(found, int | float)
    if exact or not numbers or bool in (type(stored), type(found)):
        return type(stored) is type(found) and bool(stored == found)
    return math.isclose(stored, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _plain(report: T) -> T:
    """As it comes back from a file."""
    plain: T = json.loads(json.dumps(report, allow_nan=False))
    return plain


def verify_all(folders: Sequence[Path], processes: int = 2) -> Iterator[tuple[Path, list[str]]]:
    """`verify` of several folders, in order, in so many processes of one thread each."""
    if len(folders) < 2 or processes < 2:
        yield from ((folder, verify(folder)) for folder in folders)
        return
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads half-alive
    with ProcessPoolExecutor(min(processes, len(folders)), fresh, torch.set_num_threads, (1,)) as pool:
        yield from zip(folders, pool.map(verify, folders), strict=True)

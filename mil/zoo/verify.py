"""Verify that a released folder is consistent: files, weights, predictions, numbers and texts."""

import json
import math
import multiprocessing
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from mil import checkpoint
from mil.cards import CARD
from mil.cards.external_validation import FOLDER, ExternalValidation
from mil.checkpoint import Checkpoint
from mil.errors import MilError
from mil.report.report_files import read_report
from mil.report.schema import Report
from mil.runs.describe import REPORT, run_report
from mil.runs.measured_sections import sections_of, with_sections
from mil.runs.run import PATIENTS, Run, one_row_per_patient, read_tables
from mil.runs.states import read_states
from mil.tables import read_table
from mil.zoo import attach, golden
from mil.zoo.figures import figure_problems, redrawn_problems
from mil.zoo.gates import EXTERNAL_GATE, Evidence, external_verdict, gates
from mil.zoo.index import INDEX, TITLE, index_of, released_folders, tool_rows
from mil.zoo.released import misplaced, missing_blocks, texts
from mil.zoo.versions import CHANGELOG, changelog_problems

TOLERANCE = 1e-6
"""Relative; on another platform than the one that made the release."""


def verify(folder: Path) -> list[str]:
    """Return everything that is wrong with a released folder, one line each that names the file.

    Checks the files against the manifest, the weights, the golden predictions, every number of the report against the
    stored predictions, the figures against their numbers, external validations against the weights, the changelog, and
    the card, its XML and the report page byte for byte against all of these.
    """
    try:
        loaded = checkpoint.load(folder)
        if problems := misplaced(loaded.manifest):
            return problems
        golden.check(loaded)
        stored = read_report(folder / REPORT)
        return [
            *attach.problems(folder, loaded.manifest),
            *_wrong_numbers(loaded, stored),
            *figure_problems(folder, stored),
            *_wrong_texts(loaded, stored),
        ]
    except (MilError, OSError) as error:
        return [str(error)]


def verify_index(folder: Path, tools: Collection[str]) -> list[str] | None:
    """Return everything that is wrong with the index beside released folders; None if there is none.

    Args:
        folder: The folder of the releases.
        tools: Releases whose rows are checked; if these are all, every line is.
    """
    path = folder / INDEX
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if TITLE not in text.splitlines():
        return None
    try:
        expected = index_of(folder)
        if {place.name for place in released_folders(folder)} <= set(tools):
            line = _first_different_line(text, expected)
            return [] if text == expected else [f"line {line} is not what manifests and reports give"]
        rows, expected_rows = tool_rows(text), tool_rows(expected)
        differing = [tool for tool in tools if rows.get(tool) != expected_rows.get(tool)]
        return [f"the row of {tool} is not what its report gives" for tool in differing]
    except (MilError, OSError) as error:
        return [str(error)]


def recomputed(folder: Path) -> Report | None:
    """Return the report of a released folder, recomputed from its stored predictions.

    None if the folder holds no predictions, since they belong to real patients.

    Raises:
        MilError: if the folder cannot be read or evaluated.
    """
    loaded = checkpoint.load(folder)
    if not loaded.manifest.data.simulated:
        return None
    stored = read_report(folder / REPORT)
    return recompute(released_run(loaded, stored), loaded, stored)


def released_run(loaded: Checkpoint, stored: Report) -> Run:
    """Return a released folder as a run, with its tables, tool and endpoint."""
    folder, manifest = loaded.folder, loaded.manifest
    endpoint = checkpoint.endpoint_of(manifest.endpoint, (), folder)  # not fitted, as in the report of a run
    patients = folder / PATIENTS
    return Run(
        folder=folder,
        tool=manifest.tool,
        endpoint=endpoint,
        model=manifest.model.name,
        encoder=manifest.encoder.name,
        simulated=manifest.data.simulated,
        resamples=stored.resamples,
        seed=stored.seed,
        tables=read_tables(folder, endpoint),
        patients=one_row_per_patient(read_table(patients)) if patients.is_file() else None,
        states=read_states(folder) | {manifest.data.split.fold: manifest.fitted},
    )


def recompute(run: Run, loaded: Checkpoint, stored: Report) -> Report:
    """Return a checkpoint's report, recomputed from the tables of its run.

    Looks, gates, remarks, what the other folds fitted and what was measured on tiles or of several models are taken
    from the stored report.
    """
    manifest, measured = loaded.manifest, list(sections_of(stored))
    copied = {"looks": stored.looks, "gates": stored.gates, "remarks": stored.remarks}
    if stored.run is None:
        return with_sections(run_report(run, [manifest]), measured).model_copy(update=copied)
    of_run = {"looks": stored.run.looks, "fitted": stored.run.fitted, "remarks": stored.run.remarks}
    all_folds = run_report(run, [manifest]).model_copy(update=of_run)
    all_folds = with_sections(all_folds, sections_of(stored.run))
    fold = with_sections(run_report(run, [manifest], manifest.data.split.fold), measured)
    return fold.model_copy(update=copied | {"run": all_folds})


def differences(stored: Any, computed: Any, exact: bool, where: str = "") -> Iterator[str]:
    """Yield each difference of two documents: `metrics.auroc.low is 0.8, the stored predictions give 0.7`."""
    if isinstance(stored, dict) and isinstance(computed, dict):
        for key in dict.fromkeys([*stored, *computed]):
            yield from differences(stored.get(key), computed.get(key), exact, f"{where}.{key}" if where else str(key))
    elif isinstance(stored, list) and isinstance(computed, list) and len(stored) == len(computed):
        for at, (old, new) in enumerate(zip(stored, computed, strict=True)):
            yield from differences(old, new, exact, f"{where}[{at}]")
    elif not _same(stored, computed, exact):
        yield f"{where} is {_shortened(stored)}, the stored predictions give {_shortened(computed)}"


def report_differences(stored: Report, computed: Report, exact: bool) -> list[str]:
    """Return each difference of two reports, one line each."""
    return list(differences(stored.model_dump(mode="json"), computed.model_dump(mode="json"), exact))


def _wrong_numbers(loaded: Checkpoint, stored: Report) -> Iterator[str]:
    attached = attach.read_external(loaded.folder)
    if not loaded.manifest.data.simulated:
        yield from _wrong_external_gate(stored, attached)
        return
    run, exact = released_run(loaded, stored), golden.made_here(loaded.folder)
    differing = report_differences(stored, recompute(run, loaded, stored), exact)
    yield from (f"{REPORT}: {line}" for line in differing)
    if exact and not differing:
        yield from redrawn_problems(run, stored, loaded.folder, loaded.manifest.data.split.fold)
    without_gates = stored.model_copy(update={"gates": ()})
    evidence = Evidence(run, loaded.manifest, without_gates, differing, attached)
    judged = stored.model_copy(update={"gates": tuple(gates(evidence))})
    yield from (f"{REPORT}: {line}" for line in report_differences(stored, judged, exact))


def _wrong_external_gate(stored: Report, attached: Sequence[ExternalValidation]) -> Iterator[str]:
    """Judge the only gate that needs no predictions."""
    holds, sentence = external_verdict(attached, simulated=False)
    for at, gate in enumerate(stored.gates):
        if gate.number == EXTERNAL_GATE and (gate.holds, gate.sentence) != (holds, sentence):
            yield f"{REPORT}: gates[{at}] is {gate.sentence!r}, the folder {FOLDER} gives {sentence!r}"


def _wrong_texts(loaded: Checkpoint, stored: Report) -> Iterator[str]:
    for name, expected in texts(loaded.folder, loaded.manifest, loaded.endpoint, stored).items():
        text = (loaded.folder / name).read_text(encoding="utf-8")
        if text != expected:
            line = _first_different_line(text, expected)
            yield f"{name}: line {line} is not what manifest.json and report.json give"
    changes = (loaded.folder / CHANGELOG).read_text(encoding="utf-8")
    yield from (f"{CHANGELOG}: {line}" for line in changelog_problems(changes, loaded.manifest.tool.version))
    card = (loaded.folder / CARD).read_text(encoding="utf-8")
    yield from (f"{CARD}: block {number} is missing" for number in missing_blocks(card))


def _first_different_line(text: str, expected: str) -> int:
    pairs = zip_longest(text.split("\n"), expected.split("\n"))
    return next((number for number, (line, expected_line) in enumerate(pairs, 1) if line != expected_line), 0)


def _same(stored: Any, computed: Any, exact: bool) -> bool:
    numbers = isinstance(stored, int | float) and isinstance(computed, int | float)
    if exact or not numbers or bool in (type(stored), type(computed)):
        return type(stored) is type(computed) and bool(stored == computed)
    return math.isclose(stored, computed, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2)


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def verify_all(folders: Sequence[Path], processes: int = 2) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the result of `verify`, in order, using this many processes of one thread each."""
    if len(folders) < 2 or processes < 2:
        yield from ((folder, verify(folder)) for folder in folders)
        return
    context = multiprocessing.get_context("spawn")  # a forked process would inherit torch's threads in a broken state
    with ProcessPoolExecutor(min(processes, len(folders)), context, torch.set_num_threads, (1,)) as pool:
        yield from zip(folders, pool.map(verify, folders), strict=True)

"""Whether the patients of an external evaluation took part in the run that made the checkpoint."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from mil import files
from mil.checkpoint import MANIFEST
from mil.cohort.similar_ids import spelling_free
from mil.features.content_samples import shared
from mil.features.store import FeatureStore
from mil.runs.run_inputs import CONFIG, SPLIT, read_inputs, recorded_samples
from mil.splits.roles import ROLES
from mil.tables import listed, read_table, require


def trained_patients(
    checkpoint: Path, patients: Collection[str], store: FeatureStore, slides: Collection[str]
) -> tuple[str, ...]:
    """Return sentences about patients and feature files of a cohort that the checkpoint's run had too.

    They are compared where the checkpoint lies in the folder of its run; a checkpoint elsewhere names no patients.

    Args:
        checkpoint: Its folder.
        patients: Of the cohort that is evaluated.
        store: Its feature files.
        slides: Those of the patients.
    """
    run = next((folder for folder in checkpoint.resolve().parents[:2] if (folder / CONFIG).is_file()), None)
    if run is None or not (checkpoint / MANIFEST).is_file() or not (run / SPLIT).is_file():
        return ()
    fold = files.read_json(checkpoint / MANIFEST).get("data", {}).get("split", {}).get("fold", 0)
    return (*_same_patients(run, int(fold), patients), *_same_files(run, store, slides))


def _same_patients(run: Path, fold: int, patients: Collection[str]) -> Iterator[str]:
    table = read_table(run / SPLIT)
    require(run / SPLIT, table, ["patient", "fold", "role"])
    evaluated = {spelling_free(patient) for patient in patients}
    # an id in another spelling is the same person: barcodes with dots, lower case, without leading zeros
    is_same = table["patient"].map(spelling_free).isin(evaluated)
    rows = table[(table["fold"].str.strip() == str(fold)) & is_same]
    if rows.empty:
        return
    counts = Counter(rows["role"])
    roles = ", ".join(f"{counts[role]} {role}" for role in ROLES if counts[role])
    yield (
        f"{len(rows)} of {len(patients)} patients took part in the run that trained this checkpoint ({roles}): "
        f"{listed(sorted(rows['patient']))}. This is no external validation of them."
    )


def _same_files(run: Path, store: FeatureStore, slides: Collection[str]) -> Iterator[str]:
    record = read_inputs(run)
    if record is None:
        return
    if record.samples:
        same = shared(store.samples(slides), recorded_samples(record))
    else:  # a run of an earlier version has digests of files only, which a copy in another file does not share
        trained = {(size, sha256) for size, _, sha256 in record.features.values()}
        prints = store.fingerprints(slides)
        same = [slide for slide, each in prints.items() if (each.size, each.sha256) in trained]
    if same:
        yield (
            f"{len(same)} of {len(slides)} slides have the features of slides of the run that trained this checkpoint, "
            f"as far as samples show: {listed(same)}."
        )

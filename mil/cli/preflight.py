"""`mil check`."""

import statistics

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mil import build


def show(settings: DictConfig) -> None:
    """Reads the cohort and every file's header, makes the split, prints what was found.

    Raises:
        MilError: the first thing that `mil train` would stumble over.
    """
    study = build.study(settings)
    build.rehearse(settings, study)
    split = build.split(settings, study)
    tiles = [sum(study.store.header(slide).tiles for slide in slides) for slides in study.bags["slides"]]
    counts = study.endpoint.counts(study.target)
    said = "the files say so" if study.store.verified else "not said by all files"
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "tool": f"{settings.tool.name}: {settings.tool.question}",
        "cohort": str(study.source) + (" (simulated)" if study.truth is not None else ""),
        "patients": ", ".join(f"{name} {amount}" for name, amount in counts.items()),
        "slides": str(len(study.cohort.table)),
        "bags": f"{len(tiles)}, tiles {min(tiles)} / {statistics.median(tiles):.0f} / {max(tiles)} (min, median, max)",
        "encoder": f"{study.encoder.name}, {study.encoder.dim} wide ({said})",
        "split": "; ".join(
            f"fold {fold}: "
            + ", ".join(f"{role} {len(split.patients(fold, role))}" for role in ("train", "select", "report"))
            for fold in split.folds
        ),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(soft_wrap=True).print(table)

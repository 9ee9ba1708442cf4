"""What a cohort is, in numbers: for programs as they are, for people as rows."""

import statistics
from typing import Any

import pandas as pd

from mil.splits.roles import ROLES
from mil.study import table_findings
from mil.study.inspection import Inspection
from mil.study.study_findings import classes_of

_MOST_CLASSES = 12


def facts(found: Inspection) -> dict[str, Any]:
    """Everything that `mil check` says beside what is wrong; None and nothing where it could not be read."""
    tool, data, store = found.settings.tool, found.settings.data, found.store
    return {
        "tool": {"name": tool.name, "question": tool.question},
        "cohort": None if data.cohort is None else str(data.cohort),
        "features": None if store is None else str(store.folder),
        "patients": _patients(found),
        "slides": _slides(found),
        "bags": _bags(found),
        "labels": _labels(found),
        "sites": _sites(found),
        "encoder": _encoder(found),
        "geometry": _geometry(found),
        "split": _split(found),
    }


def rows(told: dict[str, Any]) -> dict[str, str]:
    """The same for people, without the sites."""
    tool, bags, coder = told["tool"], told["bags"], told["encoder"]
    found = {
        "tool": ": ".join(word for word in tool.values() if word),
        "cohort": told["cohort"] or f"{told['features']} (simulated)",
        "patients": ", ".join(f"{name} {amount}" for name, amount in told["patients"].items()),
        "slides": str(told["slides"]["table"]),
        "labels": "; ".join(
            f"{name}: {own['known']} known, {own['missing']} missing" for name, own in told["labels"].items()
        ),
    }
    if bags:
        sizes = " / ".join(f"{bags[name]:.0f}" for name in ("min", "median", "max"))
        found["bags"] = f"{bags['n']}, tiles {sizes} (min, median, max)"
    if coder:
        said = "the files say so" if coder["verified"] else "not said by all files"
        found["encoder"] = f"{coder['name']}, {coder['dim']} wide ({said})"
        found["tiles"] = _tiles(told["geometry"])
    if told["split"]:
        found["split"] = "; ".join(
            f"fold {one['fold']}: " + ", ".join(f"{role} {one[role]}" for role in ROLES) for one in told["split"]
        )
    return found


def _tiles(geometry: dict[str, Any]) -> str:
    parts = []
    for name, unit in (("tile_px", "pixels wide"), ("mpp", "micrometres a pixel")):
        if geometry[name] is not None:
            said = "the files say so" if geometry[f"{name}_verified"] else "not said by all files"
            parts.append(f"{geometry[name]:.4g} {unit} ({said})")
    return ", ".join(parts) or "of unknown size"


def _patients(found: Inspection) -> dict[str, int]:
    if found.target is not None:
        return found.endpoint.counts(found.target)
    table = found.raw if found.cohort is None else found.cohort.table
    return {} if table is None else {"n": table["patient"].nunique()}


def _slides(found: Inspection) -> dict[str, int]:
    table = found.raw if found.cohort is None else found.cohort.table
    files = 0 if found.store is None else len(found.store)
    return {"table": 0 if table is None else len(table), "files": files, "with_tiles": len(found.headers)}


def _bags(found: Inspection) -> dict[str, float]:
    if found.cohort is None or not found.headers:
        return {}
    sizes = [
        sum(found.headers[slide].tiles for slide in slides if slide in found.headers)
        for slides in found.cohort.bags(found.settings.data.bag)["slides"]
    ]
    return {"n": len(sizes), "min": min(sizes), "median": statistics.median(sizes), "max": max(sizes)}


def _labels(found: Inspection) -> dict[str, dict[str, int]]:
    if found.raw is None:
        return {}
    patients = found.raw["patient"].nunique()
    lacking = table_findings.lacking(found.raw, found.endpoint.columns)
    return {name: {"known": patients - len(own), "missing": len(own)} for name, own in lacking.items()}


def _sites(found: Inspection) -> dict[str, dict[str, int]]:
    """How many patients of each site are of each class."""
    patients, target = found.patients, found.target
    if patients is None or target is None or "site" not in patients:
        return {}
    counted: dict[str, dict[str, int]] = {}
    classes = classes_of(found.endpoint, patients, target)
    for name, own in classes.items():
        if own.nunique() <= _MOST_CLASSES:
            for site, row in pd.crosstab(patients["site"], own).iterrows():
                called = {f"{name} {word}" if len(classes) > 1 else str(word): int(n) for word, n in row.items()}
                counted.setdefault(str(site), {}).update(called)
    return counted


def _encoder(found: Inspection) -> dict[str, Any]:
    if found.encoder is None or found.store is None:
        return {}
    return {"name": found.encoder.name, "dim": found.encoder.dim, "verified": found.store.verified}


def _geometry(found: Inspection) -> dict[str, Any]:
    if found.encoder is None or found.store is None:
        return {}
    known = found.store.geometry
    return {name: getattr(known, name) for name in ("mpp", "tile_px", "mpp_verified", "tile_px_verified")}


def _split(found: Inspection) -> list[dict[str, int]]:
    if found.split is None:
        return []
    split = found.split
    return [{"fold": fold} | {role: len(split.patients(fold, role)) for role in ROLES} for fold in split.folds]

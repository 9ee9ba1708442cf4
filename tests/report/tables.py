"""Simulated tables of predictions for the tests beside this file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.endpoints.endpoint import Endpoint
from mil.report.evaluation import Evaluation
from mil.study.tool import Tool


def refitted(
    table: pd.DataFrame,
    endpoint: Endpoint,
    tool: Mapping[str, Any] | None = None,
    patients: pd.DataFrame | None = None,
    resamples: int = 2000,
    seed: int = 0,
    comparators: Mapping[str, pd.DataFrame] | None = None,
) -> Evaluation:
    """An evaluation by a tool as its yaml has it, whose states are fitted to the table's own rows."""
    return Evaluation.refitted(table, endpoint, Tool.parse(tool or {}), patients, resamples, seed, comparators)


def roles(rng: np.random.Generator, patients: int, folds: int) -> Iterator[tuple[int, NDArray[np.str_]]]:
    """Each fold reports its part, selects on the next one and trains on the rest."""
    part = rng.permutation(np.arange(patients) % folds)
    for fold in range(folds):
        others = np.where(part == (fold + 1) % folds, "select", "train")
        yield fold, np.where(part == fold, "report", others)


def binary(seed: int = 0, patients: int = 120, folds: int = 3, noise: float = 1.0) -> pd.DataFrame:
    """Column `label`, a third positive, and `p_1`; the noise is drawn anew in each fold and comes last."""
    rng = np.random.default_rng(seed)
    label = (rng.random(patients) < 1 / 3).astype(int)
    signal = 1.5 * label + rng.normal(size=patients) / 2
    design = list(roles(rng, patients, folds))
    parts = []
    for fold, role in design:
        probability = 1 / (1 + np.exp(1 - signal - noise * rng.normal(size=patients)))
        parts.append(pd.DataFrame({"patient": names(patients), "fold": fold, "role": role, "label": label}))
        parts[-1]["p_1"] = probability
    return pd.concat(parts, ignore_index=True)


def multiclass(seed: int = 0, classes: Sequence[str] = ("a", "b", "c"), patients: int = 90) -> pd.DataFrame:
    """Column `label` and `p_<class>` in three folds."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(classes), patients)
    logits = rng.normal(size=(patients, len(classes))) + 1.5 * np.eye(len(classes))[label]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    columns = {"patient": names(patients), "label": np.array(classes)[label]}
    scores = {f"p_{name}": shares[:, at] for at, name in enumerate(classes)}
    parts = [pd.DataFrame({**columns, "fold": fold, "role": role, **scores}) for fold, role in roles(rng, patients, 3)]
    return pd.concat(parts, ignore_index=True)


def survival(seed: int = 0, patients: int = 120, folds: int = 3) -> pd.DataFrame:
    """Columns `time` in months, `event` and `log_hazard`; each fold's log hazards have a shift of their own."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(size=patients)
    death, leaving = rng.exponential(50 * np.exp(-hazard)), rng.uniform(5, 120, patients)
    time, event = np.ceil(np.minimum(death, leaving)), (death <= leaving).astype(int)
    columns = {"patient": names(patients), "time": time, "event": event}
    parts = []
    for fold, role in roles(rng, patients, folds):
        parts.append(pd.DataFrame({**columns, "fold": fold, "role": role, "log_hazard": hazard + 10 * fold}))
    return pd.concat(parts, ignore_index=True)


def names(patients: int) -> list[str]:
    """Ids that are not numbers once they are read as such: 001, 002, ..."""
    return [f"{at:03}" for at in range(patients)]

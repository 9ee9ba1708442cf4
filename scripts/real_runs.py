"""What the scripts on real data share: files as `mil` reads them, its commands, and figures averaged over seeds."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

SMALL = ("data.workers=0", "trainer.precision=32-true", "trainer.enable_progress_bar=false")

Spread = tuple[float, float, float]
"""A value, and the ends of its 95% interval."""


@dataclass(frozen=True)
class Row:
    """A line of the table at the end; without a goal it stands there for comparison."""

    data: str
    n: str
    metric: str
    found: Spread
    goal: float | None = None

    @property
    def missed(self) -> bool:
        """Whether there is a goal, and the value lies below it."""
        return self.goal is not None and self.found[0] < self.goal


def mil(*words: str | Path) -> None:
    """Runs `mil` as a user types it, and shows what was typed and what it answered."""
    print(f"$ OMP_NUM_THREADS=1 mil {shlex.join(map(str, words))}", flush=True)
    print(commands.mil(*words).out, flush=True)


def given(folder: Path) -> tuple[str, str]:
    """Where a converted data set lies, as options of `mil train`."""
    return f"data.cohort={folder / 'cohort.csv'}", f"data.features={folder / 'features'}"


def placed(run: Path, seed: int) -> tuple[str, str]:
    """Where a run goes, and its seed."""
    return f"seed={seed}", f"hydra.run.dir={run}"


def write_trident(folder: Path, slide: str, features: NDArray[Any], encoder: str) -> None:
    """Features `(n, d)` as TRIDENT lays them out, a chunk a row; without coordinates, as these data have none."""
    folder.mkdir(parents=True, exist_ok=True)
    width = features.shape[1]
    with h5py.File(folder / f"{slide}.h5", "w") as file:
        stored = file.create_dataset("features", data=features, chunks=(1, width), maxshape=(None, width))
        stored.attrs.update({"name": slide, "encoder": encoder})


def write_cohort(folder: Path, names: Sequence[str], **columns: "pd.Series[Any] | NDArray[Any]") -> None:
    """A slide a patient, with further columns."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"patient": names, "slide": names} | columns).to_csv(folder / "cohort.csv", index=False)


def standardised(values: NDArray[Any], among: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Zero mean and unit variance among these rows, `(n, d)`; a column that is constant there becomes zero there."""
    middle, spread = values[among].mean(0), values[among].std(0)
    scaled: NDArray[np.float32] = ((values - middle) / np.where(spread > 0, spread, 1)).astype(np.float32)
    return scaled


def reported(path: Path) -> pd.DataFrame:
    """The reported rows of a table of predictions."""
    table = pd.read_csv(path)
    return table[table["role"] == "report"]


def metric(reports: Sequence[Mapping[str, Any]], name: str) -> Spread:
    """A metric of several runs' reports, with its interval."""
    ends = [[report["metrics"][name][part] for part in ("value", "low", "high")] for report in reports]
    return averaged(ends)


def averaged(found: Sequence[Sequence[float]]) -> Spread:
    """Mean over seeds, after a line with each seed's value."""
    print("by seed:", ", ".join(f"{value:.3f}" for value, *_ in found))
    value, low, high = np.mean(found, axis=0).tolist()
    return value, low, high


def mean_of_patients(values: NDArray[np.float64]) -> Spread:
    """Mean with its bootstrap interval over patients."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)

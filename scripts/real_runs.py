"""Shared by the scripts on real data: feature files for `mil`, its commands, and results averaged over seeds."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.report.schema import Estimate, Report
from mil.report.sections.baseline_model import Baseline

SMALL = ("data.workers=0", "trainer.precision=32-true", "trainer.enable_progress_bar=false")

Spread = tuple[float, float, float]
"""A value and the bounds of its 95% interval."""


@dataclass(frozen=True)
class Row:
    """A line of the final table; without a goal it is there for comparison."""

    data: str
    n: str
    metric: str
    value: Spread
    goal: float | None = None

    @property
    def missed(self) -> bool:
        """Whether there is a goal and the value is below it."""
        return self.goal is not None and self.value[0] < self.goal


def mil(*words: str | Path) -> None:
    """Run `mil` as a user types it, and print the command and its output."""
    print(f"$ OMP_NUM_THREADS=1 mil {shlex.join(map(str, words))}", flush=True)
    print(commands.mil(*words).out, flush=True)


def given(folder: Path) -> tuple[str, str]:
    """Return the options of `mil train` for a converted data set."""
    return f"data.cohort={folder / 'cohort.csv'}", f"data.features={folder / 'features'}"


def placed(run: Path, seed: int) -> tuple[str, str]:
    """Return the options for the folder and the seed of a run."""
    return f"seed={seed}", f"hydra.run.dir={run}"


def write_trident(folder: Path, slide: str, features: NDArray[Any], encoder: str) -> None:
    """Write features `(n, d)` in TRIDENT's layout, one chunk per row; these data have no coordinates."""
    folder.mkdir(parents=True, exist_ok=True)
    width = features.shape[1]
    with h5py.File(folder / f"{slide}.h5", "w") as file:
        stored = file.create_dataset("features", data=features, chunks=(1, width), maxshape=(None, width))
        stored.attrs.update({"name": slide, "encoder": encoder})


def write_cohort(folder: Path, names: Sequence[str], **columns: "pd.Series[Any] | NDArray[Any]") -> None:
    """Write a cohort of one slide per patient, with further columns."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"patient": names, "slide": names} | columns).to_csv(folder / "cohort.csv", index=False)


def standardised(values: NDArray[Any], among: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return values `(n, d)` with zero mean and unit variance among these rows; columns constant there become zero."""
    middle, spread = values[among].mean(0), values[among].std(0)
    scaled: NDArray[np.float32] = ((values - middle) / np.where(spread > 0, spread, 1)).astype(np.float32)
    return scaled


def reported(path: Path) -> pd.DataFrame:
    """Return the reported rows of a table of predictions."""
    table = pd.read_csv(path)
    return table[table["role"] == "report"]


def metric(metrics_of_runs: Iterable[Mapping[str, Estimate]], name: str) -> Spread:
    """Return a metric with its interval, averaged over runs."""
    estimates = [metrics[name] for metrics in metrics_of_runs]
    return averaged([list(map(commands.number, (each.value, each.low, each.high))) for each in estimates])


def baseline_metrics(report: Report) -> Mapping[str, Estimate]:
    """Return the metrics of the baseline on the same patients."""
    baseline = report.section(Baseline)
    assert baseline is not None, "these runs train a baseline"
    return baseline.metrics


def averaged(intervals: Sequence[Sequence[float]]) -> Spread:
    """Print the value of each seed and return the mean over seeds."""
    print("by seed:", ", ".join(f"{value:.3f}" for value, *_ in intervals))
    value, low, high = np.mean(intervals, axis=0).tolist()
    return value, low, high


def mean_of_patients(values: NDArray[np.float64]) -> Spread:
    """Return the mean with its bootstrap interval over patients."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)

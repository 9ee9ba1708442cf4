#!/usr/bin/env python
"""How much of the time of one fold after the other `mil train parallel=2` takes, for folds and for the whole command.

usage: python scripts/benchmark_folds.py [--pairs 3] [--folds 5] [--epochs 8] [--work runs/benchmark_folds]

A simulated cohort (100 slides of 1,000 tiles × 512), gated ABMIL, no early stopping, baseline and report as always.
Each pair trains one fold after the other and then with `parallel=2`, as a user types it, with one thread a fold. A
fold's time counts from the moment at which the run folder holds its options; the whole command also starts Python,
reads the cohort and writes the report. Both are given in seconds, and in processor seconds of the process that works
longest: what a user waits on two cores that do nothing else. Of several pairs the lowest ratio counts, because other
work on the machine only ever adds. The predictions of all runs must be equal to the byte.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import commands

ROOT = Path(__file__).resolve().parents[1]
COHORT = ("tool=binary", "simulation.patients=100", "simulation.slides=1", "simulation.tiles=1000")
TRAIN = (
    *("tool=binary", "model=abmil_gated", "callbacks=none", "split=kfold", "data.workers=0", "resamples=200"),
    *("figures=false", "trainer.enable_progress_bar=false"),
)
_TICKS = os.sysconf("SC_CLK_TCK")
_POLLED = 0.05


@dataclass
class Times:
    """What a command took.

    Attributes:
        folds: Seconds from the options to the last fold.
        command: Seconds of the whole command.
        folds_processor: Processor seconds of the process that worked longest in that time.
        command_processor: The same with what the first process does before and after.
    """

    folds: float
    command: float
    folds_processor: float
    command_processor: float


@dataclass
class Watched:
    """Processor seconds of the processes of a command, as they were last seen, and when its folds began and ended."""

    first: int
    seconds: dict[int, float] = field(default_factory=dict)
    at_begin: dict[int, float] = field(default_factory=dict)
    at_end: dict[int, float] = field(default_factory=dict)
    begun: float = 0.0
    ended: float = 0.0

    def look(self, run: Path, folds: int) -> None:
        """Read the processor seconds of all processes, and what the run folder holds."""
        for process in _tree(self.first):
            if (used := _processor_seconds(process)) is not None:
                self.seconds[process] = used
        if not self.begun and (run / "config.yaml").exists():
            self.begun, self.at_begin = time.perf_counter(), dict(self.seconds)
        if not self.ended and len(list(run.glob("fold_*/predictions.csv"))) == folds:
            self.ended, self.at_end = time.perf_counter(), dict(self.seconds)

    def longest(self) -> float:
        """Return the processor seconds of the process that worked longest on the folds."""
        return max(used - self.at_begin.get(process, 0.0) for process, used in self.at_end.items())

    def outside(self) -> float:
        """Return the processor seconds of the first process before and after the folds."""
        return self.at_begin[self.first] + self.seconds[self.first] - self.at_end[self.first]


def main() -> None:
    """Print a line for each run, then the lowest ratios."""
    options = _options()
    cohort = options.work / "cohort"
    if not (cohort / "cohort.csv").exists():
        commands.mil("simulate", cohort, *COHORT, f"simulation.width={options.width}")
    ratios = list[dict[str, float]]()
    for pair in range(options.pairs):
        alone = _timed(options, options.work / f"alone{pair}", 1)
        parallel = _timed(options, options.work / f"parallel{pair}", 2)
        _check_equal(options.work / f"alone{pair}", options.work / f"parallel{pair}")
        ratios.append({name: vars(parallel)[name] / vars(alone)[name] for name in vars(alone)})
        print(" ".join(f"{name} {ratio:.3f}" for name, ratio in ratios[-1].items()), flush=True)
    for name in ratios[0]:
        print(f"lowest of {len(ratios)} pairs, {name}: {min(each[name] for each in ratios):.3f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_folds", help="folder of the runs")
    return parser.parse_args()


def _timed(options: argparse.Namespace, run: Path, parallel: int) -> Times:
    """Train, and return what it took."""
    cohort = options.work / "cohort"
    words = [
        *(f"data.cohort={cohort / 'cohort.csv'}", f"data.features={cohort / 'features'}", f"parallel={parallel}"),
        *(f"split.folds={options.folds}", f"trainer.max_epochs={options.epochs}", f"hydra.run.dir={run}"),
    ]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mil", "train", *TRAIN, *words],
        env=os.environ | {"OMP_NUM_THREADS": str(parallel)},  # which the processes share: each has one thread
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watched = Watched(process.pid)
    while process.poll() is None:
        watched.look(run, options.folds)
        time.sleep(_POLLED)
    if process.returncode:
        sys.exit(f"{run}: ended with {process.returncode}, see its log.txt")
    seconds, longest = time.perf_counter() - started, watched.longest()
    times = Times(watched.ended - watched.begun, seconds, longest, watched.outside() + longest)
    print(
        f"parallel={parallel} " + " ".join(f"{name} {value:.1f} s" for name, value in vars(times).items()), flush=True
    )
    return times


def _check_equal(alone: Path, parallel: Path) -> None:
    for path in sorted(alone.glob("**/predictions.csv")):
        if path.read_bytes() != (parallel / path.relative_to(alone)).read_bytes():
            sys.exit(f"{path} is not that of {parallel}")


def _tree(first: int) -> list[int]:
    """Return a process and its descendants."""
    processes = [first]
    for parent in processes:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                processes += [int(child) for child in children.read_text().split()]
            except OSError:  # the process has ended
                continue
    return processes


def _processor_seconds(process: int) -> float | None:
    """Return what a process has used itself; None once it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()

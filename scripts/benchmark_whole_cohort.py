"""The Cox loss over a whole cohort at once against batches of 32: C-index over seeds, and memory.

usage: python scripts/benchmark_whole_cohort.py [--patients 1000] [--seeds 5] [--epochs 20] [--rates 1e-3 3e-3 1e-2]
                                                [--jobs 2] [--work runs/benchmark_whole_cohort]

One simulated cohort; a seed is another split, other weights and another order. Each way has as many epochs as the
other, and of these learning rates that whose loss on the select patients is least; the report patients have no say.
Memory is the peak of a process that trains without keeping features in memory, on the whole cohort and on a tenth.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from commands import mil

from mil.files import read_json

ROOT = Path(__file__).resolve().parents[1]
BATCHES, WHOLE = "batches of 32", "whole cohort"
WAYS = {
    BATCHES: (),
    WHOLE: ("data.whole_cohort=true",),
    "whole cohort, 5 passes an epoch": ("data.whole_cohort=true", "data.passes=5"),
}
OPTIONS = (
    *("tool=survival", "model=abmil", "split=holdout", "data.batch_bags=32", "baseline=false", "figures=false"),
    *("trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "trainer.precision=32-true", "resamples=200"),
    *("simulation.tiles=100", "simulation.width=64", "simulation.slides=1", "model.embed_dim=64"),
    *("model.attention_dim=64", "data.workers=0"),
)


@dataclass(frozen=True)
class Outcome:
    """One training's figures."""

    rate: float
    select_loss: float
    c_index: float
    oracle: float


def main() -> None:
    """Trains what is missing, then prints a line a way, and the memory of each."""
    asked = _asked()
    tried = [(way, seed, rate) for seed in range(asked.seeds) for way in WAYS for rate in asked.rates]
    with ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = list(pool.map(lambda one: _outcome(one[0], one[1], one[2], asked), tried))
    found: dict[str, list[Outcome]] = {}
    for way in WAYS:
        own = [(seed, outcome) for (name, seed, _), outcome in zip(tried, outcomes, strict=True) if name == way]
        found[way] = [
            min((outcome for place, outcome in own if place == seed), key=lambda one: one.select_loss)
            for seed in range(asked.seeds)
        ]
        print(f"{way}: {_told(found[way])}")
    for way in WAYS:
        if way != BATCHES:
            gains = [own.c_index - other.c_index for own, other in zip(found[way], found[BATCHES], strict=True)]
            print(f"{way} less {BATCHES}: mean {statistics.mean(gains):+.4f} of {_listed(gains, '+.4f')}")
    for line in _memory(asked):
        print(line, flush=True)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, a core each")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_whole_cohort")
    return parser.parse_args()


def _told(own: Sequence[Outcome]) -> str:
    scores, rates = [one.c_index for one in own], [one.rate for one in own]
    best = statistics.mean(one.oracle for one in own)
    shown = f"C-index {statistics.mean(scores):.4f}, seeds {_listed(scores, '.4f')}"
    return f"{shown}; oracle {best:.4f}; learning rates {_listed(rates, 'g')}"


def _listed(values: Sequence[float], shown: str) -> str:
    return ", ".join(format(value, shown) for value in values)


def _outcome(way: str, seed: int, rate: float, asked: argparse.Namespace) -> Outcome:
    run = asked.work / f"{_name(way)}-{seed}-{rate:g}"
    if not (run / "report.json").exists():
        size = (f"simulation.patients={asked.patients}", f"trainer.max_epochs={asked.epochs}")
        mil("train", *OPTIONS, *size, *WAYS[way], f"seed={100 * seed}", f"optimizer.lr={rate}", f"hydra.run.dir={run}")
    report = read_json(run / "report.json")
    losses = re.findall(r"select_loss (\S+)", (run / "log.txt").read_text())
    c_index, oracle = (part["c_index"]["value"] for part in (report["metrics"], report["oracle"]))
    print(f"{way}, seed {seed}, rate {rate:g}: C-index {c_index:.4f}", file=sys.stderr, flush=True)
    return Outcome(rate, min(map(float, losses)), c_index, oracle)


def _name(way: str) -> str:
    return re.sub(r"\W+", "_", way)


def _memory(asked: argparse.Namespace) -> Iterator[str]:
    """Alone one after the other; the first training makes the cohort, which takes memory of its own."""
    for way in (BATCHES, WHOLE):
        peaks = {}
        for patients in (asked.patients // 10, asked.patients):
            run = asked.work / f"memory_{_name(way)}_{patients}"
            size = (f"simulation.patients={patients}", "trainer.max_epochs=2", "data.memory=0", *WAYS[way])
            mil("train", *OPTIONS, *size, f"hydra.run.dir={run}_first")
            peaks[patients] = mil("train", *OPTIONS, *size, f"hydra.run.dir={run}").peak_mib
        yield f"{way}: " + ", ".join(f"{peak:.0f} MiB with {patients} patients" for patients, peak in peaks.items())


if __name__ == "__main__":
    main()

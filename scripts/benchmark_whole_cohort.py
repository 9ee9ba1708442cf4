"""The Cox loss over a whole cohort at once against batches of 32: C-index over seeds, and memory.

usage: python scripts/benchmark_whole_cohort.py [--patients 1000] [--seeds 5] [--epochs 20] [--rates 1e-3 3e-3 1e-2]
                                                [--jobs 2] [--work runs/benchmark_whole_cohort]

One simulated cohort; a seed sets split, weights and order. All ways train for the same number of epochs, each with the
learning rate that has the lowest loss on the select patients; the report patients are not used to choose. Memory is the
peak of a process that trains without keeping features in memory, on the whole cohort and on a tenth of it.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from commands import mil, number

from mil.report.report_files import read_report
from mil.report.sections.oracle import Oracle

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
    """Results of one training."""

    rate: float
    select_loss: float
    c_index: float
    oracle: float


def main() -> None:
    """Train what is missing, then print one line per way, and the memory of each."""
    options = _options()
    tried = [(way, seed, rate) for seed in range(options.seeds) for way in WAYS for rate in options.rates]
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(lambda job: _outcome(job[0], job[1], job[2], options), tried))
    best: dict[str, list[Outcome]] = {}
    for way in WAYS:
        of_way = [(seed, outcome) for (name, seed, _), outcome in zip(tried, outcomes, strict=True) if name == way]
        best[way] = [
            min((outcome for place, outcome in of_way if place == seed), key=lambda outcome: outcome.select_loss)
            for seed in range(options.seeds)
        ]
        print(f"{way}: {_summary(best[way])}")
    for way in WAYS:
        if way != BATCHES:
            gains = [new.c_index - old.c_index for new, old in zip(best[way], best[BATCHES], strict=True)]
            print(f"{way} less {BATCHES}: mean {statistics.mean(gains):+.4f} of {_listed(gains, '+.4f')}")
    for line in _memory(options):
        print(line, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--jobs", type=int, default=2, help="trainings in parallel, one core each")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_whole_cohort")
    return parser.parse_args()


def _summary(outcomes: Sequence[Outcome]) -> str:
    scores, rates = [outcome.c_index for outcome in outcomes], [outcome.rate for outcome in outcomes]
    best = statistics.mean(outcome.oracle for outcome in outcomes)
    shown = f"C-index {statistics.mean(scores):.4f}, seeds {_listed(scores, '.4f')}"
    return f"{shown}; oracle {best:.4f}; learning rates {_listed(rates, 'g')}"


def _listed(values: Sequence[float], shown: str) -> str:
    return ", ".join(format(value, shown) for value in values)


def _outcome(way: str, seed: int, rate: float, options: argparse.Namespace) -> Outcome:
    run = options.work / f"{_name(way)}-{seed}-{rate:g}"
    if not (run / "report.json").exists():
        size = (f"simulation.patients={options.patients}", f"trainer.max_epochs={options.epochs}")
        mil("train", *OPTIONS, *size, *WAYS[way], f"seed={100 * seed}", f"optimizer.lr={rate}", f"hydra.run.dir={run}")
    report = read_report(run / "report.json")
    best = report.section(Oracle)
    assert best is not None, "the cohort is simulated"
    losses = re.findall(r"select_loss (\S+)", (run / "log.txt").read_text())
    c_index, oracle = (number(metrics["c_index"].value) for metrics in (report.metrics, best.metrics))
    print(f"{way}, seed {seed}, rate {rate:g}: C-index {c_index:.4f}", file=sys.stderr, flush=True)
    return Outcome(rate, min(map(float, losses)), c_index, oracle)


def _name(way: str) -> str:
    return re.sub(r"\W+", "_", way)


def _memory(options: argparse.Namespace) -> Iterator[str]:
    """Measure one way after the other; a first training makes the cohort, whose memory must not count."""
    for way in (BATCHES, WHOLE):
        peaks = {}
        for patients in (options.patients // 10, options.patients):
            run = options.work / f"memory_{_name(way)}_{patients}"
            size = (f"simulation.patients={patients}", "trainer.max_epochs=2", "data.memory=0", *WAYS[way])
            mil("train", *OPTIONS, *size, f"hydra.run.dir={run}_first")
            peaks[patients] = mil("train", *OPTIONS, *size, f"hydra.run.dir={run}").peak_mib
        yield f"{way}: " + ", ".join(f"{peak:.0f} MiB with {patients} patients" for patients, peak in peaks.items())


if __name__ == "__main__":
    main()

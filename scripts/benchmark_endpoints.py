"""Every endpoint on a simulated cohort whose best possible score is known, and on the same cohort with labels permuted.

usage: python scripts/benchmark_endpoints.py [--tools NAME ...] [--seeds 0 ...] [--patients 300] [--jobs 2]
                                             [--work runs/benchmark_endpoints] [--out FILE] [-- KEY=VALUE ...]

Each is `mil train tool=NAME model=abmil` as a user types it: five folds, every patient reported once. The settings
were found on cohorts of another seed; what is typed after `--` goes to each training after them. The cohorts' encoder
hardly ever takes one tissue for another, so that what a model lacks to the oracle is what its endpoint did not learn.
The permuted cohort has the same features; whole patients change their targets, so that nothing but chance is left to
learn.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from commands import mil

from mil import config
from mil.files import read_json, write
from mil.study import build
from mil.study.compose import compose

ROOT = Path(__file__).resolve().parents[1]
CUSTOM = "custom"
"""The category of tools that are an endpoint and nothing else."""
SIMULATED = ("simulation.tiles=200", "simulation.width=64", "simulation.contrast=2")
SETTINGS = (
    *("model.embed_dim=64", "model.attention_dim=64", "optimizer.lr=3e-3", "data.batch_bags=16", "split.select=0.1"),
    *("trainer.max_epochs=40", "trainer.precision=32-true", "resamples=1000", "figures=false"),
)
OWN_SETTINGS = {"regression": ("model.heads=3", "model.dropout=0.1")}
"""A number is no straight function of the tissue's share, to which one head's logit nearly is; three bend it."""


def main() -> None:
    """Trains what is missing, then prints the table."""
    asked = _asked()
    jobs = [(tool, seed) for tool in asked.tools for seed in asked.seeds]
    with ThreadPoolExecutor(asked.jobs) as pool:
        rows = list(pool.map(lambda job: _row(job[0], job[1], asked), jobs))
    head = ["tool", "seed", "metric", "ABMIL", "oracle", "short by", "labels permuted", "patients"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
    if asked.out:
        write(asked.out, table + "\n")
    print(table)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [name for name, node in config.described("tool").items() if node["tool"].get("category") == CUSTOM]
    parser.add_argument("--tools", nargs="+", default=known, choices=config.choices("tool"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, a core each")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_endpoints")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("words", nargs="*", help="options of each training, after --")
    return parser.parse_args()


def _row(tool: str, seed: int, asked: argparse.Namespace) -> list[str]:
    folder = asked.work / f"{tool}-{seed}"
    simulated = [f"simulation.patients={asked.patients}", f"simulation.seed={seed}", *SIMULATED]
    if not (folder / "cohort").exists():
        mil("simulate", str(folder / "cohort"), f"tool={tool}", *simulated)
        _permute(folder, tool, seed)
    settings = (*SETTINGS, *OWN_SETTINGS.get(tool, ()), *asked.words)
    options = [f"tool={tool}", "model=abmil", f"seed={seed}", "trainer.enable_progress_bar=false", *settings]
    elsewhere = [f"data.cohort={folder}/permuted.csv", f"data.features={folder}/cohort/features", "baseline=false"]
    own = _trained(folder / "true", [*options, *simulated])
    permuted = _trained(folder / "permuted", [*options, *elsewhere])
    metric = next(iter(own["metrics"]))
    found, best = own["metrics"][metric], own["oracle"][metric]["value"]
    print(f"{tool}, seed {seed}: {metric} {found['value']:.3f}, oracle {best:.3f}", flush=True)
    counts = ", ".join(f"{name} {amount}" for name, amount in own["patients"].items())
    shown = [_interval(found), f"{best:.3f}", f"{best - found['value']:+.3f}", _interval(permuted["metrics"][metric])]
    return [f"`{tool}`", str(seed), metric, *shown, counts]


def _permute(folder: Path, tool: str, seed: int) -> None:
    """The clinical table with the targets of whole patients changed about."""
    table = pd.read_csv(folder / "cohort" / "cohort.csv", dtype=str, keep_default_na=False)
    columns = list(build.endpoint(compose([f"tool={tool}"])).columns)
    patients = table.drop_duplicates("patient").set_index("patient")[columns]
    shuffled = patients.sample(frac=1, random_state=np.random.RandomState(seed)).set_axis(patients.index)
    table[columns] = shuffled.loc[table["patient"]].to_numpy()
    write(folder / "permuted.csv", table.to_csv(index=False))


def _trained(run: Path, words: Sequence[str]) -> Any:
    if not (run / "report.json").exists():
        mil("train", *words, f"hydra.run.dir={run}")
    return read_json(run / "report.json")


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


if __name__ == "__main__":
    main()

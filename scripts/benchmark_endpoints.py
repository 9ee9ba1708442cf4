"""Every endpoint on a simulated cohort whose best possible score is known, and on the same cohort with labels permuted.

usage: python scripts/benchmark_endpoints.py [--tools NAME ...] [--seeds 0 ...] [--patients 300] [--jobs 2]
                                             [--work runs/benchmark_endpoints] [--out FILE] [-- KEY=VALUE ...]

Each is `mil train tool=NAME model=abmil` as a user types it: five folds, every patient reported once. The settings
were chosen on cohorts of another seed; options after `--` are passed to every training. The encoder of the cohorts
hardly ever confuses tissues, so that the gap to the oracle is what the endpoint did not learn. The permuted cohort has
the same features, but its patients' targets are permuted, so that there is nothing to learn.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from commands import mil, number

from mil import config
from mil.files import write
from mil.report.report_files import read_report
from mil.report.schema import Estimate, Report
from mil.report.sections.oracle import Oracle
from mil.study import build
from mil.study.compose import compose

ROOT = Path(__file__).resolve().parents[1]
CUSTOM = "custom"
"""Category of the tools that only set an endpoint."""
SIMULATED = ("simulation.tiles=200", "simulation.width=64", "simulation.contrast=2")
SETTINGS = (
    *("model.embed_dim=64", "model.attention_dim=64", "optimizer.lr=3e-3", "data.batch_bags=16", "split.select=0.1"),
    *("trainer.max_epochs=40", "trainer.precision=32-true", "resamples=1000", "figures=false"),
)
OWN_SETTINGS = {"regression": ("model.heads=3", "model.dropout=0.1")}
"""The target is not linear in the share of the tissue, while the logit of one head nearly is; three heads are not."""


def main() -> None:
    """Train what is missing, then print the table."""
    options = _options()
    jobs = [(tool, seed) for tool in options.tools for seed in options.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda job: _row(job[0], job[1], options), jobs))
    head = ["tool", "seed", "metric", "ABMIL", "oracle", "short by", "labels permuted", "patients"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
    if options.out:
        write(options.out, table + "\n")
    print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    custom_tools = [name for name, node in config.described("tool").items() if node["tool"].get("category") == CUSTOM]
    parser.add_argument("--tools", nargs="+", default=custom_tools, choices=config.choices("tool"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2, help="trainings in parallel, one core each")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_endpoints")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    parser.add_argument("words", nargs="*", help="options of each training, after --")
    return parser.parse_args()


def _row(tool: str, seed: int, options: argparse.Namespace) -> list[str]:
    folder = options.work / f"{tool}-{seed}"
    simulated = [f"simulation.patients={options.patients}", f"simulation.seed={seed}", *SIMULATED]
    if not (folder / "cohort").exists():
        mil("simulate", str(folder / "cohort"), f"tool={tool}", *simulated)
        _permute(folder, tool, seed)
    settings = (*SETTINGS, *OWN_SETTINGS.get(tool, ()), *options.words)
    words = [f"tool={tool}", "model=abmil", f"seed={seed}", "trainer.enable_progress_bar=false", *settings]
    elsewhere = [f"data.cohort={folder}/permuted.csv", f"data.features={folder}/cohort/features", "baseline=false"]
    report = _trained(folder / "true", [*words, *simulated])
    permuted_report = _trained(folder / "permuted", [*words, *elsewhere])
    metric = next(iter(report.metrics))
    oracle = report.section(Oracle)
    assert oracle is not None, "the cohort is simulated"
    value, best = (number(metrics[metric].value) for metrics in (report.metrics, oracle.metrics))
    print(f"{tool}, seed {seed}: {metric} {value:.3f}, oracle {best:.3f}", flush=True)
    counts = ", ".join(f"{name} {amount}" for name, amount in report.patients.items())
    intervals = [_interval(each.metrics[metric]) for each in (report, permuted_report)]
    return [f"`{tool}`", str(seed), metric, intervals[0], f"{best:.3f}", f"{best - value:+.3f}", intervals[1], counts]


def _permute(folder: Path, tool: str, seed: int) -> None:
    """Write the clinical table with the targets permuted among patients."""
    table = pd.read_csv(folder / "cohort" / "cohort.csv", dtype=str, keep_default_na=False)
    columns = list(build.endpoint(compose([f"tool={tool}"])).columns)
    patients = table.drop_duplicates("patient").set_index("patient")[columns]
    shuffled = patients.sample(frac=1, random_state=np.random.RandomState(seed)).set_axis(patients.index)
    table[columns] = shuffled.loc[table["patient"]].to_numpy()
    write(folder / "permuted.csv", table.to_csv(index=False))


def _trained(run: Path, words: Sequence[str]) -> Report:
    if not (run / "report.json").exists():
        mil("train", *words, f"hydra.run.dir={run}")
    return read_report(run / "report.json")


def _interval(estimate: Estimate) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(*map(number, (estimate.value, estimate.low, estimate.high)))


if __name__ == "__main__":
    main()

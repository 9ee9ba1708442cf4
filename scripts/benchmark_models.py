"""Every model of the zoo on the same data, trained the same way, against mean pooling.

usage: scripts/benchmark_models [--data FOLDER] [--work runs/benchmark_models] [--models NAME ...]
                                [--sets NAME ...] [--repeats 1] [--jobs 2] [--out FILE]

Stratified 5-fold cross-validation, repeated with other folds and weights; all folds of one repeat are the same for
every model. Adam at 1e-3 with weight decay 5e-3, cosine down to zero, 20 epochs, batches of 8 bags, gradients clipped
at norm 1, embeddings 96 wide, 32 landmarks where the method has them: one setting for all models and data, chosen
before any model was tried with it, so that the table compares methods at equal effort and not each at its best. The
last epoch counts; no epoch is selected. Bold is better than mean pooling by Nadeau and Bengio's corrected test over
folds, p below 0.05 by Holm's method over the models of a column. Features are standardised on each fold's training
tiles. Results are stored in the work folder, and a trial that is there is not run again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mil import config
from mil.files import read_json, write, write_json
from mil.stats.corrected_resampled import fold_mean
from mil.stats.multiple_tests import holm

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("MIL_REAL_DATA", "real_data"))
REFERENCE = "mean"
FOLDS = 5
ALPHA = 0.05
UNIT_SEEDS = 3
COSTS, UNITS = "costs", "unit tests"


@dataclass(frozen=True)
class Trial:
    """One model on one data set, once."""

    model: str
    data: str
    repeat: int = 0

    def path(self, work: Path) -> Path:
        """Return the file of its result."""
        return work / "trials" / f"{self.model}--{self.data.replace(' ', '_')}--{self.repeat}.json"


@dataclass
class Column:
    """Results on one data set."""

    data: Mapping[str, Any]
    scores: dict[str, list[float]] = field(default_factory=dict)
    attention: dict[str, list[float]] = field(default_factory=dict)


def main() -> None:
    """Run the missing trials, then print the tables."""
    options = _options()
    if options.trials:
        for trial in json.loads(options.trials):
            _do(Trial(*trial), options.data, options.work)
        return
    sets = options.sets or _sets(options.data, options.work)
    trials = [
        Trial(model, name, repeat) for repeat in range(options.repeats) for name in sets for model in options.models
    ]
    trials += [Trial(model, UNITS) for model in options.models]
    missing = [trial for trial in trials if not trial.path(options.work).exists()]
    # one process per model: the libraries are loaded once for all data sets
    by_model = {model: [trial for trial in missing if trial.model == model] for model in options.models}
    jobs = [trials for trials in by_model.values() if trials]
    with ThreadPoolExecutor(options.jobs) as pool:
        for done, line in enumerate(pool.map(lambda job: _apart(job, options), jobs), 1):
            print(f"{done} of {len(jobs)}: {line}", flush=True)
    for model in options.models:  # one after the other and in processes of their own: time and memory are measured
        if options.costs and not Trial(model, COSTS).path(options.work).exists():
            print(_apart([Trial(model, COSTS)], options), flush=True)
    tables = "\n\n".join(_tables(options.models, sets, options.repeats, options.work, options.costs))
    if options.out:
        write(options.out, tables + "\n")
    print(tables)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REAL_DATA, help="folder of real data; default: $MIL_REAL_DATA")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_models", help="folder of the results")
    parser.add_argument("--models", nargs="+", default=config.choices("model"), choices=config.choices("model"))
    parser.add_argument("--sets", nargs="+", help="data sets; default: all that exist")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes in parallel, one core each")
    parser.add_argument("--out", type=Path, help="Markdown file for the tables")
    parser.add_argument("--no-costs", dest="costs", action="store_false", help="do not measure time and memory")
    parser.add_argument("--trials", help=argparse.SUPPRESS)
    return parser.parse_args()


def _sets(root: Path, work: Path) -> list[str]:
    from zoo_data import data_sets

    return list(data_sets(root, work))


def _apart(trials: Sequence[Trial], options: argparse.Namespace) -> str:
    """Run trials in a process of their own; each result is stored as soon as it exists."""
    listed = json.dumps([[trial.model, trial.data, trial.repeat] for trial in trials])
    command = [sys.executable, __file__, "--trials", listed, "--data", options.data, "--work", options.work]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"benchmark_models: {trials[0].model} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return f"{trials[0].model} on {', '.join(trial.data for trial in trials)}"


def _do(trial: Trial, root: Path, work: Path) -> None:
    import torch
    from zoo_data import data_sets, unit_tests
    from zoo_trials import Settings, costs, cross_validated, unit_tested

    torch.set_num_threads(1)
    settings = Settings()
    if trial.data == COSTS:
        result: dict[str, Any] = costs(trial.model)
    elif trial.data == UNITS:
        result = {}
        for seed in range(UNIT_SEEDS):
            for name, test in unit_tests(seed).items():
                result.setdefault(name, []).append(unit_tested(trial.model, test, seed, settings))
    else:
        data = data_sets(root, work)[trial.data]()
        description = {"bags": len(data.label), "positive": int(data.label.sum()), "metric": data.metric}
        description |= {"oracle": data.oracle, "published": dict(data.published or {})}
        needs = _needs_coords(trial.model) and data.coords is None
        outcome = {} if needs else cross_validated(trial.model, data, trial.repeat, settings)
        result = {"data": description, "settings": vars(settings)} | outcome
    write_json(trial.path(work), result)


def _needs_coords(model: str) -> bool:
    from hydra.utils import get_class

    return bool(get_class(config.described("model")[model]["_target_"]).needs_coords)  # type: ignore[attr-defined]


def _tables(models: Sequence[str], sets: Sequence[str], repeats: int, work: Path, costs: bool = True) -> Iterator[str]:
    columns = {name: _column(models, name, repeats, work) for name in sets}
    yield _scores(models, columns)
    yield _attention(models, columns)
    if costs:
        yield _costs(models, work)
    yield _verdicts(models, columns)


def _column(models: Sequence[str], name: str, repeats: int, work: Path) -> Column:
    stored = {model: [read_json(Trial(model, name, r).path(work)) for r in range(repeats)] for model in models}
    column = Column(stored[models[0]][0]["data"])
    for model, outcomes in stored.items():
        if "scores" in outcomes[0]:
            column.scores[model] = [score for outcome in outcomes for score in outcome["scores"]]
            column.attention[model] = [auroc for outcome in outcomes for auroc in outcome["attention"]]
    return column


def _scores(models: Sequence[str], columns: Mapping[str, Column]) -> str:
    """Return mean and standard error over folds; bold is shown to beat mean pooling on the same folds."""
    head = ["model", *(f"{name}<br>{column.data['metric']}" for name, column in columns.items())]
    rows = [["bags (positive)", *(f"{column.data['bags']} ({column.data['positive']})" for column in columns.values())]]
    oracles = [column.data["oracle"] for column in columns.values()]
    rows.append(["oracle", *("" if value is None else f"{value:.3f}" for value in oracles)])
    rows += [[f"`{model}`", *(_cell(model, column) for column in columns.values())] for model in models]
    return _markdown(head, rows)


def _cell(model: str, column: Column) -> str:
    if model not in column.scores:
        return "needs coordinates"
    middle, error = _mean(column.scores[model])
    shown = f"{middle:.3f} ± {error:.3f}"
    published = column.data["published"].get(model)
    note = "" if published is None else f" (published {published:.3f})"
    return (f"**{shown}**" if _beats(column).get(model, 0) > 0 else shown) + note


def _beats(column: Column) -> dict[str, int]:
    """Return 1 for models shown to beat mean pooling over the same folds, -1 for those shown to be worse, else 0.

    Nadeau and Bengio's corrected test, as models of different folds share most of their training bags; p values by
    Holm's method over the models of the column.
    """
    if REFERENCE not in column.scores:
        return {}
    models = [model for model in column.scores if model != REFERENCE]
    gains = [
        fold_mean(np.subtract(column.scores[model], column.scores[REFERENCE]), 1 / (FOLDS - 1)) for model in models
    ]
    raised = holm([gain.p for gain in gains])
    return {
        model: 0 if p is None or p >= ALPHA else int(np.sign(gain.value))
        for model, gain, p in zip(models, gains, raised, strict=True)
    }


def _attention(models: Sequence[str], columns: Mapping[str, Column]) -> str:
    """Return the AUROC of attention for the tiles that carry the label, mean over reported positive bags."""
    with_attention = {name: column for name, column in columns.items() if any(column.attention.values())}
    rows = [
        [f"`{model}`", *(_shown(column.attention.get(model, [])) for column in with_attention.values())]
        for model in models
        if any(column.attention.get(model) for column in with_attention.values())
    ]
    return _markdown(["attention against tile truth", *with_attention], rows)


def _shown(values: Sequence[float]) -> str:
    return "{:.3f} ± {:.3f}".format(*_mean(values)) if values else ""


def _costs(models: Sequence[str], work: Path) -> str:
    """Return size and costs of each model, and which assumptions of multiple-instance learning it keeps to."""
    from zoo_data import MAKERS

    head = ["model", "parameters", "tiles/s, relative to mean", "growth of time", "memory, GB", *MAKERS]
    rows = []
    reference = read_json(Trial(REFERENCE, COSTS).path(work))["tiles_per_s"] if REFERENCE in models else float("nan")
    for model in models:
        cost, units = (read_json(Trial(model, name).path(work)) for name in (COSTS, UNITS))
        speed = f"{cost['tiles_per_s']:,.0f} ({cost['tiles_per_s'] / reference:.2f})"
        row = [f"`{model}`", f"{cost['parameters']:,}", speed, f"n^{cost['growth']:.2f}", f"{cost['peak_gb']:.2f}"]
        rows.append([*row, *(_verdict(units[name]) for name in MAKERS)])
    return _markdown(head, rows)


def _verdict(results: Sequence[Mapping[str, float]]) -> str:
    """Say whether the AUROC on misleading bags stays above one half, or that the training bags were not learnt."""
    train, test = (float(np.mean([result[part] for result in results])) for part in ("train", "test"))
    verdict = "not learnt" if train < 0.75 else "yes" if test > 0.5 else "no"
    return f"{verdict} ({test:.2f})"


def _verdicts(models: Sequence[str], columns: Mapping[str, Column]) -> str:
    """Say in words which models beat mean pooling on which data."""
    lines = []
    for name, column in columns.items():
        signs = _beats(column)
        better = [model for model in models if signs.get(model, 0) > 0]
        worse = [model for model in models if signs.get(model, 0) < 0]
        comparison = f"better than mean pooling: {_words(better)}; worse: {_words(worse)}"
        lines.append(f"- {name} ({column.data['bags']} bags): {comparison}.")
    return "\n".join(lines)


def _words(models: Sequence[str]) -> str:
    return ", ".join(f"`{model}`" for model in models) or "none"


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()

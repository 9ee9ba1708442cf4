"""Turn a finished sweep into one run: for each outer fold the configuration that its select patients chose."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from mil import files
from mil.errors import ConfigError
from mil.fitted.state import refit
from mil.runs.run import COMPARATORS, PATIENTS, Run, open_run
from mil.runs.states import write_states
from mil.runs.sweep_choice import choose, chosen_by_outer_fold, combine
from mil.storage import entries, read_bytes
from mil.study.compose import read_config, write_config
from mil.study.run_config import RunConfig
from mil.tables import csv_text

FOLDER = "selected"
SHARED_OPTIONS = ("tool.endpoint", "tool.name", "data.cohort", "seed")
"""Options that all jobs must share, so that they answer one question about the same patients in the same folds."""


def select(sweep: Path) -> Path:
    """Choose among the jobs of a sweep and write the result to the folder `selected` in it, as a run without models.

    It holds `selection.csv` (outer fold, configuration, its metric among the select patients, chosen or not),
    `predictions.csv` with one fold per outer fold, the baselines combined in the same way, the oracle and the table of
    patients of the first job, and the configuration of the first job with the names of all models.

    Raises:
        ConfigError: if the folder has fewer than two finished jobs, or they answer different questions.
        PredictionsError: if jobs have different splits, or no metric can be computed.
    """
    runs = _jobs(sweep)
    first = next(iter(runs.values()))
    options = _differing_options(runs)
    _check_shared_options(sweep, options)
    tables = {name: run.tables["predictions"] for name, run in runs.items()}
    selection = choose(tables, first.endpoint)
    chosen = chosen_by_outer_fold(selection)
    out = sweep / FOLDER
    _write(out / "selection.csv", selection.assign(options=selection["config"].map(options).map(_options_line)))
    predictions = combine(tables, chosen, first.endpoint)
    _write(out / "predictions.csv", predictions)
    _write(out / "split.csv", predictions[["patient", "fold", "role"]])
    for name in COMPARATORS:
        if all(name in run.tables for run in runs.values()):
            _write(
                out / f"{name}.csv", combine({name: first.tables[name]}, dict.fromkeys(chosen, name), first.endpoint)
            )
    for name in ("oracle.csv", PATIENTS):
        if (first.folder / name).is_file():
            files.write(out / name, read_bytes(first.folder / name))
    write_states(out, refit(predictions, first.endpoint, first.tool))
    write_config(out / "config.yaml", _combined_config(runs.values()))
    return out


def _jobs(sweep: Path) -> dict[str, Run]:
    """Open the jobs by name, in the sweep's order."""
    folders = [each for each in _entries(sweep) if (each / "config.yaml").is_file() and each.name != FOLDER]
    if len(folders) < 2:
        raise ConfigError(f"{sweep}: holds {len(folders)} runs, expected two or more, as made by mil train -m")
    return {path.name: open_run(path) for path in sorted(folders, key=lambda path: (len(path.name), path.name))}


def _entries(sweep: Path) -> list[Path]:
    return entries(sweep) if sweep.is_dir() else []


def _config(run: Run) -> RunConfig:
    return read_config(run.folder / "config.yaml")


def _differing_options(runs: Mapping[str, Run]) -> dict[str, dict[str, str]]:
    """Return the options of each job that are not the same in all jobs, by dotted name."""
    jobs = {name: dict(_leaves(_config(run).plain())) for name, run in runs.items()}
    keys = sorted({key for options in jobs.values() for key in options})
    differing = [key for key in keys if len({options.get(key) for options in jobs.values()}) > 1]
    return {name: {key: options[key] for key in differing if key in options} for name, options in jobs.items()}


def _leaves(node: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the options below a node by dotted name, as text."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(node)


def _check_shared_options(sweep: Path, options_by_job: Mapping[str, Mapping[str, str]]) -> None:
    shared = tuple(f"{key}." for key in SHARED_OPTIONS)
    differing = sorted({key for job in options_by_job.values() for key in job if f"{key}.".startswith(shared)})
    if differing:
        raise ConfigError(
            f"{sweep}: jobs differ in {differing[0]}, expected one question about the same patients in all"
        )


def _options_line(options: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items())


def _combined_config(runs: Iterable[Run]) -> RunConfig:
    """Return the configuration of the first job; if the models differ, with the names of all as its model."""
    configs = [_config(run) for run in runs]
    models = dict.fromkeys(config.model.target.rpartition(".")[2] for config in configs)
    return configs[0].replaced({"model": {"_target_": " or ".join(models)}}) if len(models) > 1 else configs[0]


def _write(path: Path, table: pd.DataFrame) -> None:
    files.write(path, csv_text(table))

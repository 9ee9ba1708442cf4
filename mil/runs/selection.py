"""From a finished sweep to one run: in each outer part the configuration that the select patients chose."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mil import files
from mil.cards import BESIDE
from mil.errors import ConfigError
from mil.runs.run import PATIENTS, Run, open_run
from mil.runs.sweep_choice import assembled, choose, chosen_by_part
from mil.study.compose import read_config, write_config
from mil.study.config import RunConfig

FOLDER = "selected"
SAME = ("tool.endpoint", "tool.name", "data.cohort", "seed")
"""Options that all jobs have to share: one question about the same patients in the same folds."""


def select(sweep: Path) -> Path:
    """Chooses among the jobs of a sweep and writes what was chosen to `selected` beside them, as a run without models.

    It holds `selection.csv` (outer part, configuration, its metric among the select patients, chosen or not),
    `predictions.csv` with a fold an outer part, the baselines put together in the same way, what the jobs know of the
    patients, and the configuration of the first job with the models of all.

    Raises:
        ConfigError: a folder without two finished jobs, or jobs of different questions.
        PredictionsError: jobs with different splits, or without a metric.
    """
    runs = _runs(sweep)
    first = next(iter(runs.values()))
    differing = _differing(runs)
    _refuse_questions(sweep, differing)
    tables = {name: run.tables["predictions"] for name, run in runs.items()}
    selection = choose(tables, first.endpoint)
    by_part = chosen_by_part(selection)
    out = sweep / FOLDER
    _write(out / "selection.csv", selection.assign(options=selection["config"].map(differing).map(_line)))
    found = assembled(tables, by_part, first.endpoint)
    _write(out / "predictions.csv", found)
    _write(out / "split.csv", found[["patient", "fold", "role"]])
    for name in BESIDE:
        if all(name in run.tables for run in runs.values()):
            beside = assembled({name: first.tables[name]}, dict.fromkeys(by_part, name), first.endpoint)
            _write(out / f"{name}.csv", beside)
    for name in ("oracle.csv", PATIENTS):
        if (first.folder / name).is_file():
            files.write(out / name, (first.folder / name).read_bytes())
    write_config(out / "config.yaml", _together(runs.values()))
    return out


def _runs(sweep: Path) -> dict[str, Run]:
    """The jobs by name, in the sweep's order."""
    found = [path.parent for path in sweep.glob("*/config.yaml") if path.parent.name != FOLDER]
    if len(found) < 2:
        raise ConfigError(f"{sweep}: holds {len(found)} runs, expected two or more, as mil train -m makes them")
    return {path.name: open_run(path) for path in sorted(found, key=lambda path: (len(path.name), path.name))}


def _config(run: Run) -> RunConfig:
    return read_config(run.folder / "config.yaml")


def _differing(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """Each job's options that are not the same in all."""
    flat = {name: dict(_leaves(_config(run).plain())) for name, run in runs.items()}
    keys = sorted({key for own in flat.values() for key in own})
    apart = [key for key in keys if len({repr(own.get(key)) for own in flat.values()}) > 1]
    return {name: {key: own[key] for key in apart if key in own} for name, own in flat.items()}


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node


def _refuse_questions(sweep: Path, differing: Mapping[str, Mapping[str, Any]]) -> None:
    shared = tuple(f"{key}." for key in SAME)
    odd = sorted({key for own in differing.values() for key in own if f"{key}.".startswith(shared)})
    if odd:
        raise ConfigError(f"{sweep}: jobs differ in {odd[0]}, expected one question about the same patients in all")


def _line(options: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items())


def _together(runs: Iterable[Run]) -> RunConfig:
    """The first configuration; where the models differ, their names in the place of one."""
    configs = [_config(run) for run in runs]
    models = dict.fromkeys(config.model.target.rpartition(".")[2] for config in configs)
    return configs[0].replaced({"model": {"_target_": " or ".join(models)}}) if len(models) > 1 else configs[0]


def _write(path: Path, table: pd.DataFrame) -> None:
    files.write(path, table.to_csv(index=False))

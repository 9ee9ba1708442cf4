"""From a finished run to what a person reads: report.json, figures, and a card in every checkpoint."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from mil import build, checkpoint, files
from mil.endpoints.base import Endpoint
from mil.errors import ConfigError
from mil.evaluation.figures import draw
from mil.evaluation.report import evaluate
from mil.evaluation.tables import read
from mil.zoo.card import BESIDE, card, interval, population

CARD, REPORT, FIGURES = "README.md", "report.json", "figures"


def describe_run(folder: Path) -> float | None:
    """Evaluates a run's stored predictions, draws them, writes the cards; gives the first metric.

    Raises:
        ConfigError: no finished run lies there.
    """
    for name in ("config.yaml", "predictions.csv"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: holds no {name}, expected a finished run")
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    endpoint = build.endpoint(config)
    tables = _tables(folder, endpoint)
    report = _evaluate(config, endpoint, tables)
    files.write_json(folder / REPORT, report)
    if report["metrics"]:
        draw(tables["predictions"], endpoint, report, folder / FIGURES)
    for fold, place in _checkpoints(folder):
        _describe_checkpoint(config, endpoint, tables, report, fold, place)
    value = report["metrics"][endpoint.metric]["value"] if report["metrics"] else None
    return None if value is None else float(value)


def headline(report: Mapping[str, Any]) -> Iterator[str]:
    """The report in a few lines for a terminal."""
    for name, found in report["metrics"].items():
        yield f"{name}  {interval(found)}  {population(found)}"
    for beside in (report.get(key) or {} for key in BESIDE):
        for name, found in beside.get("metrics", {}).items():
            yield f"{name} of {beside['name']}  {interval(found)}"
    for name, found in (report.get("oracle") or {}).items():
        yield f"{name} of the oracle  {interval(found)}"


def _tables(folder: Path, endpoint: Endpoint) -> dict[str, pd.DataFrame]:
    found = {name: folder / f"{name}.csv" for name in ("predictions", *BESIDE, "oracle")}
    return {name: read(path, endpoint.columns) for name, path in found.items() if path.is_file()}


def _evaluate(config: DictConfig, endpoint: Endpoint, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    predictions = tables["predictions"]
    head = {"tool": config.tool.name, "simulated": config.data.cohort is None, "model": config.model._target_}
    if not (predictions["role"] == "report").any():
        return head | {"schema": 1, "folds": 0, "patients": {}, "metrics": {}, "oracle": None} | dict.fromkeys(BESIDE)
    return head | evaluate(
        predictions,
        endpoint,
        decision=config.tool.decision,
        baseline=tables.get("baseline"),
        covariates=tables.get("covariates"),
        oracle=tables.get("oracle"),
        resamples=config.resamples,
        seed=config.seed,
    )


def _checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """Every fold's number and its checkpoint folder."""
    found = sorted(folder.glob("fold_*/checkpoint"), key=lambda path: int(path.parent.name.removeprefix("fold_")))
    places = found or [folder / "checkpoint"]
    for place in places:
        number = place.parent.name.removeprefix("fold_") if found else "0"
        yield int(number), place


def _describe_checkpoint(
    config: DictConfig,
    endpoint: Endpoint,
    tables: Mapping[str, pd.DataFrame],
    run: Mapping[str, Any],
    fold: int,
    place: Path,
) -> None:
    """The fold's own report, with the run's beside it where there are several folds."""
    manifest = checkpoint.reopened(place)
    own = {name: table[table["fold"] == fold] if "fold" in table else table for name, table in tables.items()}
    report = dict(run) if run["folds"] < 2 else _evaluate(config, endpoint, own) | {"run": dict(run)}
    shutil.rmtree(place / FIGURES, ignore_errors=True)
    if report["metrics"]:
        draw(own["predictions"], endpoint, report, place / FIGURES)
    files.write_json(place / REPORT, report)
    figures = sorted(path.name for path in (place / FIGURES).glob("*.png"))
    files.write(place / CARD, card(manifest, endpoint, report, figures))
    checkpoint.seal(place, manifest)

"""From a finished run to what a person reads: report.json, report.html, figures, and a card in every checkpoint."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mil import checkpoint, files
from mil.cards import BESIDE, RESEARCH, SIMULATED, card, interval, population
from mil.checkpoint import Checkpoint
from mil.fitted.calibrators import Calibrator
from mil.inference.external import Labelled
from mil.manifest import Manifest
from mil.report.assemble import SCHEMA, evaluate
from mil.report.evaluation import Evaluation
from mil.report.figures import draw, draw_learning
from mil.report.page.html import html
from mil.runs.looks import looked
from mil.runs.run import Run, checkpoints_in, open_run

TOLD = ("title", "question", "specimen", "ground_truth", "intended_use", "out_of_scope")
"""What a report repeats of its tool."""
CARD, REPORT, PAGE, FIGURES = "README.md", "report.json", "report.html", "figures"


def describe_run(folder: Path, verb: str = "train") -> float | None:
    """Evaluates a run's stored predictions, draws them, writes the cards; gives the first metric.

    Each time is a look at the report patients, and is counted.

    Raises:
        ConfigError: no finished run lies there.
    """
    run = open_run(folder)
    places = checkpoints_in(folder)
    manifests = {fold: checkpoint.reopened(place) for fold, place in places.items()}
    looks = looked(folder, verb) if run.reports else 0
    report = reported(run, manifests.values()) | {"looks": looks}
    files.write_json(folder / REPORT, report)
    if run.figures or verb != "train":
        drawn(run, report, folder)
    files.write(folder / PAGE, page(titled(run.tool), report, folder))
    for fold, place in places.items():
        _describe_checkpoint(run, report, manifests[fold], fold, place)
    value = report["metrics"][run.endpoint.metric]["value"] if report["metrics"] else None
    return None if value is None else float(value)


def describe(evaluation: Evaluation, report: Mapping[str, Any], folder: Path, title: str) -> None:
    """Writes report.json, figures and report.html of predictions that are no run's."""
    files.write_json(folder / REPORT, report)
    if report["metrics"]:
        draw(evaluation, evaluation.endpoint, report, folder / FIGURES)
    files.write(folder / PAGE, page(title, report, folder))


def external(loaded: Checkpoint, found: Labelled, resamples: int) -> tuple[Evaluation, dict[str, Any]]:
    """A checkpoint's predictions of a cohort that it was not trained on, and the report of them."""
    manifest = loaded.manifest
    evaluation = Evaluation.of(
        found.table, loaded.endpoint, manifest.tool, found.patients, resamples, frozen=manifest.fitted
    )
    head = {"tool": manifest.tool["name"], "simulated": False, "model": manifest.model.name, "resamples": resamples}
    more = {"external": True, "withheld": found.withheld, "fitted": list(_fitted(manifest))}
    return evaluation, head | evaluate(evaluation) | more


def headline(report: Mapping[str, Any]) -> Iterator[str]:
    """The report in a few lines for a terminal."""
    for name, found in report["metrics"].items():
        yield f"{name}  {interval(found)}  {population(found)}"
    for beside in (report.get(key) or {} for key in BESIDE):
        for name, found in beside.get("metrics", {}).items():
            yield f"{name} of {beside['name']}  {interval(found)}"
    for name, found in (report.get("oracle") or {}).items():
        yield f"{name} of the oracle  {interval(found)}"


def reported(run: Run, manifests: Iterable[Manifest], fold: int | None = None) -> dict[str, Any]:
    """What report.json says of a run, or of one of its folds, from its tables alone.

    Args:
        run: Opened.
        manifests: Of its folds' checkpoints, or of the one fold's.
        fold: The one.
    """
    tables = of_fold(run.tables, fold)
    head = {"tool": run.tool["name"], **{key: run.tool[key] for key in TOLD if run.tool.get(key)}}
    head |= {"simulated": run.simulated, "model": run.model, "encoder": run.encoder, "resamples": run.resamples}
    fitted = [one for manifest in manifests for one in _fitted(manifest)]
    if not (tables["predictions"]["role"] == "report").any():
        nothing = {"schema": SCHEMA, "folds": 0, "patients": {}, "metrics": {}, "oracle": None}
        return head | nothing | dict.fromkeys(BESIDE) | {"fitted": fitted}
    beside = {key: tables.get(key) for key in (*BESIDE, "oracle")}
    return head | evaluate(evaluation(run, tables), **beside) | {"fitted": fitted}


def evaluation(run: Run, tables: Mapping[str, pd.DataFrame]) -> Evaluation:
    """What the sections and figures read of these tables."""
    return Evaluation.of(tables["predictions"], run.endpoint, run.tool, run.patients, run.resamples, run.seed)


def of_fold(tables: Mapping[str, pd.DataFrame], fold: int | None) -> dict[str, pd.DataFrame]:
    """Tables of one fold, or as they are."""
    if fold is None:
        return dict(tables)
    return {name: table[table["fold"] == fold] if "fold" in table else table for name, table in tables.items()}


def _fitted(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """All that was fitted or chosen, and on whom: nothing of it may rest on report patients."""
    fold, patients, fitted = manifest.data["split"]["fold"], manifest.data["patients"], manifest.fitted
    amounts = {role: amount.get("n") for role, amount in patients.items()}

    def told(what: str, on: str, **more: Any) -> dict[str, Any]:
        return {"fold": fold, "what": what, "on": on, "n": amounts.get(on), **more}

    yield told("weights", "train")
    if manifest.training.get("best_epoch"):
        yield told("epoch", "select" if "select" in amounts else "train", value=manifest.training["best_epoch"])
    if state := {key: value for key, value in fitted.get("endpoint", {}).items() if value is not None}:
        yield told(f"endpoint: {', '.join(state).replace('_', ' ')}", "train")
    if manifest.covariates is not None:
        yield told("means and spreads of the clinical covariates", "train")
    for one in fitted.get("decisions") or []:
        yield {"fold": fold, "what": f"decision {one['name']}", "on": one["on"], "n": one["n"], "value": one["cuts"]}
    if fitted.get("calibration"):
        held = Calibrator.from_state(fitted["calibration"])
        yield {"fold": fold, "what": f"calibration by {held.method}", "on": held.on, "n": held.n}
    if fitted.get("conformal"):
        yield told(f"sets of coverage {fitted['conformal']['coverage']}", "select")
    if fitted.get("novelty"):
        yield told("what is too far from the training slides", "train and select")


def _describe_checkpoint(run: Run, whole: Mapping[str, Any], manifest: Manifest, fold: int, place: Path) -> None:
    """The fold's own report and card; of several folds figures are the run's, and a fold's are drawn at its release."""
    shutil.rmtree(place / FIGURES, ignore_errors=True)
    if whole["folds"] < 2:
        report = dict(whole)
        if (run.folder / FIGURES).is_dir():
            shutil.copytree(run.folder / FIGURES, place / FIGURES)
    else:
        report = reported(run, [manifest], fold) | {"looks": whole["looks"], "run": dict(whole)}
    files.write_json(place / REPORT, report)
    if whole["folds"] < 2:
        files.write(place / PAGE, page(titled(run.tool), report, place))
    files.write(place / CARD, card(manifest, run.endpoint, report, figures_of(place)))
    checkpoint.seal(place, manifest)


def _log(place: Path) -> Path:
    """What Lightning's CSV logger wrote last beside a checkpoint."""
    found = sorted(place.parent.glob("log/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime_ns)
    return found[-1] if found else place.parent / "log" / "metrics.csv"


def figures_of(place: Path) -> list[str]:
    """The names of a folder's figures, in order."""
    return sorted(path.name for path in (place / FIGURES).glob("*.png"))


def drawn(run: Run, report: Mapping[str, Any], place: Path, fold: int | None = None) -> None:
    """The figures of a run, or of one of its folds, in `place/figures`."""
    shutil.rmtree(place / FIGURES, ignore_errors=True)
    if report["metrics"]:
        draw(evaluation(run, of_fold(run.tables, fold)), run.endpoint, report, place / FIGURES)
    logs = {f"fold {number}": _log(own) for number, own in checkpoints_in(run.folder).items() if fold in (None, number)}
    if logs := {name: path for name, path in logs.items() if path.is_file()}:
        draw_learning(logs, run.endpoint.metric, place / FIGURES)


def titled(tool: Mapping[str, Any]) -> str:
    """What stands above the report of a tool."""
    return f"{tool['title']} ({tool['name']})"


def page(title: str, report: Mapping[str, Any], place: Path) -> str:
    """report.html of a folder, from its report and figures."""
    every = sorted((place / FIGURES).glob("*.*g"), key=lambda path: (path.stem, path.suffix))
    figures = {path.stem: path for path in every}  # an SVG where there is one
    banner = SIMULATED if report["simulated"] else RESEARCH
    beside = [name for name in (REPORT, "predictions.csv") if (place / name).is_file()]
    return html(report, figures, title, banner, beside)

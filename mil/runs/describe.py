"""Describe a finished run for its readers: report.json, report.html, figures, and a card in every checkpoint."""

import functools
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from mil import checkpoint, files
from mil.cards import RESEARCH, SIMULATED, card_texts
from mil.cards.statements import STATEMENTS, read_statements, zoo_statements
from mil.checkpoint import Checkpoint
from mil.config import choices
from mil.inference.external import EXTERNAL_FOLD, Labelled
from mil.manifest import Manifest
from mil.report.assemble import evaluate
from mil.report.evaluation import Evaluation
from mil.report.figures import Course, draw, draw_learning
from mil.report.first_screen import first_screen
from mil.report.page.html import html
from mil.report.report_files import read_report, write_report
from mil.report.schema import About, FittedOn, Report, Section
from mil.report.sections.federation import read_federation
from mil.report.shortfalls import NOTHING_MISSED, shortfalls
from mil.runs.looks import count_look
from mil.runs.measured_sections import copy_figures, sections_of, stored_sections, with_sections
from mil.runs.run import Run, open_run
from mil.runs.run_inputs import remarks_of
from mil.runs.states import checkpoints_in
from mil.runs.trained_manifests import record_manifests
from mil.storage import read_bytes
from mil.study.component import Component, Options
from mil.study.compose import compose
from mil.study.tool import Tool
from mil.tables import says_simulated

logger = logging.getLogger(__name__)
REPORT, PAGE, FIGURES = "report.json", "report.html", "figures"
EPOCH, EPOCHS = "epoch", "epochs whose weights are averaged"
"""What the patients of model selection chose, in the table of what was fitted."""


def describe_run(folder: Path, verb: str = "train") -> float | None:
    """Evaluate a run's stored predictions, draw them, write the cards, and return the value of the first metric.

    Every call is a look at the report patients and is counted.

    Args:
        folder: Folder of a finished run.
        verb: The command that looks, such as `train`.

    Raises:
        ConfigError: if the folder holds no finished run.
    """
    run = open_run(folder)
    places = checkpoints_in(folder)
    manifests = {fold: checkpoint.reopened(place) for fold, place in places.items()}
    looks = count_look(folder, verb) if run.reports else 0
    if verb == "train":
        record_manifests(folder, manifests)
    remarks = remarks_of(folder)
    for sentence in remarks or ():
        logger.warning("%s", sentence)
    report = run_report(run, manifests.values()).model_copy(update={"looks": looks, "remarks": remarks})
    report = with_sections(report, stored_sections(folder))
    write_report(folder / REPORT, report)
    if run.figures or verb != "train":
        draw_figures(run, report, folder)
    files.write(folder / PAGE, page(page_title(run.tool), report, folder))
    for fold, place in places.items():
        _describe_checkpoint(run, report, manifests[fold], fold, place)
    return report.metrics[run.endpoint.metric].value if report.metrics else None


def add_measured(folder: Path) -> None:
    """Add what `mil explain` and `mil evaluate --instability` measured and drew to report, page and cards of a run.

    The patients are not evaluated again: no other number changes, and no look at them is counted.

    Raises:
        ConfigError: if the folder holds no finished run.
    """
    run, measured = open_run(folder), stored_sections(folder)
    report = with_sections(read_report(folder / REPORT), measured)
    write_report(folder / REPORT, report)
    copy_figures(folder, folder / FIGURES)
    files.write(folder / PAGE, page(page_title(run.tool), report, folder))
    for place in checkpoints_in(folder).values():
        manifest, of_fold = checkpoint.reopened(place), with_sections(read_report(place / REPORT), measured)
        if of_fold.run is None:
            copy_figures(folder, place / FIGURES)
        else:
            of_fold = of_fold.model_copy(update={"run": report})
        _write_checkpoint(run, of_fold, manifest, place)


def describe(evaluation: Evaluation, report: Report, folder: Path, title: str) -> None:
    """Write report.json, figures and report.html for predictions that belong to no run."""
    write_report(folder / REPORT, report)
    if report.metrics:
        draw(evaluation, report, folder / FIGURES)
    files.write(folder / PAGE, page(title, report, folder))


def external(loaded: Checkpoint, cohort: Labelled, resamples: int) -> tuple[Evaluation, Report]:
    """Evaluate a checkpoint's predictions for a cohort that it was not trained on.

    Returns:
        The evaluation, and the report on it.
    """
    manifest = loaded.manifest
    evaluation = Evaluation.of(
        cohort.table,
        loaded.endpoint,
        manifest.tool,
        cohort.patients,
        resamples,
        states={EXTERNAL_FOLD: manifest.fitted},
    )
    about = About(
        tool=manifest.tool.name,
        simulated=manifest.data.simulated or says_simulated(cohort.patients),
        model=manifest.model.name,
        external=True,
        withheld=cohort.withheld,
    )
    return evaluation, evaluate(evaluation, about, fitted_on(manifest))


def headline(report: Report) -> Iterator[str]:
    """Yield the report for a terminal in the order of the page: warnings, first screen, where the tool falls short."""
    yield from (f"WARNING: {sentence}" for sentence in report.all_warnings())
    for line in first_screen(report):
        yield f"{line.label}: {line.text}"
    short = shortfalls(report)
    yield "Where it falls short:" if short else NOTHING_MISSED
    for shortfall in short:
        yield f"  {shortfall.title}: {shortfall.sentence}"


def run_report(run: Run, manifests: Iterable[Manifest], fold: int | None = None) -> Report:
    """Return the report on a run, or on one of its folds, computed from its tables.

    Args:
        run: The run.
        manifests: Manifests of all its checkpoints, or of the checkpoint of that fold.
        fold: Number of the fold; None for all folds.
    """
    tables, manifests = tables_of_fold(run.tables, fold), list(manifests)
    fitted = tuple(row for manifest in manifests for row in fitted_on(manifest))
    federation = read_federation(run.folder)
    sections: dict[str, Section] = {} if federation is None else {federation.key: federation}
    if not (tables["predictions"]["role"] == "report").any():
        return Report(about=_about(run), seed=run.seed, resamples=run.resamples, fitted=fitted, sections=sections)
    flow = manifests[0].data.flow if manifests else ()
    report = evaluate(replace(evaluation(run, tables), flow=flow), _about(run), fitted)
    return report.model_copy(update={"sections": {**report.sections, **sections}}) if sections else report


def _about(run: Run) -> About:
    stated = {key: value for key, value in run.tool.plain().items() if key in About.model_fields and value}
    facts = {
        "tool": run.tool.name,
        "simulated": run.simulated,
        "model": run.model,
        "encoder": run.encoder,
        "external": False,  # a run reports on patients of the cohort that it was trained on
    }
    return About.model_validate(stated | facts)


def evaluation(run: Run, tables: Mapping[str, pd.DataFrame]) -> Evaluation:
    """Return what sections and figures read, for the tables of a run or of one fold."""
    comparators = {name: table for name, table in tables.items() if name != "predictions"}
    return Evaluation.of(
        tables["predictions"],
        run.endpoint,
        run.tool,
        run.patients,
        run.resamples,
        run.seed,
        run.states,
        comparators,
    )


def tables_of_fold(tables: Mapping[str, pd.DataFrame], fold: int | None) -> dict[str, pd.DataFrame]:
    """Return the rows of one fold in each table; all rows for None."""
    if fold is None:
        return dict(tables)
    return {name: table[table["fold"] == fold] if "fold" in table else table for name, table in tables.items()}


def fitted_on(manifest: Manifest) -> Iterator[FittedOn]:
    """Yield everything that was fitted or chosen for a checkpoint, and on which patients."""
    fold, fitted = manifest.data.split.fold, manifest.fitted
    sizes = {role: counts.get("n") for role, counts in manifest.data.patients.items()}

    def row(what: str, on: str, value: int | None = None) -> FittedOn:
        return FittedOn(fold=fold, what=what, on=on, n=sizes.get(on), value=value)

    trained, chosen = row("weights", "train"), row(EPOCH, "select" if "select" in sizes else "train")
    if manifest.training.refitted:
        both = (sizes.get("train") or 0) + (sizes.get("select") or 0)
        trained, chosen = (each.model_copy(update={"on": "train, select", "n": both}) for each in (trained, chosen))
    yield trained
    if epochs := manifest.training.best_epochs:
        several = {"what": EPOCHS, "value": tuple(sorted(epochs))}
        yield chosen.model_copy(update={"value": epochs[0]} if len(epochs) == 1 else several)
    if state := [key.replace("_", " ") for key, value in fitted.endpoint.items() if value is not None]:
        yield row(f"endpoint: {', '.join(state)}", "train")
    if manifest.covariates is not None:
        yield row("means and spreads of the clinical covariates", "train")
    for what, decisions in (("decision", fitted.decisions), ("risk groups by", fitted.risk_groups)):
        for decision in decisions:
            name = f"{what} {decision.name}"
            yield FittedOn(fold=fold, what=name, on=decision.on, n=decision.n, value=decision.cuts)
    if (calibrator := fitted.calibration) is not None:
        yield FittedOn(fold=fold, what=f"calibration by {calibrator.method}", on=calibrator.on, n=calibrator.n)
    if fitted.conformal is not None:
        yield row(f"sets of coverage {fitted.conformal.coverage}", "select")
    if fitted.novelty is not None:
        yield row("what is too far from the training slides", "train and select")


def _describe_checkpoint(run: Run, all_folds: Report, manifest: Manifest, fold: int, place: Path) -> None:
    """Write the report and card of one fold.

    If the run has several folds, only its own figures are drawn; those of a fold are drawn when it is released.
    """
    shutil.rmtree(place / FIGURES, ignore_errors=True)
    report = all_folds
    if all_folds.folds > 1:
        report = run_report(run, [manifest], fold).model_copy(
            update={"looks": all_folds.looks, "remarks": all_folds.remarks, "run": all_folds}
        )
        report = with_sections(report, sections_of(all_folds))
    elif (run.folder / FIGURES).is_dir():
        with files.writing(place / FIGURES):
            shutil.copytree(run.folder / FIGURES, place / FIGURES)
    _write_checkpoint(run, report, manifest, place)


def _write_checkpoint(run: Run, report: Report, manifest: Manifest, place: Path) -> None:
    """Write the report of a fold, its page where it is the only fold, and its card."""
    write_report(place / REPORT, report)
    if report.run is None:
        files.write(place / PAGE, page(page_title(run.tool), report, place))
    _write_statements(run, place)
    texts = card_texts(manifest, run.endpoint, report, figure_names(place), statements=read_statements(place))
    for name, text in texts.items():
        files.write(place / name, text)
    checkpoint.seal(place, manifest)


def _write_statements(run: Run, place: Path) -> None:
    """Copy the run's card.yaml into a checkpoint; for a run on the zoo's simulated cohort that has none, the zoo's."""
    stated, zoo = run.folder / STATEMENTS, zoo_statements(run.tool.name) if _on_cohort_of_the_zoo(run) else None
    if stated.is_file():
        files.write(place / STATEMENTS, read_bytes(stated))
    elif zoo is not None and not (place / STATEMENTS).exists():
        files.write(place / STATEMENTS, zoo)


def _on_cohort_of_the_zoo(run: Run) -> bool:
    """Return whether a run was trained on the very cohort that the zoo simulates for its tool."""
    if run.config is None or run.config.data.cohort is not None or run.tool.name not in choices("tool"):
        return False
    return run.config.simulation == _simulation_of_the_zoo(run.tool.name)


@functools.cache
def _simulation_of_the_zoo(tool: str) -> Component[Options]:
    """Return what the zoo simulates for a tool, composed once rather than for each fold."""
    return compose([f"tool={tool}"]).simulation


def latest_log(place: Path) -> Path:
    """Return the newest file of Lightning's CSV logger next to a checkpoint."""
    logs = sorted(place.parent.glob("log/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime_ns)
    return logs[-1] if logs else place.parent / "log" / "metrics.csv"


def best_epochs(report: Report, fold: int) -> list[int]:
    """Return the epochs whose weights count in a fold, as its report says; none where none was chosen."""
    values = [row.value for row in report.fitted if row.fold == fold and row.what in (EPOCH, EPOCHS)]
    return [int(epoch) for epoch in np.ravel(cast(Any, values))]


def figure_names(place: Path) -> list[str]:
    """Return the names of a folder's figures, sorted."""
    return sorted(path.name for path in (place / FIGURES).glob("*.png"))


def draw_figures(run: Run, report: Report, place: Path, fold: int | None = None) -> None:
    """Draw the figures of a run, or of one of its folds, into `place/figures`."""
    shutil.rmtree(place / FIGURES, ignore_errors=True)
    if report.metrics:
        draw(evaluation(run, tables_of_fold(run.tables, fold)), report, place / FIGURES)
    checkpoints = {number: path for number, path in checkpoints_in(run.folder).items() if fold in (None, number)}
    courses = [Course(latest_log(path), best_epochs(report, number)) for number, path in checkpoints.items()]
    if courses := [course for course in courses if course.log.is_file()]:
        draw_learning(courses, run.endpoint.metric, place / FIGURES)
    copy_figures(run.folder, place / FIGURES)


def page_title(tool: Tool) -> str:
    """Return the title of a tool's report page."""
    return f"{tool.title} ({tool.name})"


def page(title: str, report: Report, place: Path, embedded: bool = True) -> str:
    """Return report.html for a folder, made from its report and figures.

    Args:
        title: Of the page.
        report: What is shown.
        place: The folder.
        embedded: Whether the page holds its pictures; otherwise it shows those of the folder.
    """
    paths = sorted((place / FIGURES).glob("*.*g"), key=lambda path: (path.stem, path.suffix))
    figures = {path.stem: path for path in paths}  # of a PNG and an SVG of the same name the SVG
    banner = SIMULATED if report.about.simulated else RESEARCH
    linked = [name for name in (REPORT, "predictions.csv") if (place / name).is_file()]
    return html(report, figures, title, banner, linked, embedded)

"""`mil evaluate`: of a run, of a checkpoint on a cohort that it has not seen, or of any software's predictions."""

import logging
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mil import files
from mil.cli.foreign_predictions import read
from mil.cli.prediction_columns import Columns
from mil.errors import ConfigError
from mil.report.assemble import evaluate as reported
from mil.report.evaluation import Evaluation
from mil.runs.describe import FIGURES, describe, describe_run, headline
from mil.runs.looks import FILE, count_look

logger = logging.getLogger(__name__)
OF_PROBABILITIES = ("calibration", "utility", "conformal")
"""Sections that mean nothing where a score only orders patients."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Elsewhere:
    """A cohort that a checkpoint has not seen."""

    cohort: Path | None = None
    features: Path | None = None
    slides: Path | None = None

    @property
    def given(self) -> list[str]:
        """The options that were, by name."""
        return [name for name in ("cohort", "features", "slides") if getattr(self, name) is not None]


def evaluate(
    run: Path | None,
    elsewhere: Elsewhere,
    predictions: Path | None,
    columns: Columns,
    out: Path | None,
    resamples: int | None,
) -> None:
    """What the options ask for.

    Raises:
        ConfigError: options that do not go together.
        MilError: what is evaluated is not what it should be.
    """
    if (run is None) == (predictions is None):
        raise ConfigError("mil evaluate: expected a run folder, a checkpoint or --predictions, one of them")
    if predictions is not None:
        _refuse(elsewhere.given, "goes with a checkpoint, not with --predictions")
        of_table(predictions, columns, out, resamples or RESAMPLES)
        return
    assert run is not None
    _refuse(columns.given, "is of a table, expected --predictions FILE")
    if elsewhere.cohort is None:
        kept = {"out": out, "resamples": resamples}
        given = [*elsewhere.given, *(name for name, value in kept.items() if value is not None)]
        _refuse(given, "goes with --cohort or --predictions; a run has its own")
        of_run(run)
        return
    if elsewhere.features is None or out is None:
        raise ConfigError("--cohort: expected --features and --out beside it")
    of_checkpoint(run, elsewhere.features, elsewhere.cohort, elsewhere.slides, out, resamples or RESAMPLES)


def _refuse(options: list[str], reason: str) -> None:
    if options:
        raise ConfigError(f"--{options[0]}: {reason}")


def of_run(run: Path) -> None:
    """Evaluates a run's stored predictions anew."""
    describe_run(run, "evaluate")
    report = files.read_json(run / "report.json")
    sys.stdout.writelines(f"{line}\n" for line in headline(report))


def of_checkpoint(place: Path, features: Path, cohort: Path, slides: Path | None, out: Path, resamples: int) -> None:
    """Evaluates a checkpoint on a cohort that it has not seen, by what was frozen with it; learns nothing there.

    Who evaluates into the same folder again looks again, and that is counted there: the checkpoint itself is sealed.

    Raises:
        MilError: the checkpoint, the features or the table are not what they should be.
    """
    from mil import checkpoint as checkpoints
    from mil.inference.external import labelled
    from mil.runs.describe import external

    if out.exists() and not (out / FILE).is_file():
        raise ConfigError(f"{out}: is there already, expected a new folder, or one of an earlier look")
    loaded = checkpoints.load(place)
    found = labelled(loaded, features, cohort, slides)
    evaluation, report = external(loaded, found, resamples)
    files.write(out / "predictions.csv", found.table.to_csv(index=False))
    report |= {"looks": count_look(out, "evaluate --cohort")}
    shutil.rmtree(out / FIGURES, ignore_errors=True)
    describe(evaluation, report, out, f"{loaded.manifest.tool['title']}, on {cohort.name}")
    for line in (*headline(report), f"withheld: {found.withheld}", out):
        sys.stdout.write(f"{line}\n")


def of_table(path: Path, columns: Columns, out: Path | None, resamples: int) -> None:
    """Scores any software's predictions; of scores that are no probabilities ranks alone are used.

    Every other column of the table may be a subgroup.

    Raises:
        ConfigError: options that do not go together.
        PredictionsError: the table lacks a column, or has values that cannot be scored.
    """
    found = read(path, columns)
    tool = {"decision": found.decision}
    evaluation = Evaluation.refitted(found.table, found.endpoint, tool, found.patients, resamples)
    head: dict[str, Any] = {"tool": path.name, "simulated": False, "model": "not ours", "resamples": resamples}
    report = head | reported(evaluation)
    if found.ranks is not None:
        logger.warning("scores of %s are not all in [0, 1]: only their ranks are reported on", found.ranks)
        report |= dict.fromkeys(OF_PROBABILITIES)
        report["metrics"] = {found.endpoint.metric: report["metrics"][found.endpoint.metric]}
        report["discrimination"] = {"questions": report["discrimination"]["questions"]}
    for line in (*found.said, *headline(report)):
        sys.stdout.write(f"{line}\n")
    if out is not None:
        describe(evaluation, report, out, f"Predictions in {path.name}")

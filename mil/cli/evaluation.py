"""`mil evaluate`: of a run, of a checkpoint on a cohort that it has not seen, or of any software's predictions."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mil import files
from mil.data.tables import read_table, require
from mil.endpoints.base import Endpoint
from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.errors import ConfigError, PredictionsError
from mil.evaluation.context import Evaluation
from mil.evaluation.report import evaluate
from mil.zoo.report import describe, describe_run, headline

logger = logging.getLogger(__name__)
SHARES = ("sensitivity", "specificity")
"""Rules of a cut that a share says all of."""
OF_PROBABILITIES = ("calibration", "utility", "conformal")
"""Sections that mean nothing where a score only orders patients."""


@dataclass(frozen=True)
class Columns:
    """What a foreign table calls its columns."""

    target: str
    score: str
    positive: str
    time: str | None
    event: str
    patient: str
    group: str | None
    role: str | None = None
    risks: tuple[str, ...] = ()
    """`TIME=COLUMN`: the risk of an event until then"""


def of_run(run: Path) -> None:
    """Evaluates a run's stored predictions anew."""
    describe_run(run, "evaluate")
    report = files.read_json(run / "report.json")
    sys.stdout.writelines(f"{line}\n" for line in headline(report))


def of_checkpoint(place: Path, features: Path, cohort: Path, slides: Path | None, out: Path, resamples: int) -> None:
    """Evaluates a checkpoint on a cohort that it has not seen, by what was frozen with it; learns nothing there.

    Raises:
        MilError: the checkpoint, the features or the table are not what they should be.
    """
    from mil import checkpoint as checkpoints
    from mil.inference.external import labelled
    from mil.zoo.report import external

    if out.exists():
        raise ConfigError(f"{out}: is there already, expected a new folder")
    loaded = checkpoints.load(place)
    found = labelled(loaded, features, cohort, slides)
    evaluation, report = external(loaded, found, resamples)
    files.write(out / "predictions.csv", found.table.to_csv(index=False))
    describe(evaluation, report, out, f"{loaded.manifest.tool['title']}, on {cohort.name}")
    for line in (*headline(report), f"withheld: {found.withheld}", out):
        sys.stdout.write(f"{line}\n")


def of_table(path: Path, columns: Columns, out: Path | None, resamples: int, rules: Mapping[str, float | None]) -> None:
    """Scores any software's predictions; of scores that are no probabilities ranks alone are used.

    Every other column of the table may be a subgroup. `rules` are shares that a cut, set on rows whose role is
    `select`, shall reach.

    Raises:
        PredictionsError: the table lacks a column, or has values that cannot be scored.
    """
    raw = read_table(path, PredictionsError)
    risks = dict(_risk(word) for word in columns.risks)
    wanted = [columns.patient, columns.score, *filter(None, (columns.group, columns.role)), *risks.values()]
    wanted += [columns.time, columns.event] if columns.time else [columns.target]
    require(path, raw, wanted, PredictionsError)
    endpoint = _endpoint(raw, columns, risks)
    table, probable = _scored(path, raw, columns, endpoint, risks)
    patients = raw.drop_duplicates(columns.patient).set_index(columns.patient).drop(columns=columns.score)
    evaluation = Evaluation.of(table, endpoint, {"decision": _decision(rules)}, patients, resamples)
    head: dict[str, Any] = {"tool": path.name, "simulated": False, "model": "not ours", "resamples": resamples}
    report = head | evaluate(evaluation)
    if not probable:
        logger.warning("scores of %s are not all in [0, 1]: only their ranks are reported on", columns.score)
        report |= dict.fromkeys(OF_PROBABILITIES)
        report["metrics"] = {endpoint.metric: report["metrics"][endpoint.metric]}
        report["discrimination"] = {"questions": report["discrimination"]["questions"]}
    for line in headline(report):
        sys.stdout.write(f"{line}\n")
    if out is not None:
        describe(evaluation, report, out, f"Predictions in {path.name}")


def _scored(
    path: Path, raw: pd.DataFrame, columns: Columns, endpoint: Endpoint, risks: Mapping[str, str]
) -> tuple[pd.DataFrame, bool]:
    """The table as ours would be, and whether its scores can be probabilities or need not be."""
    numbers = {name: pd.to_numeric(raw[name], errors="coerce") for name in (columns.score, *risks.values())}
    for name, values in numbers.items():
        if bad := int((~np.isfinite(values)).sum()):
            raise PredictionsError(f"{path}: {bad} of {len(raw)} values of {name} are not finite numbers")
    table = raw[list(endpoint.columns)].assign(
        patient=raw[columns.patient],
        fold=raw[columns.group] if columns.group else 0,
        role=raw[columns.role] if columns.role else "report",
        **{f"risk_{time}": numbers[name] for time, name in risks.items()},
    )
    score = numbers[columns.score]
    if not isinstance(endpoint, Binary):
        return table.assign(log_hazard=score), True
    probable = bool(score.between(0, 1).all())
    return table.assign(**{f"p_{endpoint.positive}": score if probable else score.rank(pct=True)}), probable


def _risk(word: str) -> tuple[str, str]:
    time, _, name = word.partition("=")
    try:
        wrong = not float(time) > 0 or not name
    except ValueError:
        wrong = True
    if wrong:
        raise ConfigError(f"--risk {word}: expected TIME=COLUMN, such as 60=risk_at_60")
    return time, name


def _decision(rules: Mapping[str, float | None]) -> dict[str, Any] | None:
    asked = [{"rule": name, "at_least": share} for name, share in rules.items() if share is not None]
    if len(asked) > 1:
        raise ConfigError(f"--{asked[0]['rule']} and --{asked[1]['rule']}: a cut keeps one promise, expected one")
    return asked[0] if asked else None


def _endpoint(raw: pd.DataFrame, columns: Columns, risks: Mapping[str, str]) -> Endpoint:
    if columns.time:
        return Cox(columns.time, columns.event, horizons={time: float(time) for time in risks} or None)
    others = sorted(set(raw[columns.target]) - {columns.positive})
    if len(others) != 1:
        found = ", ".join(map(repr, others[:5])) or "nothing"
        raise PredictionsError(
            f"column {columns.target}: beside {columns.positive!r} found {found}, expected one label"
        )
    return Binary(columns.target, [others[0], columns.positive])

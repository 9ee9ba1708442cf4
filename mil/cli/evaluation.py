"""`mil evaluate`: of a run, or of a table of predictions."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mil import files
from mil.data.tables import read_table, require
from mil.endpoints.base import Endpoint
from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.errors import PredictionsError
from mil.evaluation.figures import draw
from mil.evaluation.report import evaluate
from mil.zoo.report import describe_run, headline

logger = logging.getLogger(__name__)


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


def of_run(run: Path) -> None:
    """Evaluates a run's stored predictions anew."""
    describe_run(run)
    report = files.read_json(run / "report.json")
    sys.stdout.writelines(f"{line}\n" for line in headline(report))


def of_table(path: Path, columns: Columns, out: Path | None, resamples: int) -> None:
    """Scores any software's predictions; of scores that are no probabilities ranks alone are used.

    Raises:
        PredictionsError: the table lacks a column, or has values that cannot be scored.
    """
    raw = read_table(path, PredictionsError)
    wanted = [columns.patient, columns.score, *([columns.group] if columns.group else [])]
    wanted += [columns.time, columns.event] if columns.time else [columns.target]
    require(path, raw, wanted, PredictionsError)
    endpoint = _endpoint(raw, columns)
    score = pd.to_numeric(raw[columns.score], errors="coerce")
    if bad := int((~np.isfinite(score)).sum()):
        raise PredictionsError(f"{path}: {bad} of {len(raw)} values of {columns.score} are not finite numbers")
    table = raw[list(endpoint.columns)].assign(
        patient=raw[columns.patient], fold=raw[columns.group] if columns.group else 0, role="report"
    )
    probable = bool(score.between(0, 1).all())
    if isinstance(endpoint, Binary):
        table[f"p_{endpoint.positive}"] = score if probable else score.rank(pct=True)
    else:
        table["log_hazard"] = score
    report = evaluate(table, endpoint, resamples=resamples)
    if isinstance(endpoint, Binary) and not probable:
        logger.warning("scores of %s are not all in [0, 1]: only their ranks are reported on", columns.score)
        report["metrics"] = {endpoint.metric: report["metrics"][endpoint.metric]}
    for line in headline(report):
        sys.stdout.write(f"{line}\n")
    if out is not None:
        files.write_json(out / "report.json", report)
        draw(table, endpoint, report, out / "figures")


def _endpoint(raw: pd.DataFrame, columns: Columns) -> Endpoint:
    if columns.time:
        return Cox(columns.time, columns.event)
    others = sorted(set(raw[columns.target]) - {columns.positive})
    if len(others) != 1:
        found = ", ".join(map(repr, others[:5])) or "nothing"
        raise PredictionsError(
            f"column {columns.target}: beside {columns.positive!r} found {found}, expected one label"
        )
    return Binary(columns.target, [others[0], columns.positive])

"""The figures of a report, each as PNG and as SVG."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mil.endpoints.endpoint import Endpoint
from mil.report.evaluation import Evaluation
from mil.report.figures.agreement_plot import regression
from mil.report.figures.calibration_plot import calibration, calibration_horizon
from mil.report.figures.confusion import confusion
from mil.report.figures.decision_curve import decision_curve
from mil.report.figures.forest_plot import subgroups
from mil.report.figures.incidence import incidence
from mil.report.figures.kaplan_meier import kaplan_meier
from mil.report.figures.learning_curve import learning_curve
from mil.report.figures.precision_recall import precision_recall
from mil.report.figures.roc import roc
from mil.report.figures.style import save, styled

FIGURES: Mapping[str, Callable[[Evaluation, Mapping[str, Any]], Figure | None]] = {
    "roc": roc,
    "precision_recall": precision_recall,
    "confusion": confusion,
    "regression": regression,
    "kaplan_meier": kaplan_meier,
    "incidence": incidence,
    "calibration": calibration,
    "calibration_horizon": calibration_horizon,
    "decision_curve": decision_curve,
    "subgroups": subgroups,
}
"""By the name of its file, in the order of a report; a function gives none where it has nothing to show."""


def draw(
    predictions: pd.DataFrame | Evaluation, endpoint: Endpoint, report: Mapping[str, Any], folder: Path
) -> list[Path]:
    """Draws what the endpoint and the report have a figure for, and says which files it wrote.

    Of several endpoints each has figures of its own, which begin with its name.

    Args:
        predictions: The table that `evaluate` was given, or what it made of it.
        endpoint: What was predicted.
        report: What `evaluate` gave; a section that it lacks is not drawn.
        folder: Made where it does not exist.
    """
    evaluation = predictions if isinstance(predictions, Evaluation) else Evaluation.refitted(predictions, endpoint)
    with styled():
        if "parts" in report:
            each = evaluation.parts().items()
            return [path for name, own in each for path in _drawn(own, report["parts"][name], folder, f"{name}_")]
        return _drawn(evaluation, report, folder)


def _drawn(evaluation: Evaluation, report: Mapping[str, Any], folder: Path, prefix: str = "") -> list[Path]:
    written = []
    for name, figure_of in FIGURES.items():
        figure = figure_of(evaluation, report)
        if figure is not None:
            written += save(figure, folder, f"{prefix}{name}")
    return written


def draw_learning(logs: Path | Mapping[str, Path], metric: str, folder: Path) -> list[Path]:
    """`learning_curve.png` and `.svg`, or nothing where no epoch was logged.

    Args:
        logs: `metrics.csv` of a fit, or of each fold's by name.
        metric: `Endpoint.metric`.
        folder: Made where it does not exist.
    """
    with styled():
        figure = learning_curve(logs, metric)
        return [] if figure is None else save(figure, folder, "learning_curve")

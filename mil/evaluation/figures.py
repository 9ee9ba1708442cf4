"""The figures of a report, each as PNG and as SVG."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from mil.endpoints.base import Endpoint
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.survival import Survival
from mil.evaluation.incidence import draw_incidence
from mil.evaluation.kaplan_meier import draw_survival
from mil.evaluation.predictions import checked, report_folds
from mil.evaluation.roc import draw_binary, draw_multiclass
from mil.evaluation.style import save, styled


def draw(predictions: pd.DataFrame, endpoint: Endpoint, report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draws what the endpoint has a figure for, and says which files it wrote.

    Classes: `roc`, a curve a fold and their mean, or a curve a class. Survival: `kaplan_meier`, or
    `incidence` where causes compete.

    Args:
        predictions: The table that `evaluate` was given.
        endpoint: What was predicted.
        report: What `evaluate` gave.
        folder: Made where it does not exist.
    """
    table = checked(predictions, endpoint)
    with styled():
        figure = Figure(figsize=(5.2, 5.0), layout="constrained")
        axes = figure.add_subplot()
        match endpoint:
            case Binary():
                draw_binary(axes, report_folds(table, endpoint), endpoint, report)
                return save(figure, folder, "roc")
            case Multiclass():
                draw_multiclass(axes, report_folds(table, endpoint), endpoint, report)
                return save(figure, folder, "roc")
            case CompetingRisks():
                draw_incidence(axes, table, endpoint, report)
                return save(figure, folder, "incidence")
            case Survival():
                draw_survival(axes, table, endpoint, report)
                return save(figure, folder, "kaplan_meier")
    return []

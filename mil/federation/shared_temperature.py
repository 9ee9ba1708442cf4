"""The temperature of exclusive classes, fitted to the select patients of all hospitals from sums of log losses."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from mil.endpoints.endpoint import Endpoint
from mil.errors import PredictionsError
from mil.federation.state_sums import SUBSETS
from mil.fitted.calibration_check import ALL_CLASSES, PARTITIONS, CalibrationCheck, Choice
from mil.fitted.calibrators import CLASSES, GRADES, LEAST, MOST, Calibrator, bounded_temperature
from mil.fitted.probability_maps import Curve

Floats = NDArray[np.float64]
Ask = Callable[[str, str, Mapping[str, Floats]], dict[str, Floats]]
POINTS, ROUNDS = 61, 5
"""Inverse temperatures in one question, and questions: each narrows the range to two steps of the one before."""


def fit_temperature(ask: Ask, endpoint: Endpoint) -> Choice:
    """Return the temperature, kept only where it lowers the log loss by cross-validation within the hospitals.

    Args:
        ask: Returns the totals of sums, as `StateQuestions.ask`.
        endpoint: Of exclusive classes.

    Raises:
        PredictionsError: Patients of one class only, or probabilities that do not rise with the classes.
    """
    powers, counts = _likeliest(ask)
    n, classes = int(counts[0].sum()), counts[0]
    if (classes > 0).sum() < 2:
        raise PredictionsError(f"calibration temperature: {n} patients of one class, expected two or more classes")
    if powers[0] < 2 * LEAST:
        raise PredictionsError(f"calibration temperature: probabilities of {n} patients do not rise with their classes")

    def loss(power: float) -> float:
        row = np.full((SUBSETS, 1), power)
        return float(ask("temperature", "select", {"powers": row})["losses"][0, 0]) / n

    inverse, note = bounded_temperature(loss, float(powers[0]), n)
    losses = ask("temperature check", "select", {"powers": powers[1:]})["losses"]
    before, after = float(losses[0]) / n, float(losses[1:].sum()) / n / PARTITIONS
    check = CalibrationCheck(name=ALL_CLASSES, before=before, after=after, n=n, helps=after < before)
    if not check.helps:
        return Choice(None, (check,))
    curve = Curve(
        name=", ".join(endpoint.classes),
        columns=endpoint.class_columns,
        n=n,
        positives=int(classes.min()),
        slope=inverse,
        note=note,
    )
    joined = GRADES if endpoint.ordered else CLASSES
    return Choice(
        Calibrator(method="temperature", columns=endpoint.class_columns, curves=(curve,), joined=joined), (check,)
    )


def _likeliest(ask: Ask) -> tuple[Floats, Floats]:
    """Return the inverse temperature with the smallest loss in each subset, and patients by subset and class."""
    low, high = np.full(SUBSETS, np.log(LEAST)), np.full(SUBSETS, np.log(MOST))
    counts = np.zeros((SUBSETS, 0))
    for _ in range(ROUNDS):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, POINTS)
        totals = ask("temperature", "select", {"powers": np.exp(grid)})
        counts, best = totals["counts subsets"], totals["losses"].argmin(1)
        rows = np.arange(SUBSETS)
        low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, POINTS - 1)]
    return np.exp((low + high) / 2), counts

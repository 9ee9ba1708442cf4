"""Where the calls of a tool change, on the scale of the explained outputs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.question import Question
from mil.fitted.calibrators import Calibrator, calibrated_name
from mil.fitted.decision import Decision
from mil.fitted.state import FittedState

_GRID = np.linspace(-20, 20, 40_001)
"""Log odds at which a calibration is inverted: every 0.001."""


@dataclass(frozen=True, kw_only=True)
class CallCuts:
    """The numbers at which the call on one output changes.

    Attributes:
        cuts: Increasing, in the unit of the output; between two of them the tool makes no call.
        of_tool: Whether the tool's decision states them; otherwise they stand for a probability of one half.
    """

    cuts: tuple[float, ...]
    of_tool: bool = False

    def zone(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the number of cuts at or below each value; a value at a cut is above it."""
        return np.asarray(np.searchsorted(self.cuts, values, side="right"), dtype=np.int64)


def call_cuts(endpoint: Endpoint, state: FittedState) -> dict[str, CallCuts]:
    """Return the cuts of a tool's decisions by the name of the output that they are about.

    Outputs without a cut of their own are left out: where the tool has no decision, compares several classes, decides
    on several classes together, or cuts probabilities whose calibration depends on other classes.

    Args:
        endpoint: What is predicted.
        state: What was fitted with the model.
    """
    listed = dict[str, CallCuts]()
    for prefix, part, decisions in _parts(endpoint, state):
        questions = {question.name: question for question in part.questions()}
        for decision in decisions:
            question = questions.get(decision.name)
            cuts = None if question is None else _cuts(decision, question, state.calibration)
            if cuts is not None:
                listed[f"{prefix}{decision.name}"] = CallCuts(cuts=cuts, of_tool=True)
    return listed


def _parts(endpoint: Endpoint, state: FittedState) -> Iterator[tuple[str, Endpoint, tuple[Decision, ...]]]:
    """Yield each endpoint with its decisions, and what the names of its outputs begin with."""
    if not endpoint.parts():
        yield "", endpoint, state.decisions
    for name, part in endpoint.parts().items():
        yield f"{name}: ", part, state.of_endpoint(name).decisions


def _cuts(decision: Decision, question: Question, calibrator: Calibrator | None) -> tuple[float, ...] | None:
    if decision.rule.joint_classes() is not None or (decision.likeliest and len(decision.columns) > 1):
        return None
    shares = decision.cuts
    if decision.likeliest:
        least = shares[0] if shares else 0.5
        shares = (1 - least, least) if least > 0.5 else (0.5,)
    if decision.columns == question.columns:
        return tuple(_log_odds(share) for share in shares)
    if calibrator is None or calibrator.joined is not None or len(question.columns) != 1:
        return None
    column = question.columns[0]
    if decision.columns != (calibrated_name(column),):
        return None
    grid = 1 / (1 + np.exp(-_GRID))
    calibrated = calibrator.apply(pd.DataFrame(dict.fromkeys(calibrator.columns, grid)))[calibrated_name(column)]
    above = calibrated.to_numpy()[None, :] >= np.array(shares)[:, None]  # (cuts, grid)
    return tuple(float(_GRID[row.argmax()]) if row.any() else float("inf") for row in above)


def _log_odds(share: float) -> float:
    bounded = min(max(share, 1e-15), 1 - 1e-15)
    return float(np.log(bounded) - np.log1p(-bounded))

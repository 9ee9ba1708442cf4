"""Whether predicted survival curves are right as distributions: D-calibration.

The curve of a Cox model is that of its baseline hazard, which steps: an event lies somewhere between the step before it
and the step at or after it. Other models state risks at horizons; between these the hazard is taken as constant, and
follow-up ends at the last one.
"""

from collections.abc import Hashable, Iterator
from copy import deepcopy
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from mil.endpoints.cox import BaselineHazard
from mil.endpoints.survival_view import SurvivalView
from mil.report.evaluation import Evaluation
from mil.report.schema import Row, Section, Sentence
from mil.report.sections.horizon import risk_columns
from mil.stats.bootstrap import Floats
from mil.stats.censoring import Censoring
from mil.stats.d_calibration import BINS, bins_for, d_calibration
from mil.stats.estimate import format_p

FEWEST_EVENTS, FEWEST_HORIZONS = 10, 3
"""Events, and horizons of models without a baseline hazard, below which there is no test."""
BASELINE = "the baseline hazard of each fold's training patients"
HORIZONS = "the risks at the horizons, with a constant hazard between them"


class DCalibration(Section):
    """The test that predicted survival at the time of the event is uniform."""

    key: ClassVar[str] = "d_calibration"
    title: ClassVar[str] = "D-calibration"
    explanation: ClassVar[str] = "Whether predicted survival curves are right as distributions, at all times together."
    not_applicable: ClassVar[str] = (
        f"Survival curves are not predicted at {FEWEST_HORIZONS} horizons or by a baseline hazard, causes compete, or "
        f"there are fewer than {FEWEST_EVENTS} events."
    )
    position: ClassVar[int] = 52

    n: int
    events: int
    curve_from: str = Field(title="Survival curve from")
    shares: tuple[float, ...] = Field(title="Share of patients by predicted survival at their event, from the lowest")
    statistic: float
    freedom: int = Field(title="Degrees of freedom")
    p: float
    verdict: Sentence

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the test; None where there is no curve of one cause, or too few events."""
        view = evaluation.endpoint.survival
        if view is None or view.causes:
            return None
        curves = _of_baselines(evaluation, view)
        source = BASELINE
        if curves is None:
            curves, source = _of_horizons(evaluation, view), HORIZONS
        time, event = view.event_times(evaluation.endpoint.encode(evaluation.reported)).numpy().T
        if curves is None or int(event.sum()) < FEWEST_EVENTS:
            return None
        low, high, limit, weight = _bounds(curves, time, event == 1)
        result = d_calibration(low, high, bins_for(len(time)), limit, weight)
        few = "" if len(result.shares) == BINS else f", in {len(result.shares)} bins"
        words = "are not shown to be wrong" if result.p > 0.05 else "are wrong at some times or for some patients"
        return cls(
            n=len(time),
            events=int(event.sum()),
            curve_from=source,
            shares=tuple(result.shares.tolist()),
            statistic=result.statistic,
            freedom=result.freedom,
            p=result.p,
            verdict=f"The survival curves {words}: p {format_p(result.p)}, {len(time)} patients, "
            f"{int(event.sum())} events{few}.",
        )

    def card_rows(self) -> Iterator[Row]:
        """Yield nothing: the sentence has the p value."""
        yield from ()


class _Curves:
    """Predicted survival of each patient at times where it is known, and how it runs between them."""

    def __init__(self, times: list[Floats], survival: list[Floats], steps: bool) -> None:
        self.times, self.survival, self.steps = times, survival, steps

    def end(self, patient: int) -> float:
        """Return the time after which nothing is predicted."""
        return float(self.times[patient][-1])

    def at(self, patient: int, time: Floats) -> Floats:
        """Return the survival at these times, from the times where it is known."""
        moments, values = self.times[patient], self.survival[patient]
        if self.steps:
            return np.asarray(values[np.searchsorted(moments, time, side="right") - 1])
        hazard = -np.log(np.maximum(values, 1e-300))
        return np.exp(-np.interp(time, moments, hazard))

    def around(self, patient: int, time: float) -> tuple[float, float]:
        """Return the least and the greatest survival at an event."""
        if not self.steps:
            value = float(self.at(patient, np.array([time]))[0])
            return value, value
        values, place = self.survival[patient], int(np.searchsorted(self.times[patient], time, side="left"))
        return float(values[place]), float(values[place - 1])


def _of_baselines(evaluation: Evaluation, view: SurvivalView) -> _Curves | None:
    """Return the curves of log hazards and baseline hazards; None where a fold has none."""
    times, survival = dict[str, Floats](), dict[str, Floats]()
    for fold, rows in evaluation.reported.groupby("fold"):
        baseline = _baseline(evaluation, fold)
        if baseline is None:
            return None
        moments = np.concatenate([[0.0], baseline.times])
        score = torch.from_numpy(rows[view.rank_column].to_numpy(np.float64)).unsqueeze(1)
        values = baseline.log_survival(score, torch.from_numpy(moments)).exp().numpy()
        for name, curve in zip(rows.index, values, strict=True):
            times[str(name)], survival[str(name)] = moments, curve
    names = list(map(str, evaluation.reported.index))
    return _Curves([times[name] for name in names], [survival[name] for name in names], steps=True)


def _baseline(evaluation: Evaluation, fold: Hashable) -> BaselineHazard | None:
    state = evaluation.state(fold).endpoint
    if not state:
        return None
    fitted = deepcopy(evaluation.endpoint)
    fitted.load_state(state)
    view = fitted.survival
    return None if view is None else view.baseline


def _of_horizons(evaluation: Evaluation, view: SurvivalView) -> _Curves | None:
    """Return the curves of the risks at the horizons; None where these are too few."""
    columns = risk_columns(evaluation, view)
    if len(columns) < FEWEST_HORIZONS:
        return None
    moments = np.concatenate([[0.0], [view.horizons[name] for name in columns]])
    risks = evaluation.reported[list(columns.values())].to_numpy(np.float64)
    survival = np.concatenate([np.ones((len(risks), 1)), 1 - risks], axis=1)
    return _Curves([moments] * len(risks), list(survival), steps=False)


def _bounds(curves: _Curves, time: Floats, event: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the bounds of each patient's survival at the event, and the survival at censorings with their weights."""
    ends = np.array([curves.end(patient) for patient in range(len(time))])
    seen = event & (time <= ends)
    stopped = np.minimum(time, ends)
    censoring = Censoring.fit(stopped, seen)
    drops = -np.diff(np.concatenate([[1.0], censoring.values, [0.0]]))
    moments, weight = np.append(censoring.times, censoring.last)[drops > 0], drops[drops > 0]
    bounds = [
        curves.around(patient, at) if seen[patient] else (0.0, float(curves.at(patient, np.array([at]))[0]))
        for patient, at in enumerate(stopped.tolist())
    ]
    limit = np.stack([curves.at(patient, np.minimum(moments, end)) for patient, end in enumerate(ends.tolist())])
    low, high = np.array(bounds, dtype=np.float64).T
    return low, high, limit, weight

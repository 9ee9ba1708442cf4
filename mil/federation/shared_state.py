"""Decisions, calibration, prediction sets and novelty, fitted to the patients of all hospitals from their sums.

The same functions fit them as in `mil train`: they are given patients with the same counts on declared grids, see
`mil.federation.measures`. What is fitted by counts is therefore exact on the grid: cuts, limits and the line of a
calibration differ from those of pooled patients by a cell at most.
"""

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

from mil.endpoints.endpoint import Endpoint
from mil.errors import MilError, PredictionsError
from mil.federation.coordinator import Coordinator
from mil.federation.cut_counts import CutCounts
from mil.federation.exact_cox import RiskSets
from mil.federation.fold_setup import FoldSetup
from mil.federation.measures import CELLS, Grid, Measure, PlanMeasure, plan_measures, question_measures, table_of
from mil.federation.messages import FederationError
from mil.federation.shared_loss import SeveralLosses, shared_loss
from mil.federation.shared_novelty import fit_novelty
from mil.federation.shared_temperature import fit_temperature
from mil.federation.state_sums import ANY, SHARES, hazard_centres, unlimited_sets
from mil.federation.targets import risk_sets_of
from mil.fitted import conformal
from mil.fitted.calibration_check import Choice, fit_where_it_helps
from mil.fitted.calibrators import Calibrator
from mil.fitted.checks import check_specification
from mil.fitted.conformal import Conformal, Interval, Sets
from mil.fitted.decision_rules import Decision
from mil.fitted.specification import Specification
from mil.fitted.state import FittedState

logger = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Fitted = TypeVar("Fitted")
APPROXIMATE = (
    f"fitted to the patients of all sites by counts on grids of {CELLS} cells, to which scores are rounded down"
)
"""What the manifest says of cuts, calibration and limits."""


class StateQuestions:
    """Asks the sites for sums at the final weights."""

    def __init__(self, coordinator: Coordinator, setup: FoldSetup, weights: Floats) -> None:
        """Prepare to ask about one fold."""
        self.coordinator, self.setup, self.weights = coordinator, setup, weights

    def ask(
        self, what: str, role: str, arrays: Mapping[str, Floats] | None = None, endpoint: Endpoint | None = None
    ) -> dict[str, Floats]:
        """Return the totals of one of the sums of `mil.federation.state_sums`.

        Args:
            what: Which sums.
            role: Of the patients behind them.
            arrays: Numbers that the sites need.
            endpoint: Whose state the sites take over first.

        Raises:
            FederationError: A site has too few patients of that role, or its counts may not leave.
        """
        facts: dict[str, JsonValue] = {"fold": self.setup.fold, "what": what, "role": role}
        if endpoint is not None:
            facts["endpoint"] = endpoint.state()
        asked_arrays = {"weights": self.weights, **(arrays or {})}
        return dict(self.coordinator.total("state sums", asked_arrays, facts).arrays)


def finish_endpoint(questions: StateQuestions) -> None:
    """Fit the baseline hazards of partial likelihoods to the training patients of all sites."""
    endpoint = questions.setup.endpoint
    parts = endpoint.parts() or {"": endpoint}
    if not any(part.partial_likelihood for part in parts.values()):
        return
    totals = torch.from_numpy(questions.ask("risk sets", "train")["risk sets"])
    risk_sets = risk_sets_of(questions.setup.cells)
    shared = shared_loss(endpoint, risk_sets)
    slices = [slice(None)]
    if isinstance(shared, SeveralLosses):
        slices = [portion.sums for portion in shared.portions]
    for (name, part), sums in zip(parts.items(), slices, strict=True):
        if part.partial_likelihood is not None:
            _load_baseline(part, risk_sets(name, part), totals[sums], questions.setup.cells[name].times)


def _load_baseline(endpoint: Endpoint, sets: RiskSets, totals: torch.Tensor, times: Floats) -> None:
    pooled, hazard = sets.baseline(totals)
    state: dict[str, object] = {
        "baseline_times": pooled,
        "baseline_hazard": hazard,
        "follow_up": endpoint.survival.longest if endpoint.survival else float(times[-1]),
    }
    if len(sets.strata) > 1:
        by_code = {str(int(code)): list(sets.baseline(totals, at)) for at, code in enumerate(sets.strata.tolist())}
        state["strata"] = {code: pair for code, pair in by_code.items() if pair[0]}
    endpoint.load_state(state)


def fit_state(
    questions: StateQuestions,
    tool: Specification,
    quantities: Mapping[str, int],
    keep: Callable[[CutCounts], None] = lambda counts: None,
) -> FittedState:
    """Return what `FittedState.fit` returns for patients in one place, fitted to sums over sites.

    Args:
        questions: Asks the sites.
        tool: What is asked for.
        quantities: Patients of all sites by role.
        keep: Is given the counts behind the cuts.
    """
    endpoint = questions.setup.endpoint
    check_specification(tool, endpoint)
    attempts = _Attempts()
    tables = _Tables(questions, tool, quantities)
    keep(CutCounts.of(tables.totals))
    calibrator, checks = _calibration(attempts, tool, endpoint, tables, questions)
    decisions, risk_groups = list[Decision](), list[Decision]()
    for item in plan_measures(tool, endpoint):
        fitted = attempts.make(f"decision {item.prefix}{item.plan.name}", _decision_of(item, tables, calibrator))
        if fitted is not None:
            named = fitted.model_copy(update={"name": f"{item.prefix}{fitted.name}"})
            (decisions if item.requested else risk_groups).append(named)
    has_select = quantities.get("select", 0) > 0
    sets = novelty = None
    if tool.conformal is not None and has_select:
        sets = attempts.make("conformal", lambda: _conformal(questions, tool))
    if (options := tool.novelty) is not None:
        novelty = attempts.make("novelty", lambda: fit_novelty(questions.ask, options, has_select))
    return FittedState(
        endpoint=endpoint.state(),
        decisions=tuple(decisions),
        calibration=calibrator,
        calibration_checks=checks.checks if checks is not None else (),
        conformal=sets,
        novelty=novelty,
        risk_groups=tuple(risk_groups),
        left_out=attempts.reasons,
    )


class _Attempts:
    """Fits that may not be possible; remembers the reasons."""

    def __init__(self) -> None:
        self.reasons = dict[str, str]()

    def make(self, what: str, fit: Callable[[], Fitted]) -> Fitted | None:
        """Return what was fitted, or None and keep the reason."""
        try:
            return fit()
        except MilError as error:
            logger.warning("no %s: %s", what.partition(" ")[0], error)
            self.reasons[what] = str(error)
            return None


class _Tables:
    """Patients with the counts of all sites, by what was counted."""

    def __init__(self, questions: StateQuestions, tool: Specification, quantities: Mapping[str, int]) -> None:
        endpoint = questions.setup.endpoint
        self.by_name = dict[str, pd.DataFrame]()
        self.withheld = dict[str, FederationError]()
        self.totals = dict[str, Floats]()
        """by decision, the patients of all sites by answer and cell"""
        plans = {item.measure.name: item for item in plan_measures(tool, endpoint) if item.measure is not None}
        asked_questions = question_measures(endpoint) if tool.calibration is not None else []
        measures: list[Measure] = [item.measure for item in plans.values() if item.measure] + asked_questions
        for role in sorted({measure.role for measure in measures}):
            if not quantities.get(role):
                continue
            try:
                totals = questions.ask("measures", role, endpoint=endpoint)
            except FederationError as error:
                self.withheld[role] = error
                continue
            for measure in measures:
                if measure.role == role:
                    if measure.name in plans:
                        self.totals[measure.name] = totals[f"counts {measure.name}"]
                    self.by_name[measure.name] = self._table(
                        endpoint, plans.get(measure.name), measure, totals[f"counts {measure.name}"]
                    )

    @staticmethod
    def _table(endpoint: Endpoint, item: PlanMeasure | None, measure: Measure, counts: Floats) -> pd.DataFrame:
        if item is not None:
            return table_of(item.plan.endpoint, item.plan.question, item.plan.columns, measure.grid, counts)
        [question] = [each for each in endpoint.questions() if f"question {each.name}" == measure.name]
        return table_of(endpoint, question, question.columns, measure.grid, counts)

    def of(self, name: str) -> pd.DataFrame:
        """Return the patients that were counted under a name.

        Raises:
            FederationError: The sites' counts may not leave.
            PredictionsError: There are none.
        """
        for error in () if name in self.by_name else self.withheld.values():
            raise error
        if name not in self.by_name:
            raise PredictionsError(f"{name}: no site has patients of the role that it is fitted to")
        return self.by_name[name]


def _decision_of(item: PlanMeasure, tables: _Tables, calibrator: Calibrator | None) -> Callable[[], Decision]:
    def fit() -> Decision:
        if item.measure is None:
            return item.plan.fit(pd.DataFrame(), pd.DataFrame(), calibrator)
        patients = tables.of(item.measure.name)
        return item.plan.fit(patients, patients, calibrator)

    return fit


def _calibration(
    attempts: _Attempts,
    tool: Specification,
    endpoint: Endpoint,
    tables: _Tables,
    questions: StateQuestions,
) -> tuple[Calibrator | None, Choice | None]:
    """Return the calibration as far as it helps."""
    method = tool.calibration
    if method is None:
        return None, None
    choice = attempts.make("calibration", lambda: _choice(method, tool, endpoint, tables, questions))
    if choice is None:
        return None, None
    if choice.calibrator is None:
        attempts.reasons["calibration"] = choice.reason(method)
    return choice.calibrator, choice


def _choice(method: str, tool: Specification, endpoint: Endpoint, tables: _Tables, questions: StateQuestions) -> Choice:
    if endpoint.survival is not None:
        return fit_where_it_helps(method, endpoint, _followed(questions, endpoint))
    if len(endpoint.class_columns) > 1:
        if method != "temperature":
            raise PredictionsError(
                f"calibration {method} of several classes needs their probabilities together, which do not leave a "
                "site; expected temperature"
            )
        return fit_temperature(questions.ask, endpoint)
    patients = [tables.of(f"question {question.name}") for question in endpoint.questions()]
    table = pd.concat(patients)
    return fit_where_it_helps(
        method, endpoint, table.set_index(pd.Index([f"cell {at:06d}" for at in range(len(table))]))
    )


def _followed(questions: StateQuestions, endpoint: Endpoint) -> pd.DataFrame:
    """Return select patients with the counts of all sites by time, end of follow-up and log hazard.

    Raises:
        PredictionsError: The endpoint has no single log hazard from which all its risks follow.
    """
    view = endpoint.survival
    if view is None or endpoint.partial_likelihood is None:
        raise PredictionsError(
            "calibration of risks that do not follow from one log hazard needs several numbers of each patient, which "
            "do not leave a site"
        )
    counts = questions.ask("survival", "select", endpoint=endpoint)["counts survival"]  # (codes, t, cells)
    code, time, hazard = np.nonzero(counts)
    repeats = counts[code, time, hazard].round().astype(np.int64)
    logits = torch.from_numpy(np.repeat(hazard_centres()[hazard], repeats)).unsqueeze(1)
    words = _event_words(endpoint)
    rows: dict[str, object] = {name: ["0"] * len(logits) for name in endpoint.columns}
    rows[view.time_column] = np.repeat(questions.setup.cells[""].times[time], repeats)
    rows[view.event_column] = [words[int(value)] for value in np.repeat(code, repeats)]
    index = pd.Index([f"cell {at:06d}" for at in range(len(logits))])
    decoded = {name: values.numpy() for name, values in endpoint.decode(logits).items()}
    return pd.DataFrame(rows, index=index).assign(**decoded)


def _event_words(endpoint: Endpoint) -> dict[int, str]:
    """Return a word for each way in which follow-up can end, by code."""
    view, words = endpoint.survival, dict[int, str]()
    assert view is not None
    for word in endpoint.declared_words[view.event_column]:
        row = dict.fromkeys(endpoint.columns, "1") | {view.event_column: word}
        words.setdefault(int(endpoint.encode(pd.DataFrame([row]))[0, 1]), word)
    return words


def _conformal(questions: StateQuestions, tool: Specification) -> Conformal | None:
    """Return prediction sets or intervals; limits are at the upper edge of a cell, so that coverage is not lost."""
    options = tool.conformal
    assert options is not None
    endpoint, parts = questions.setup.endpoint, list[Sets | Interval]()
    unlimited = unlimited_sets(tool, endpoint)
    totals = questions.ask("deviations", "select", endpoint=endpoint) if unlimited else {}
    for number, part in enumerate(unlimited):
        counts = totals[f"counts deviations {number}"]
        grid = ANY if isinstance(part, Interval) else SHARES
        deviations = [_values(grid, row) for row in counts]
        if isinstance(part, Interval):
            limit = conformal.limit("value", deviations[0], options.coverage)
            parts.append(part.model_copy(update={"limits": (limit,)}))
        else:
            parts.append(conformal.limited(part, deviations, options))
    return conformal.joined(options, parts)


def _values(grid: Grid, counts: Floats) -> Floats:
    """Return values with these counts by cell, at the upper edges of the cells."""
    cells = np.flatnonzero(counts)
    return np.repeat(grid.upper(cells), counts[cells].round().astype(np.int64))

"""From predictions to cases: what was called of each patient, how sure that is, and whether it is the truth."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.cards.outputs import conditions
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.question import Question
from mil.endpoints.survival_view import SurvivalView
from mil.explain.pages.case import Call, Verdict
from mil.fitted.decision import Decision
from mil.fitted.rules import SensitivityRule, SpecificityRule
from mil.fitted.state import FittedState
from mil.stats.estimate import format_number

_CALIBRATED = "calibrated_"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a tool says of one patient."""

    calls: tuple[Call, ...]
    numbers: Mapping[str, str]
    """all numbers of the prediction by their column"""


def answers(endpoint: Endpoint, states: Mapping[Hashable, FittedState], table: pd.DataFrame) -> dict[str, Answer]:
    """Return what is said of each patient.

    Args:
        endpoint: What is predicted.
        states: What was fitted with each fold's model, by fold.
        table: Predictions indexed by patient, with columns `fold` and, where the truth is known, the targets.
    """
    listed = dict[str, Answer]()
    for fold, rows in table.groupby("fold", sort=False):
        state = states.get(fold, FittedState())
        scored = state.calibrated(rows)
        numbers = _numbers(endpoint, scored)
        calls = [each for part in _parts(endpoint, state) for each in _of_part(*part, scored)]
        for at, patient in enumerate(scored.index):
            listed[str(patient)] = Answer(calls=tuple(column[at] for column in calls), numbers=numbers[at])
    return listed


def _parts(endpoint: Endpoint, state: FittedState) -> Iterator[tuple[str, Endpoint, tuple[Decision, ...]]]:
    """Yield each endpoint with its name, where there are several, and its decisions."""
    if not endpoint.parts():
        yield "", endpoint, (*state.decisions, *state.risk_groups)
    for name, part in endpoint.parts().items():
        of_part = state.of_endpoint(name)
        yield f"{name}: ", part, (*of_part.decisions, *of_part.risk_groups)


def _of_part(
    prefix: str, endpoint: Endpoint, decisions: Sequence[Decision], table: pd.DataFrame
) -> Iterator[list[Call]]:
    """Yield the calls of each decision, or the numbers of an endpoint that has none, one for each patient."""
    truth = _Truth.of(endpoint, table)
    for decision in decisions:
        yield _decided(prefix, endpoint, decision, table, truth)
    if not decisions:
        yield from _undecided(prefix, endpoint, table, truth)


@dataclass(frozen=True, eq=False)
class _Truth:
    """What was observed of the patients of a table."""

    endpoint: Endpoint
    rows: pd.DataFrame
    """of the patients whose target is known"""
    mask: NDArray[np.bool_]
    """which patients these are, `(p,)`"""

    @classmethod
    def of(cls, endpoint: Endpoint, table: pd.DataFrame) -> "_Truth":
        has_columns = set(endpoint.columns) <= set(table.columns)
        mask = endpoint.has_target(table) if has_columns else np.zeros(len(table), dtype=np.bool_)
        return cls(endpoint, table[mask], mask)

    def spread(self, values: Sequence[object], missing: object = None) -> list[object]:
        """Return values of the patients with a target as a list of all patients."""
        listed = iter(values)
        return [next(listed) if has_target else missing for has_target in self.mask]

    def answers(self, question: Question) -> list[bool | None]:
        """Return whether the answer is yes; None where it is not known."""
        if not self.mask.any():
            return [None] * len(self.mask)
        truth = [None if np.isnan(value) else bool(value) for value in question.truth(self.rows)]
        return [value if isinstance(value, bool) else None for value in self.spread(truth)]

    def words(self, question: Question | None) -> list[str]:
        """Return the truth in words; empty where it is not known."""
        if not self.mask.any():
            return [""] * len(self.mask)
        return [str(text) for text in self.spread(self._words(question), "")]

    def _words(self, question: Question | None) -> list[str]:
        endpoint = self.endpoint
        if endpoint.survival is not None:
            return _follow_up(endpoint, endpoint.survival, self.rows)
        if endpoint.classes:
            return [endpoint.classes[at] for at in endpoint.labels(self.rows)]
        if question is not None:
            texts = {True: question.positive, False: question.negative, None: ""}
            truth = question.truth(self.rows)
            return [texts[None if np.isnan(value) else bool(value)] for value in truth]
        unit = f" {endpoint.unit}" if endpoint.unit else ""
        return [f"{float(value):.4g}{unit}" for value in self.rows[endpoint.columns[0]]]


def _decided(prefix: str, endpoint: Endpoint, decision: Decision, table: pd.DataFrame, truth: _Truth) -> list[Call]:
    question = _question(endpoint, decision)
    calls, when = decision.call(table), conditions(decision)
    meanings = {output.name: output.meaning for output in decision.outputs}
    verdicts = _verdicts(endpoint, decision, question, list(calls), truth)
    numbers, margins = _scores(decision, table)
    named = _score_name(endpoint, decision, question)
    when = {name: text.replace(" + ".join(decision.columns), named) for name, text in when.items()}
    return [
        Call(
            question=f"{prefix}{decision.name}",
            call=_call_name(call),
            meaning=meanings.get(call, ""),
            condition=when.get(call, ""),
            number=number,
            number_name=named,
            truth=words,
            verdict=verdict,
            margin=margin,
        )
        for call, words, verdict, number, margin in zip(
            calls, truth.words(question), verdicts, numbers, margins, strict=True
        )
    ]


def _call_name(call: object) -> str:
    return "no call" if call is None else f"class {call}" if str(call).isdigit() else str(call)


def _question(endpoint: Endpoint, decision: Decision) -> Question | None:
    """Return the yes-or-no question that a decision answers; None for classes and groups."""
    joint = decision.rule.joint_classes()
    if joint is not None:
        return endpoint.joint_question(joint)
    return next((each for each in endpoint.questions() if each.name == decision.name), None)


def _verdicts(
    endpoint: Endpoint, decision: Decision, question: Question | None, calls: Sequence[str | None], truth: _Truth
) -> list[Verdict]:
    if question is not None:
        pairs = zip(calls, truth.answers(question), strict=True)
        return [_of_question(decision, call, answer) for call, answer in pairs]
    if decision.likeliest:
        pairs_of_names = zip(calls, truth.words(None), strict=True)
        return [_of_class(decision, call, name) for call, name in pairs_of_names]
    if endpoint.survival is None:
        return [Verdict.OPEN] * len(calls)
    return [
        _UNKNOWN if pair is None else _of_group(endpoint.survival, decision, *pair) for pair in _events(truth, calls)
    ]


_UNKNOWN = Verdict.OPEN


def _of_question(decision: Decision, call: str | None, answer: bool | None) -> Verdict:
    """Return the verdict on a yes-or-no call; the zone that a rule does not promise anything of asserts nothing."""
    if call is None or call == decision.between:
        return Verdict.UNDECIDED
    if answer is None:
        return Verdict.OPEN
    negative, positive = decision.calls[0], decision.calls[1 if decision.likeliest else -1]
    if answer and call == negative:
        return Verdict.NOT_RULED_IN if isinstance(decision.rule, SpecificityRule) else Verdict.MISSED
    if not answer and call == positive:
        return Verdict.NOT_RULED_OUT if isinstance(decision.rule, SensitivityRule) else Verdict.FALSE
    return Verdict.RIGHT


def _of_class(decision: Decision, call: str | None, name: str) -> Verdict:
    if call is None or call == decision.between:
        return Verdict.UNDECIDED
    return Verdict.OPEN if not name else Verdict.RIGHT if call == name else Verdict.WRONG


def _events(truth: _Truth, calls: Sequence[str | None]) -> Iterator[tuple[str, float, int] | None]:
    """Yield each patient's group, time and kind of event (0: none); None where they are not known."""
    view = truth.endpoint.survival
    if view is None or not truth.mask.any():
        yield from [None] * len(calls)
        return
    times = view.event_times(truth.endpoint.encode(truth.rows)).tolist()
    for call, pair in zip(calls, truth.spread(times), strict=True):
        yield None if call is None or not isinstance(pair, list) else (call, float(pair[0]), int(pair[1]))


def _of_group(view: SurvivalView, decision: Decision, group: str, time: float, code: int) -> Verdict:
    """Return whether the lowest group had the event, or the highest none, within the longest horizon."""
    horizon = max(view.horizons.values(), default=float("inf"))
    event, free = code == 1 and time <= horizon, code != 1 and time >= horizon
    if group == decision.calls[0]:
        return Verdict.EVENT_LOW if event else Verdict.RIGHT if free else Verdict.OPEN
    if group == decision.calls[-1]:
        return Verdict.FREE_HIGH if free else Verdict.RIGHT if event else Verdict.OPEN
    return Verdict.OPEN


def _follow_up(endpoint: Endpoint, view: SurvivalView, rows: pd.DataFrame) -> list[str]:
    texts = []
    for time, code in view.event_times(endpoint.encode(rows)).tolist():
        event = view.causes[int(code) - 1] if view.causes and code else "event"
        texts.append(f"{event} after {time:.4g} {view.unit}" if code else f"no event in {time:.4g} {view.unit}")
    return texts


def _scores(decision: Decision, table: pd.DataFrame) -> tuple[list[str], list[float | None]]:
    """Return the number that a decision is made from, and its distance from the nearest cut, for each patient."""
    if decision.likeliest:
        shares = table[list(decision.columns)].to_numpy(np.float64)
        shares = np.hstack([1 - shares, shares]) if shares.shape[1] == 1 else shares
        ordered = np.sort(shares, axis=1)
        return [_number(value) for value in ordered[:, -1]], [float(gap) for gap in ordered[:, -1] - ordered[:, -2]]
    score = decision.score(table)
    if not decision.cuts:
        return [_number(value) for value in score], [None] * len(score)
    gaps = np.min(np.abs(score[:, None] - np.array(decision.cuts)), axis=1)
    return [_number(value) for value in score], [None if np.isnan(gap) else float(gap) for gap in gaps]


def _number(value: float) -> str:
    return "" if np.isnan(value) else format_number(float(value))


def _score_name(endpoint: Endpoint, decision: Decision, question: Question | None) -> str:
    """Return what the number of a decision is, in words."""
    recalibrated = ", recalibrated" if all(name.startswith(_CALIBRATED) for name in decision.columns) else ""
    if decision.likeliest:
        return f"probability of this class{recalibrated}"
    if question is not None:
        return f"probability of {_yes(question)}{recalibrated}"
    return _column_words(endpoint, decision.columns[0]) + recalibrated


def _yes(question: Question) -> str:
    """Return what yes is, such as "MSI-H" or "BRAF mutated"."""
    return question.positive if question.name in question.positive else f"{question.name} {question.positive}"


def _column_words(endpoint: Endpoint, column: str) -> str:
    column = column.removeprefix(_CALIBRATED)
    view = endpoint.survival
    if view is not None:
        horizons = {view.risk_column(name, cause): name for name in view.horizons for cause in view.causes or (None,)}
        if column in horizons:
            return f"risk within {horizons[column]}"
        return "risk score" if column == view.rank_column and column != "log_hazard" else column.replace("_", " ")
    return (
        f"value in {endpoint.unit}" if column == endpoint.value_column and endpoint.unit else column.replace("_", " ")
    )


def _undecided(prefix: str, endpoint: Endpoint, table: pd.DataFrame, truth: _Truth) -> Iterator[list[Call]]:
    """Yield the numbers of an endpoint without decisions."""
    view = endpoint.survival
    columns: dict[str, Question | None] = {question.columns[0]: question for question in endpoint.questions()}
    if view is not None:
        columns = dict.fromkeys([*view.risk_columns().values()][-1:] or [view.rank_column])
    elif endpoint.value_column is not None:
        columns = {endpoint.value_column: None}
    for column, question in columns.items():
        values = table[column].to_numpy(np.float64)
        margins = _errors(endpoint, values, truth) if question is None else _surprise(values, truth.answers(question))
        named = _column_words(endpoint, column) if question is None else f"probability of {_yes(question)}"
        yield [
            Call(
                question=f"{prefix}{named}",
                number=_number(value),
                number_name=named,
                truth=words,
                margin=margin,
            )
            for value, words, margin in zip(values, truth.words(question), margins, strict=True)
        ]


def _surprise(values: NDArray[np.float64], answers: Sequence[bool | None]) -> list[float | None]:
    """Return how far each probability is from the truth; None where that is not known."""
    return [None if yes is None else abs(float(value) - yes) for value, yes in zip(values, answers, strict=True)]


def _errors(endpoint: Endpoint, values: NDArray[np.float64], truth: _Truth) -> list[float | None]:
    """Return how far a predicted number is from the true one; None where that is not known."""
    if endpoint.value_column is None or not truth.mask.any():
        return [None] * len(values)
    target = truth.rows[endpoint.columns[0]].astype(float).tolist()
    pairs = zip(values, truth.spread(target), strict=True)
    return [abs(float(value) - true) if isinstance(true, float) else None for value, true in pairs]


def _numbers(endpoint: Endpoint, table: pd.DataFrame) -> list[dict[str, str]]:
    """Return the numbers of each patient by their column, uncalibrated and calibrated."""
    columns = [
        name
        for name in table.columns
        if (name in endpoint.prediction_columns or str(name).startswith(_CALIBRATED))
        and pd.api.types.is_numeric_dtype(table[name])
    ]
    values = table[columns].to_numpy(np.float64)
    return [{str(name): _number(value) or "–" for name, value in zip(columns, row, strict=True)} for row in values]

"""The decision that a tool's yaml asks for, fitted on train or select patients of one fold.

    {rule: sensitivity, at_least: 0.95}       the highest cut that finds that share of the select positives
    {rule: specificity, at_least: 0.95}       the lowest cut that clears that share of the select negatives
    {rule: youden}                            the cut where sensitivity + specificity is largest
    {rule: two_cuts, low: 0.1, high: 0.9}     probabilities stated beforehand, indeterminate between them
    {rule: two_cuts, out: {npv: 0.98}, in: {ppv: 0.9}}   or sensitivity, and specificity, of select patients
    {rule: argmax, abstain_below: 0.8}        the likeliest class, or none where it is not likely enough
    {rule: quantiles, cuts: [0.5]}            low and high, or with two cuts intermediate, by training patients' scores
    {rule: absolute_risk, horizon: 5y, cuts: [0.05]}     the same by a risk stated beforehand
    {questions: {MSI: {rule: ...}}}           a rule for some of the questions

The first four and `argmax` on labels speak of yes-or-no questions: one decision for each that the endpoint asks, or one
for `positive: [classes]` together. `role:` says what the decision is for and changes nothing.

Probabilities and risks that were stated beforehand (`low` and `high`, `argmax`, `absolute_risk`) mean what they say, so
they are compared with the calibrated columns where a calibration was fitted. Cuts that patients set are of the model's
own columns: an order is all that they need, and a calibration keeps it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.question import Question
from mil.errors import ConfigError, PredictionsError
from mil.fitted.calibrators import Calibrator, calibrated_name, either
from mil.fitted.cutoffs import achieved, choose, two_cuts
from mil.fitted.decision import ABSTAINED, BETWEEN, Decision, On, apply, recalibrate, total
from mil.fitted.rule_options import GROUPS, check, check_keys

__all__ = ["MEDIAN", "STATED", "Decision", "Plan", "aimed", "apply", "fit", "group_plan", "plans", "recalibrate"]

STATED: On = "stated beforehand"
MEDIAN = {"rule": "quantiles", "cuts": [0.5]}
"""Rule of risk groups where a tool states none."""
GROUP_RULES = ("quantiles", "absolute_risk")


@dataclass(frozen=True)
class Plan:
    """One decision before it is fitted; what it asks for has been checked."""

    name: str
    """of the question, or of the score"""
    rule: Mapping[str, Any]
    endpoint: Endpoint
    columns: tuple[str, ...]
    calls: tuple[str, ...]
    """of every zone that there may be, from the lowest"""
    question: Question | None = None

    @property
    def stated(self) -> bool:
        """Whether the rule itself says where to cut, so that what is cut has to be a probability."""
        return _stated(self.rule) is not None

    def fit(self, train: pd.DataFrame, select: pd.DataFrame, calibrator: Calibrator | None = None) -> Decision:
        """With its cuts, from predictions with targets of a fold's train and select patients; no others are seen.

        `calibrator` was fitted to the same select patients; what the rule states is then cut on its columns.

        Raises:
            PredictionsError: these patients cannot set the cuts, or a column of scores is missing.
        """
        if self.rule["rule"] == "quantiles":
            return self._by_quantiles(train)
        stated = _stated(self.rule)
        if stated is None:
            return self._by_question(select)
        return aimed(self._frozen(stated, on=STATED), calibrator)

    def _frozen(self, cuts: list[float], **found: Any) -> Decision:
        """This plan with its cuts; where two became one there is nothing between."""
        calls = self.calls if len(cuts) + 1 >= len(self.calls) or self.rule["rule"] == "argmax" else self.outer
        return Decision(
            name=self.name, columns=self.columns, rule=dict(self.rule), cuts=tuple(cuts), calls=calls, **found
        )

    @property
    def outer(self) -> tuple[str, str]:
        """What is called ruled out, and ruled in, by a yes-or-no question."""
        return (self.calls[0], self.calls[1 if self.rule["rule"] == "argmax" else -1])

    def _by_quantiles(self, train: pd.DataFrame) -> Decision:
        if train.empty:
            raise PredictionsError(f"decision {self.name}: 0 train patients, expected some whose scores set the cuts")
        cuts = np.quantile(total(train, self.columns), self.rule["cuts"]).tolist()
        events = self.endpoint.counts(self.endpoint.encode(train)).get("events")
        decision = self._frozen(cuts, on="train", n=len(train), positives=events)
        calls = decision.call(train)
        return decision.model_copy(update={"achieved": {name: float(np.mean(calls == name)) for name in self.calls}})

    def _by_question(self, select: pd.DataFrame) -> Decision:
        if self.question is None:
            raise ValueError(f"decision {self.name}: no question")
        truth = self.question.truth(select)
        known = ~np.isnan(truth)
        score, positive = total(select, self.columns)[known], truth[known] == 1
        two = self.rule["rule"] == "two_cuts"
        cuts = (
            two_cuts(self.rule["out"], self.rule["in"], score, positive)
            if two
            else [choose(self.rule, score, positive)]
        )
        rates = achieved(cuts, score, positive)
        counts = {"n": len(score), "positives": int(positive.sum())}
        return self._frozen(cuts, on="select", **counts, achieved=rates, note=_note(self.rule, cuts, rates))


def fit(
    decision: Mapping[str, Any] | None,
    endpoint: Endpoint,
    train: pd.DataFrame,
    select: pd.DataFrame,
    calibrator: Calibrator | None = None,
) -> list[Decision]:
    """Everything that a tool decides, from predictions of one fold's patients.

    Args:
        decision: As the tool's yaml says it, in plain types; none, or a rule of none, decides nothing.
        endpoint: What was predicted; not several in one.
        train: Targets and scores of training patients.
        select: Those of select patients.
        calibrator: Fitted to the select patients, where the tool asks for one.

    Raises:
        ConfigError: a rule, key, share or question that does not exist.
        PredictionsError: these patients cannot set the cuts.
    """
    return [plan.fit(train, select, calibrator) for plan in plans(decision, endpoint)]


def aimed(decision: Decision, calibrator: Calibrator | None) -> Decision:
    """A decision whose cuts were stated, about the calibrated columns as far as there are some; others as they are."""
    if calibrator is None or decision.on != STATED:
        return decision
    raw = {calibrated_name(name): name for name in calibrator.columns}
    given, put_right = either([raw.get(name, name) for name in decision.columns])
    return decision.model_copy(update={"columns": put_right if calibrator.answers(given) else given})


def plans(decision: Mapping[str, Any] | None, endpoint: Endpoint) -> list[Plan]:
    """What is to be fitted, one for each question or score.

    Raises:
        ConfigError: a rule, key, share or question that does not exist.
    """
    if decision is None:
        return []
    if "questions" not in decision:
        return _plans(decision, endpoint)
    check_keys(decision, {"questions", "role"}, "questions")
    if not isinstance(decision["questions"], Mapping):
        raise ConfigError(f"decision: questions {decision['questions']!r}, expected a rule for each of them by name")
    asked = {question.name: question for question in endpoint.questions()}
    rules = {str(name): rule for name, rule in decision["questions"].items()}
    if odd := [name for name in rules if name not in asked]:
        raise ConfigError(f"decision: question {odd[0]!r}, expected some of {', '.join(asked) or '(none)'}")
    role = {"role": decision["role"]} if "role" in decision else {}
    return [plan for name, rule in rules.items() if rule for plan in _plans(rule, endpoint, asked[name], role)]


def group_plan(decision: Mapping[str, Any] | None, endpoint: Endpoint) -> Plan | None:
    """Return the plan of risk groups for an endpoint of survival: the tool's own rule, else the training median.

    None for endpoints without times to an event.

    Raises:
        ConfigError: a rule with keys, shares or horizons that do not exist.
    """
    if endpoint.survival is None:
        return None
    states_groups = decision is not None and decision.get("rule") in GROUP_RULES
    [plan] = plans(decision if states_groups else MEDIAN, endpoint)
    return plan


def _plans(
    rule: Mapping[str, Any], endpoint: Endpoint, only: Question | None = None, role: Mapping[str, str] | None = None
) -> list[Plan]:
    if isinstance(rule, Mapping) and rule.get("rule") is None and set(rule) <= {"rule", "role"}:
        return []
    check(rule, alone=only is None)
    rule = {**(role or {}), **rule}
    name = rule["rule"]
    if name == "quantiles":
        return [_ranked(rule, endpoint)]
    if name == "absolute_risk":
        return [_risk(rule, endpoint)]
    if name == "argmax" and len(endpoint.class_columns) > 1:
        return [_likeliest(rule, endpoint, only)]
    return [_question(rule, endpoint, question) for question in ([only] if only else _asked(rule, endpoint))]


def _asked(rule: Mapping[str, Any], endpoint: Endpoint) -> list[Question]:
    positive = rule.get("positive")
    if positive is not None:
        return [endpoint.joint_question([positive] if isinstance(positive, str) else positive)]
    if asked := endpoint.questions():
        return asked
    others = "quantiles" if endpoint.survival is None else "quantiles or absolute_risk"
    raise ConfigError(f"decision {rule['rule']}: {type(endpoint).__name__} asks no question, expected {others}")


def _question(rule: Mapping[str, Any], endpoint: Endpoint, question: Question) -> Plan:
    no, yes = question.negative, question.positive
    calls: tuple[str, ...] = (no, yes)
    if rule["rule"] == "two_cuts":
        calls = (no, BETWEEN, yes)
    elif "abstain_below" in rule:
        calls = (no, yes, ABSTAINED)
    return Plan(question.name, rule, endpoint, question.columns, calls, question)


def _likeliest(rule: Mapping[str, Any], endpoint: Endpoint, only: Question | None) -> Plan:
    if only:
        raise ConfigError(f"decision argmax: question {only.name!r}, expected all classes compared at once")
    calls = (*endpoint.classes, ABSTAINED) if "abstain_below" in rule else endpoint.classes
    return Plan(endpoint.columns[0], rule, endpoint, endpoint.class_columns, calls)


def _ranked(rule: Mapping[str, Any], endpoint: Endpoint) -> Plan:
    score = endpoint.group_score
    if score is None:
        raise ConfigError(
            f"decision quantiles: {type(endpoint).__name__}, expected an endpoint of survival or a number"
        )
    return Plan(score, rule, endpoint, (score,), GROUPS[len(rule["cuts"])])


def _risk(rule: Mapping[str, Any], endpoint: Endpoint) -> Plan:
    if endpoint.survival is None:
        raise ConfigError(f"decision absolute_risk: horizon {str(rule.get('horizon'))!r}, expected one of (none)")
    cause = str(rule["cause"]) if "cause" in rule else None
    try:
        column = endpoint.survival.risk_column(str(rule.get("horizon")), cause)
    except ValueError as error:
        raise ConfigError(f"decision absolute_risk: {error}") from None
    return Plan(column, rule, endpoint, (column,), GROUPS[len(rule["cuts"])])


def _stated(rule: Mapping[str, Any]) -> list[float] | None:
    """Cuts that the rule itself states."""
    match rule["rule"]:
        case "absolute_risk":
            return [float(cut) for cut in rule["cuts"]]
        case "argmax":
            return [float(rule["abstain_below"])] if "abstain_below" in rule else []
        case "two_cuts" if "low" in rule:
            return [float(rule["low"]), float(rule["high"])]
    return None


def _note(rule: Mapping[str, Any], cuts: list[float], achieved: Mapping[str, float | None]) -> str | None:
    if rule["rule"] == "two_cuts" and len(cuts) == 1:
        return "Both promises can be kept without an indeterminate zone: one cut in the middle of where they overlap."
    reached = achieved.get(rule["rule"])
    if reached is not None and reached < rule["at_least"]:
        return (
            f"No cut reaches a {rule['rule']} of {rule['at_least']}; the highest score is the cut, with {reached:.3f}."
        )
    return None

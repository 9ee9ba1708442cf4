"""The decisions that a tool asks for, fitted to the train or select patients of one fold.

    {rule: sensitivity, at_least: 0.95}       the highest cut that finds that share of further positives, on average
    {rule: specificity, at_least: 0.95}       the lowest cut that clears that share of further negatives, on average
    {rule: youden}                            the cut where sensitivity + specificity is largest
    {rule: two_cuts, low: 0.1, high: 0.9}     probabilities stated beforehand, indeterminate between them
    {rule: two_cuts, out: {npv: 0.98}, in: {ppv: 0.9}}   or sensitivity, and specificity, of select patients
    {rule: argmax, abstain_below: 0.8}        the likeliest class, or none where it is not likely enough
    {rule: quantiles, cuts: [0.5]}            low and high, or with two cuts intermediate, by training patients' scores
    {rule: absolute_risk, horizon: 5y, cuts: [0.05]}     the same by a risk stated beforehand
    {questions: {MSI: {rule: ...}}}           a rule for some of the questions

The first four, and `argmax` on labels, are about yes-or-no questions: one decision for each of the endpoint's, or one
for `positive: [classes]` together. `role:` says what the decision is for and changes no number. `outputs:` names the
zones, from the lowest, by what the rule asserts or what is to be done: `[{name: MSS, meaning: ...}, ...]`.

Probabilities and risks that are stated beforehand (`low` and `high`, `argmax`, `absolute_risk`) are compared with the
calibrated columns, where a calibration was fitted. Cuts that patients set are of the uncalibrated columns: they need an
order only, and calibration keeps it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.question import Question
from mil.errors import ConfigError, PredictionsError
from mil.fitted.calibrators import Calibrator, calibrated_name, raw_and_calibrated
from mil.fitted.cutoffs import achieved, choose, two_cuts
from mil.fitted.decision import ABSTAINED, BETWEEN, Decision, On, apply, recalibrate, total
from mil.fitted.guarantee import AveragePromise, average_promise
from mil.fitted.rules import (
    GROUPS,
    MEDIAN,
    AbsoluteRiskRule,
    AnyRule,
    ArgmaxRule,
    GroupRule,
    NoRule,
    Output,
    QuantilesRule,
    QuestionRules,
    SensitivityRule,
    SingleDecision,
    SpecificityRule,
    TwoCutsRule,
    YoudenRule,
)

__all__ = ["STATED", "Decision", "Plan", "apply", "fit", "group_plan", "on_calibrated_columns", "plans", "recalibrate"]

logger = logging.getLogger(__name__)

STATED: On = "stated beforehand"
OVERLAP = "Both promises can be kept without an indeterminate zone: one cut in the middle of where they overlap."


@dataclass(frozen=True)
class Plan:
    """One decision before it is fitted."""

    name: str
    """of the question, or of the score"""
    rule: AnyRule
    endpoint: Endpoint
    columns: tuple[str, ...]
    calls: tuple[str, ...]
    """names of all possible zones, from the lowest"""
    question: Question | None = None
    outputs: tuple[Output, ...] = ()
    """what each call means, where the rule says it"""

    @property
    def stated(self) -> bool:
        """Whether the rule itself states the cuts, as probabilities."""
        return self.rule.stated_cuts() is not None

    def fit(self, train: pd.DataFrame, select: pd.DataFrame, calibrator: Calibrator | None = None) -> Decision:
        """Return the decision, with cuts from the predictions and targets of a fold's train and select patients.

        Args:
            train: Training patients.
            select: Patients of model selection.
            calibrator: Fitted to the same select patients; cuts that the rule states are then of its columns.

        Raises:
            PredictionsError: these patients cannot set the cuts, or a column of scores is missing.
        """
        if isinstance(self.rule, QuantilesRule):
            return self._by_quantiles(self.rule, train)
        stated = self.rule.stated_cuts()
        if stated is None:
            return self._by_question(select)
        return on_calibrated_columns(self._decision(stated, on=STATED), calibrator)

    def _decision(self, cuts: Sequence[float], on: On, n: int = 0, positives: int | None = None) -> Decision:
        """Return this plan with its cuts; where two became one there is no zone between them."""
        calls = self.calls if len(cuts) + 1 >= len(self.calls) or self.compares_classes else self.outer
        return Decision(
            outputs=tuple(output for output in self.outputs if output.name in calls),
            name=self.name,
            columns=self.columns,
            rule=self.rule,
            cuts=tuple(cuts),
            calls=calls,
            on=on,
            n=n,
            positives=positives,
        )

    @property
    def compares_classes(self) -> bool:
        """Whether the likeliest class is called, and no score is cut."""
        return isinstance(self.rule, ArgmaxRule)

    @property
    def outer(self) -> tuple[str, str]:
        """The calls that rule a yes-or-no question out, and in."""
        return (self.calls[0], self.calls[1 if self.compares_classes else -1])

    @property
    def between(self) -> str | None:
        """The call that decides nothing: between two cuts, or where no class is likely enough."""
        if self.compares_classes:
            classes = max(len(self.columns), 2)
            return self.calls[classes] if len(self.calls) > classes else None
        return self.calls[1] if isinstance(self.rule, TwoCutsRule) else None

    @property
    def truth(self) -> tuple[str, str]:
        """Names of the negatives and the positives of a yes-or-no question.

        Raises:
            ValueError: the decision is about no such question.
        """
        if self.question is None:
            raise ValueError(f"decision {self.name}: no question")
        return self.question.negative, self.question.positive

    def _by_quantiles(self, rule: QuantilesRule, train: pd.DataFrame) -> Decision:
        if train.empty:
            raise PredictionsError(f"decision {self.name}: 0 train patients, expected some whose scores set the cuts")
        cuts = np.quantile(total(train, self.columns), list(rule.cuts)).tolist()
        events = self.endpoint.counts(self.endpoint.encode(train)).get("events")
        decision = self._decision(cuts, on="train", n=len(train), positives=events)
        calls = decision.call(train)
        return decision.model_copy(update={"achieved": {name: float(np.mean(calls == name)) for name in self.calls}})

    def _by_question(self, select: pd.DataFrame) -> Decision:
        if self.question is None:
            raise ValueError(f"decision {self.name}: no question")
        truth = self.question.truth(select)
        labelled = ~np.isnan(truth)
        score, positive = total(select, self.columns)[labelled], truth[labelled] == 1
        if isinstance(self.rule, TwoCutsRule) and self.rule.out and self.rule.into:
            cuts = two_cuts(self.rule.out, self.rule.into, score, positive)
        elif isinstance(self.rule, SensitivityRule | SpecificityRule | YoudenRule):
            cuts = [choose(self.rule, score, positive)]
        else:
            raise ValueError(f"decision {self.name}: rule {self.rule.rule} sets no cut on select patients")
        rates = achieved(cuts, score, positive)
        decision = self._decision(cuts, on="select", n=len(score), positives=int(positive.sum()))
        promises = _promises(self.rule, int(positive.sum()), int((~positive).sum()))
        shortages = [text for promise in promises if (text := promise.shortage()) is not None]
        for text in shortages:
            logger.warning("decision %s: %s", self.name, text)
        notes = [*_overlap(self.rule, cuts), *shortages]
        return decision.model_copy(
            update={"achieved": rates, "promises": promises, "note": " ".join(notes) if notes else None}
        )


def fit(
    decision: SingleDecision | None,
    endpoint: Endpoint,
    train: pd.DataFrame,
    select: pd.DataFrame,
    calibrator: Calibrator | None = None,
) -> list[Decision]:
    """Fit all decisions of a tool to predictions of one fold's patients.

    Args:
        decision: As the tool states it; None, or no rule, decides nothing.
        endpoint: What was predicted; a single endpoint.
        train: Targets and scores of training patients.
        select: Targets and scores of select patients.
        calibrator: Fitted to the select patients, where the tool asks for one.

    Raises:
        ConfigError: a rule, key, share or question that does not exist.
        PredictionsError: these patients cannot set the cuts.
    """
    return [plan.fit(train, select, calibrator) for plan in plans(decision, endpoint)]


def on_calibrated_columns(decision: Decision, calibrator: Calibrator | None) -> Decision:
    """Return a decision with stated cuts about the calibrated columns, as far as there are some; others unchanged."""
    if calibrator is None or decision.on != STATED:
        return decision
    raw = {calibrated_name(name): name for name in calibrator.columns}
    columns, calibrated = raw_and_calibrated([raw.get(name, name) for name in decision.columns])
    return decision.model_copy(update={"columns": calibrated if calibrator.answers(columns) else columns})


def plans(decision: SingleDecision | None, endpoint: Endpoint) -> list[Plan]:
    """Return what is to be fitted, one plan for each question or score.

    Raises:
        ConfigError: a question, class or horizon that the endpoint does not have.
    """
    if decision is None:
        return []
    if not isinstance(decision, QuestionRules):
        return _plans(decision, endpoint)
    by_name = {question.name: question for question in endpoint.questions()}
    if unknown := [name for name in decision.questions if name not in by_name]:
        raise ConfigError(f"decision: question {unknown[0]!r}, expected some of {', '.join(by_name) or '(none)'}")
    plans = list[Plan]()
    for name, rule in decision.questions.items():
        if decision.role is not None and rule.role is None:
            rule = rule.model_copy(update={"role": decision.role})
        plans += _plans(rule, endpoint, by_name[name])
    return plans


def group_plan(decision: SingleDecision | None, endpoint: Endpoint) -> Plan | None:
    """Return the plan of risk groups for an endpoint of survival: the tool's own rule, else the training median.

    None for endpoints without times to an event.

    Raises:
        ConfigError: a horizon or cause that the endpoint does not have.
    """
    if endpoint.survival is None:
        return None
    [plan] = plans(decision if isinstance(decision, GroupRule) else MEDIAN, endpoint)
    return plan


def _plans(rule: AnyRule | NoRule, endpoint: Endpoint, question: Question | None = None) -> list[Plan]:
    match rule:
        case NoRule():
            return []
        case QuantilesRule():
            return [_ranked(rule, endpoint)]
        case AbsoluteRiskRule():
            return [_risk(rule, endpoint)]
        case ArgmaxRule() if len(endpoint.class_columns) > 1:
            return [_likeliest(rule, endpoint, question)]
    return [_question(rule, endpoint, each) for each in ([question] if question else _questions(rule, endpoint))]


def _questions(rule: AnyRule, endpoint: Endpoint) -> list[Question]:
    classes = rule.joint_classes()
    if classes is not None:
        return [endpoint.joint_question(classes)]
    if questions := endpoint.questions():
        return questions
    others = "quantiles" if endpoint.survival is None else "quantiles or absolute_risk"
    raise ConfigError(f"decision {rule.rule}: {type(endpoint).__name__} asks no question, expected {others}")


def _question(rule: AnyRule, endpoint: Endpoint, question: Question) -> Plan:
    no, yes = question.negative, question.positive
    calls: tuple[str, ...] = (no, yes)
    if isinstance(rule, TwoCutsRule):
        calls = (no, BETWEEN, yes)
    elif isinstance(rule, ArgmaxRule) and rule.abstain_below is not None:
        calls = (no, yes, ABSTAINED)
    return _named(Plan(question.name, rule, endpoint, question.columns, calls, question))


def _likeliest(rule: ArgmaxRule, endpoint: Endpoint, question: Question | None) -> Plan:
    if question:
        raise ConfigError(f"decision argmax: question {question.name!r}, expected all classes compared at once")
    calls = endpoint.classes if rule.abstain_below is None else (*endpoint.classes, ABSTAINED)
    return _named(Plan(endpoint.columns[0], rule, endpoint, endpoint.class_columns, calls))


def _ranked(rule: QuantilesRule, endpoint: Endpoint) -> Plan:
    score = endpoint.group_score
    if score is None:
        raise ConfigError(
            f"decision quantiles: {type(endpoint).__name__}, expected an endpoint of survival or a number"
        )
    return _named(Plan(score, rule, endpoint, (score,), GROUPS[len(rule.cuts)]))


def _risk(rule: AbsoluteRiskRule, endpoint: Endpoint) -> Plan:
    if endpoint.survival is None:
        raise ConfigError(f"decision absolute_risk: horizon {rule.horizon!r}, expected one of (none)")
    try:
        column = endpoint.survival.risk_column(str(rule.horizon), rule.cause)
    except ValueError as error:
        raise ConfigError(f"decision absolute_risk: {error}") from None
    if reason := endpoint.survival.beyond(str(rule.horizon)):
        raise ConfigError(f"decision absolute_risk: horizon {rule.horizon}, {reason}; expected one within it")
    return _named(Plan(column, rule, endpoint, (column,), GROUPS[len(rule.cuts)]))


def _named(plan: Plan) -> Plan:
    """Return the plan with the names that its rule gives to the zones, if it does."""
    stated = plan.rule.outputs
    if not stated:
        return plan
    if len(stated) != len(plan.calls):
        needed = f"{len(plan.calls)}: {', '.join(plan.calls)}"
        raise ConfigError(f"decision {plan.rule.rule}: {len(stated)} outputs, expected {needed}")
    outputs = tuple(output.about(plan.name) for output in stated)
    return replace(plan, calls=tuple(output.name for output in outputs), outputs=outputs)


def _overlap(rule: AnyRule, cuts: Sequence[float]) -> list[str]:
    return [OVERLAP] if isinstance(rule, TwoCutsRule) and len(cuts) == 1 else []


def _promises(rule: AnyRule, positives: int, negatives: int) -> tuple[AveragePromise, ...]:
    """Return what cuts for a sensitivity or a specificity promise, from so many patients of each class."""
    promises = []
    for measure, share in rule.promises().items():
        if measure == "sensitivity":
            promises.append(average_promise("sensitivity", share, positives))
        elif measure == "specificity":
            promises.append(average_promise("specificity", share, negatives))
    return tuple(promises)

"""Decision rules as a tool states them: typed, and checked before any score is seen.

A rule is a mapping in the tool's yaml; `mil.fitted.decision_rules` says what each does. `parse_decision` turns the
mapping into one of the models of this module, and refuses rules, keys and values that do not exist.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_serializer

from mil.errors import ConfigError

Share = int | float
"""A number from 0 to 1, as it was written."""
OUT, IN = ("sensitivity", "npv"), ("specificity", "ppv")
"""What a lower cut may promise of the patients below it, and an upper cut of those above it."""
GROUPS = {1: ("low", "high"), 2: ("low", "intermediate", "high")}
"""Names of risk groups, by the number of cuts."""


class Statement(BaseModel):
    """Something that a tool states about its decisions; it is written back as it was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_serializer
    def plain(self) -> dict[str, Any]:
        """Return the keys that were given, in the form of the yaml."""
        fields = type(self).model_fields
        last = ("role", "outputs")
        order = ["rule", *(name for name in fields if name not in ("rule", *last)), *last]
        names = [name for name in order if name in self.model_fields_set]
        return {fields[name].alias or name: _plain(getattr(self, name)) for name in names}


class Output(Statement):
    """What a zone is called, and what it means for the patient; `{question}` stands for the name of the question."""

    name: str
    """the action or finding that the rule carries: not a class that it does not assert"""
    meaning: str

    def about(self, question: str) -> "Output":
        """Return the output of one question."""
        return Output(
            name=self.name.replace("{question}", question), meaning=self.meaning.replace("{question}", question)
        )


class Rule(Statement):
    """One rule, for one question or one score."""

    role: str | None = None
    """what the decision is for; it changes no number"""
    outputs: tuple[Output, ...] = ()
    """one for each zone from the lowest, of `argmax` one for each class and one for abstaining; empty: default names"""

    def zones(self) -> int | None:
        """Return how many outputs there are; None where it depends on the classes."""
        return 2

    def terms(self) -> dict[str, Any]:
        """Return the keys that set numbers, in the form of the yaml: all but the outputs' names and meanings."""
        return {key: value for key, value in self.plain().items() if key != "outputs"}

    def roles(self) -> set[str]:
        """Return what the decision is for, where it is stated."""
        return {self.role} if self.role else set()

    def stated_cuts(self) -> tuple[float, ...] | None:
        """Return the cuts that the rule itself states as probabilities; None where patients set them."""
        return None

    def promises(self) -> dict[str, float]:
        """Return the measures that the cuts promise among the patients who set them, with the least value of each."""
        return {}

    def joint_classes(self) -> Sequence[str] | None:
        """Return the classes that count as yes together; None for one decision on each question."""
        return None


class NoRule(Rule):
    """Nothing is decided."""

    rule: None = None


class QuestionRule(Rule):
    """A rule for yes-or-no questions."""

    positive: str | tuple[str, ...] | None = None
    """classes that count as yes together"""

    def joint_classes(self) -> Sequence[str] | None:
        """Return the classes that count as yes together."""
        return (self.positive,) if isinstance(self.positive, str) else self.positive


class SensitivityRule(QuestionRule):
    """The highest cut that finds a share of the positives."""

    rule: Literal["sensitivity"]
    at_least: Share

    def promises(self) -> dict[str, float]:
        """Return the promised sensitivity."""
        return {self.rule: float(self.at_least)}


class SpecificityRule(QuestionRule):
    """The lowest cut that clears a share of the negatives."""

    rule: Literal["specificity"]
    at_least: Share

    def promises(self) -> dict[str, float]:
        """Return the promised specificity."""
        return {self.rule: float(self.at_least)}


class YoudenRule(QuestionRule):
    """The cut where sensitivity + specificity is largest."""

    rule: Literal["youden"]


class TwoCutsRule(QuestionRule):
    """A cut to rule out and a cut to rule in: stated as probabilities (`low`, `high`) or promised (`out`, `in`)."""

    rule: Literal["two_cuts"]
    low: Share | None = None
    high: Share | None = None
    out: dict[str, Share] | None = None
    """one of `OUT`, with its share"""
    into: dict[str, Share] | None = Field(default=None, alias="in")
    """one of `IN`, with its share"""

    def zones(self) -> int:
        """Return how many outputs there are."""
        return 3

    def stated_cuts(self) -> tuple[float, ...] | None:
        """Return `low` and `high`, where they are stated."""
        return None if self.low is None or self.high is None else (float(self.low), float(self.high))

    def promises(self) -> dict[str, float]:
        """Return what ruling out and ruling in promise."""
        return {measure: float(share) for measure, share in ((self.out or {}) | (self.into or {})).items()}


class ArgmaxRule(Rule):
    """The likeliest class, or none where its probability is below `abstain_below`."""

    rule: Literal["argmax"]
    abstain_below: Share | None = None

    def zones(self) -> None:
        """Return None: there are as many outputs as classes, and one for abstaining."""

    def stated_cuts(self) -> tuple[float, ...]:
        """Return the least probability of a call, where one is stated."""
        return () if self.abstain_below is None else (float(self.abstain_below),)


class QuantilesRule(Rule):
    """Risk groups, cut at quantiles of the training patients' scores."""

    rule: Literal["quantiles"]
    cuts: tuple[Share, ...]

    def zones(self) -> int:
        """Return how many groups there are."""
        return len(self.cuts) + 1


class AbsoluteRiskRule(Rule):
    """Risk groups, cut at risks that are stated beforehand."""

    rule: Literal["absolute_risk"]
    horizon: Annotated[str | None, BeforeValidator(str)] = None
    cuts: tuple[Share, ...]
    cause: Annotated[str | None, BeforeValidator(str)] = None
    """of several that compete; the first where left out"""

    def zones(self) -> int:
        """Return how many groups there are."""
        return len(self.cuts) + 1

    def stated_cuts(self) -> tuple[float, ...]:
        """Return the stated risks."""
        return tuple(map(float, self.cuts))


GroupRule = QuantilesRule | AbsoluteRiskRule
AnyRule = SensitivityRule | SpecificityRule | YoudenRule | TwoCutsRule | ArgmaxRule | QuantilesRule | AbsoluteRiskRule
MEDIAN = QuantilesRule(rule="quantiles", cuts=(0.5,))
"""Risk groups where a tool states no rule for them."""


class QuestionRules(Statement):
    """A rule for some of the endpoint's questions, by name."""

    questions: dict[str, AnyRule | NoRule]
    role: str | None = None

    def roles(self) -> set[str]:
        """Return what the decisions are for, as far as it is stated."""
        return {role for role in (self.role, *(rule.role for rule in self.questions.values())) if role}


class EndpointRules(Statement):
    """The decisions of some of several endpoints, by name."""

    endpoints: dict[str, AnyRule | NoRule | QuestionRules]

    def roles(self) -> set[str]:
        """Return what the decisions are for, as far as it is stated."""
        return {role for decision in self.endpoints.values() for role in decision.roles()}

    @model_serializer
    def plain(self) -> dict[str, Any]:
        """Return the decisions by endpoint, in the form of the yaml."""
        return {name: decision.plain() for name, decision in self.endpoints.items()}


SingleDecision = AnyRule | NoRule | QuestionRules
ToolDecision = SingleDecision | EndpointRules
_ADAPTER: TypeAdapter[AnyRule] = TypeAdapter(Annotated[AnyRule, Field(discriminator="rule")])


def parse_decision(stated: object) -> ToolDecision | None:
    """Return what a tool states under `decision`.

    Args:
        stated: A mapping with a `rule`, with a rule for some `questions`, or, for several endpoints, with one of these
            by endpoint name; or None.

    Raises:
        ConfigError: a rule, key or value that does not exist.
    """
    if stated is None or isinstance(stated, EndpointRules):
        return stated
    if not isinstance(stated, Mapping) or not stated or {"rule", "role", "questions"} & set(stated):
        return _parse_single(stated)
    if not all(decision is None or isinstance(decision, Mapping) for decision in stated.values()):
        return _parse_single(stated)
    return EndpointRules(endpoints={str(name): _parse_single(single or {}) for name, single in stated.items()})


def _parse_single(stated: object) -> SingleDecision:
    if isinstance(stated, QuestionRules):
        return stated
    if not isinstance(stated, Mapping) or "questions" not in stated:
        return parse_rule(stated)
    _check_keys(stated, {"questions", "role"}, "questions")
    rules = stated["questions"]
    if not isinstance(rules, Mapping):
        raise ConfigError(f"decision: questions {rules!r}, expected a rule for each of them by name")
    parsed = {str(name): parse_rule(rule or {}, of_question=True) for name, rule in rules.items()}
    return QuestionRules.model_validate({**stated, "questions": parsed})


def parse_rule(stated: object, of_question: bool = False) -> AnyRule | NoRule:
    """Return one rule; `of_question` is true for a rule of one question among several.

    Raises:
        ConfigError: a rule, key or value that does not exist.
    """
    if isinstance(stated, NoRule | AnyRule):
        return stated
    if not isinstance(stated, Mapping):
        raise ConfigError(f"decision: {stated!r}, expected a mapping with a rule")
    name = stated.get("rule")
    if name is None and set(stated) <= {"rule", "role"}:
        return NoRule.model_validate(dict(stated))
    if name not in _RULES:
        raise ConfigError(f"decision: rule {name!r}, expected one of {', '.join(_RULES)}")
    model, check = _RULES[name]
    keys = {field.alias or key for key, field in model.model_fields.items()}
    _check_keys(stated, keys - {"positive"} if of_question else keys, name)
    check(stated)
    _check_outputs(stated.get("outputs", ()), name)
    rule = _ADAPTER.validate_python(dict(stated))
    zones = rule.zones()
    if rule.outputs and zones is not None and len(rule.outputs) != zones:
        raise ConfigError(f"decision {name}: {len(rule.outputs)} outputs, expected {zones}, one for each zone")
    return rule


def is_share(value: object) -> TypeGuard[float]:
    """Return whether a value is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _plain(value: object) -> object:
    if isinstance(value, Statement):
        return value.plain()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _check_keys(stated: Mapping[str, object], keys: set[str], name: str) -> None:
    if unknown := sorted(set(map(str, stated)) - keys):
        raise ConfigError(f"decision {name}: key {unknown[0]!r}, expected some of {', '.join(sorted(keys))}")


def _check_outputs(outputs: object, name: str) -> None:
    """Check that each output has a name of its own and a meaning."""
    if not isinstance(outputs, list | tuple):
        raise ConfigError(f"decision {name}: outputs {outputs!r}, expected a list of a name and a meaning each")
    names = list[str]()
    for output in outputs:
        given = output.plain() if isinstance(output, Output) else output
        if not isinstance(given, Mapping) or set(given) != {"name", "meaning"}:
            raise ConfigError(f"decision {name}: output {output!r}, expected a name and a meaning")
        if not all(isinstance(text, str) and text.strip() for text in given.values()):
            raise ConfigError(f"decision {name}: output {output!r}, expected a name and a meaning in words")
        names.append(given["name"])
    if repeated := [each for each in names if names.count(each) > 1]:
        raise ConfigError(f"decision {name}: output {repeated[0]!r} is there {names.count(repeated[0])} times")


def _check_at_least(stated: Mapping[str, object]) -> None:
    share = stated.get("at_least")
    if not is_share(share) or share == 0:
        raise ConfigError(f"decision {stated['rule']}: at_least {share!r}, expected a share above 0 and up to 1")


def _check_two_cuts(stated: Mapping[str, object]) -> None:
    given = {"low", "high", "out", "in"} & set(stated)
    if given == {"low", "high"}:
        low, high = stated["low"], stated["high"]
        if not (is_share(low) and is_share(high) and 0 < low < high < 1):
            raise ConfigError(f"decision two_cuts: low {low!r} and high {high!r}, expected rising shares within (0, 1)")
        return
    if given != {"out", "in"}:
        stated_keys = ", ".join(sorted(given)) or "neither"
        raise ConfigError(f"decision two_cuts: {stated_keys}, expected low and high, or out and in")
    for side, measures in (("out", OUT), ("in", IN)):
        target = stated[side]
        shares = target if isinstance(target, Mapping) else {}
        is_single = len(shares) == 1 and set(shares) <= set(measures)
        if not is_single or not all(is_share(share) and share > 0 for share in shares.values()):
            raise ConfigError(f"decision two_cuts: {side} {target!r}, expected one share of {' or '.join(measures)}")


def _check_argmax(stated: Mapping[str, object]) -> None:
    least = stated.get("abstain_below", 0)
    if not is_share(least) or least == 1:
        raise ConfigError(f"decision argmax: abstain_below {least!r}, expected a probability below 1")


def _check_groups(stated: Mapping[str, object]) -> None:
    cuts = stated.get("cuts")
    listed = list(cuts) if isinstance(cuts, list | tuple) else []
    rising = all(is_share(cut) and 0 < cut < 1 for cut in listed) and listed == sorted(set(listed))
    if not rising or len(listed) not in GROUPS:
        raise ConfigError(f"decision {stated['rule']}: cuts {cuts!r}, expected one or two rising shares within (0, 1)")


def _check_nothing(stated: Mapping[str, object]) -> None:
    """Youden's rule has no options."""


_RULES: dict[str, tuple[type[Rule], Callable[[Mapping[str, object]], None]]] = {
    "sensitivity": (SensitivityRule, _check_at_least),
    "specificity": (SpecificityRule, _check_at_least),
    "youden": (YoudenRule, _check_nothing),
    "two_cuts": (TwoCutsRule, _check_two_cuts),
    "argmax": (ArgmaxRule, _check_argmax),
    "quantiles": (QuantilesRule, _check_groups),
    "absolute_risk": (AbsoluteRiskRule, _check_groups),
}

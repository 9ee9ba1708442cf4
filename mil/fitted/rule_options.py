"""What a rule of a tool's yaml may say: checked before anybody's score is seen."""

from collections.abc import Callable, Mapping
from typing import Any

from mil.errors import ConfigError
from mil.fitted.cutoffs import IN, OUT, checked, is_share

GROUPS = {1: ("low", "high"), 2: ("low", "intermediate", "high")}
YES_NO = {"rule", "role", "positive"}
KEYS = {
    "sensitivity": YES_NO | {"at_least"},
    "specificity": YES_NO | {"at_least"},
    "youden": YES_NO,
    "two_cuts": YES_NO | {"low", "high", "out", "in"},
    "argmax": {"rule", "role", "abstain_below"},
    "quantiles": {"rule", "role", "cuts"},
    "absolute_risk": {"rule", "role", "horizon", "cuts", "cause"},
}


def check(rule: object, alone: bool = True) -> None:
    """Refuses a rule, key or value that does not exist; `alone` is false for a rule of one question among several.

    Raises:
        ConfigError: the rule is refused.
    """
    if not isinstance(rule, Mapping):
        raise ConfigError(f"decision: {rule!r}, expected a mapping with a rule")
    name = rule.get("rule")
    if name not in KEYS:
        raise ConfigError(f"decision: rule {name!r}, expected one of {', '.join(KEYS)}")
    check_keys(rule, KEYS[name] if alone else KEYS[name] - {"positive"}, name)
    _CHECKS[name](rule)


def check_keys(rule: Mapping[str, Any], keys: set[str], name: str) -> None:
    """Refuses a key that has no meaning.

    Raises:
        ConfigError: there is one.
    """
    if odd := sorted(set(map(str, rule)) - keys):
        raise ConfigError(f"decision {name}: key {odd[0]!r}, expected some of {', '.join(sorted(keys))}")


def _check_two_cuts(rule: Mapping[str, Any]) -> None:
    given = {"low", "high", "out", "in"} & set(rule)
    if given == {"low", "high"}:
        low, high = rule["low"], rule["high"]
        if not (is_share(low) and is_share(high) and 0 < low < high < 1):
            raise ConfigError(f"decision two_cuts: low {low!r} and high {high!r}, expected rising shares within (0, 1)")
        return
    if given != {"out", "in"}:
        found = ", ".join(sorted(given)) or "neither"
        raise ConfigError(f"decision two_cuts: {found}, expected low and high, or out and in")
    for side, measures in (("out", OUT), ("in", IN)):
        target = rule[side]
        one = isinstance(target, Mapping) and len(target) == 1 and set(target) <= set(measures)
        if not one or not all(is_share(share) and share > 0 for share in target.values()):
            raise ConfigError(f"decision two_cuts: {side} {target!r}, expected one share of {' or '.join(measures)}")


def _check_argmax(rule: Mapping[str, Any]) -> None:
    least = rule.get("abstain_below", 0)
    if not is_share(least) or least == 1:
        raise ConfigError(f"decision argmax: abstain_below {least!r}, expected a probability below 1")


def _check_groups(rule: Mapping[str, Any]) -> None:
    cuts = rule.get("cuts")
    given = list(cuts) if isinstance(cuts, list | tuple) else []
    rising = all(is_share(cut) and 0 < cut < 1 for cut in given) and given == sorted(set(given))
    if not rising or len(given) not in GROUPS:
        raise ConfigError(f"decision {rule['rule']}: cuts {cuts!r}, expected one or two rising shares within (0, 1)")


_CHECKS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    **dict.fromkeys(("sensitivity", "specificity", "youden"), checked),
    "two_cuts": _check_two_cuts,
    "argmax": _check_argmax,
    **dict.fromkeys(("quantiles", "absolute_risk"), _check_groups),
}

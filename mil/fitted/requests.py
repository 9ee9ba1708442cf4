"""What a tool asks to be fitted, checked before any work is done."""

from collections.abc import Iterator, Mapping
from typing import Any

from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.fitted import calibrators, conformal, decision_rules, novelty


def check(tool: Mapping[str, Any], endpoint: Endpoint) -> None:
    """Check that what a tool asks for exists.

    Raises:
        ConfigError: a rule, a method or an option that does not exist.
    """
    for _, rule, single in decision_requests(tool.get("decision"), endpoint):
        decision_rules.plans(rule, single)
    if method := tool.get("calibration"):
        calibrators.check(method, endpoint)
    if sets := tool.get("conformal"):
        conformal.options(sets)
    if (flags := tool.get("novelty")) is not None:
        novelty.options(flags)


def decision_requests(
    decision: Mapping[str, Any] | None, endpoint: Endpoint
) -> Iterator[tuple[str, Mapping[str, Any] | None, Endpoint]]:
    """Yield each single endpoint with what its decisions' names begin with, and the rule that the tool has for it.

    Raises:
        ConfigError: a rule for an endpoint that does not exist.
    """
    parts = endpoint.parts()
    if not parts:
        yield "", decision, endpoint
        return
    rules = decision or {}
    if unknown := sorted(set(rules) - set(parts)):
        raise ConfigError(f"tool.decision.{unknown[0]}: expected a rule for some of {', '.join(parts)}")
    for name, single in parts.items():
        yield f"{name} ", rules.get(name), single

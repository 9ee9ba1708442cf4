"""What a tool asks to be fitted beside the model's weights, typed and checked before any work is done."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from mil.errors import ConfigError
from mil.fitted.options import ConformalOptions, NoveltyOptions, parse_conformal, parse_novelty
from mil.fitted.rules import EndpointRules, NoRule, SingleDecision, ToolDecision, parse_decision

if TYPE_CHECKING:  # endpoints import torch, a configuration is read without it
    from mil.endpoints.endpoint import Endpoint


class Specification(BaseModel):
    """The keys of a tool that say what is fitted.

    Attributes:
        decision: Rule of the calls; with several endpoints one by the name of each.
        calibration: Method by which probabilities or risks are calibrated.
        conformal: Prediction sets or intervals.
        novelty: When a result is withheld.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Annotated[ToolDecision | None, BeforeValidator(parse_decision)] = None
    calibration: str | None = None
    conformal: Annotated[ConformalOptions | None, BeforeValidator(parse_conformal)] = None
    novelty: Annotated[NoveltyOptions | None, BeforeValidator(parse_novelty)] = None

    def decisions(self, endpoint: "Endpoint") -> "Iterator[tuple[str, SingleDecision | None, Endpoint]]":
        """Yield each single endpoint with what the names of its decisions begin with, and what the tool states for it.

        Raises:
            ConfigError: a rule for an endpoint that does not exist.
        """
        endpoints = endpoint.parts()
        if not endpoints:
            yield "", self.decision_of_single(), endpoint
            return
        rules = self.decisions_by_endpoint()
        if unknown := sorted(set(rules) - set(endpoints)):
            raise ConfigError(f"tool.decision.{unknown[0]}: expected a rule for some of {', '.join(endpoints)}")
        for name, single in endpoints.items():
            yield f"{name} ", rules.get(name), single

    def decision_of_single(self) -> SingleDecision | None:
        """Return the decision of a tool with one endpoint.

        Raises:
            ConfigError: the tool states decisions of several endpoints.
        """
        if isinstance(self.decision, EndpointRules):
            names = ", ".join(self.decision.endpoints)
            raise ConfigError(f"decision: rule None and keys {names}, expected one rule for the one endpoint")
        return self.decision

    def decisions_by_endpoint(self) -> dict[str, SingleDecision]:
        """Return the decisions of a tool with several endpoints, by name.

        Raises:
            ConfigError: the tool states one rule for all.
        """
        if isinstance(self.decision, EndpointRules):
            return self.decision.endpoints
        if self.decision is None or isinstance(self.decision, NoRule):
            return {}
        raise ConfigError("tool.decision.rule: expected a rule for each endpoint, by its name")

"""Check that what a tool asks for can be fitted for its endpoint, before any work is done."""

from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.fitted import calibrators, decision_rules
from mil.fitted.specification import Specification


def check_specification(tool: Specification, endpoint: Endpoint) -> None:
    """Check that what a tool asks for can be fitted for an endpoint.

    Raises:
        ConfigError: a question, class, horizon or method that the endpoint does not have.
    """
    for _, decision, single in tool.decisions(endpoint):
        decision_rules.plans(decision, single)
    if endpoint.parts() and (tool.calibration or tool.conformal):
        raise ConfigError(
            f"tool.{'calibration' if tool.calibration else 'conformal'}: several endpoints, expected null"
        )
    if tool.calibration is not None:
        calibrators.check(tool.calibration, endpoint)

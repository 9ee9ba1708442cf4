"""All that is fitted once a model has its weights, as a manifest keeps it: decisions, calibration, sets, novelty."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.several import Several
from mil.errors import ConfigError, PredictionsError
from mil.fitted import calibrators, conformal, decision_rules, novelty

logger = logging.getLogger(__name__)
State = dict[str, Any]
Found = TypeVar("Found")


class Shown(NamedTuple):
    """What one role's bags looked like."""

    tiles: NDArray[np.int64]
    """`(b,)`"""
    means: NDArray[np.float64]
    """of their features, `(b, d)`"""


def fit(
    tool: Mapping[str, Any], endpoint: Endpoint, train: pd.DataFrame, select: pd.DataFrame, bags: Mapping[str, Shown]
) -> State:
    """What the tool's `decision`, `calibration`, `conformal` and `novelty` ask for; null where they ask for nothing.

    What these patients cannot carry is left out, and a warning says why.

    Args:
        tool: Its yaml, in plain types. A tool of several endpoints has a `decision` by the name of each.
        endpoint: What is predicted.
        train: Targets and scores of training patients.
        select: Those of select patients.
        bags: Of `train` and, where there are some, `select`.

    Raises:
        ConfigError: something asked for does not exist.
    """
    method, sets, flags = (tool.get(key) for key in ("calibration", "conformal", "novelty"))
    if isinstance(endpoint, Several) and (method or sets):
        raise ConfigError(f"tool.{'calibration' if method else 'conformal'}: several endpoints, expected null")
    calibrator = calibration(method, endpoint, select)
    made = decisions(tool.get("decision"), endpoint, train, select, calibrator)
    return {
        "decisions": [decision.state() for decision in made],
        "calibration": None if calibrator is None else calibrator.state(),
        "conformal": _state(lambda: conformal.fit(sets, endpoint, select), "conformal") if sets else None,
        "novelty": _novelty(flags, bags).state() if flags is not None else None,
    }


def check(tool: Mapping[str, Any], endpoint: Endpoint) -> None:
    """Refuses what does not exist before any work is done.

    Raises:
        ConfigError: in a rule, a method or an option.
    """
    for _, asked, own in _parts(tool.get("decision"), endpoint):
        decision_rules.plans(asked, own)
    if method := tool.get("calibration"):
        calibrators.check(method, endpoint)
    if sets := tool.get("conformal"):
        conformal.options(sets)
    if (flags := tool.get("novelty")) is not None:
        novelty.options(flags)


def calibration(method: str | None, endpoint: Endpoint, select: pd.DataFrame) -> calibrators.Calibrator | None:
    """Fitted to select patients; none where none is asked for, or they cannot carry it, which a warning says.

    Raises:
        ConfigError: a method that does not exist for the endpoint.
    """
    return None if method is None else _tried(partial(calibrators.fit, method, endpoint, select), "calibration")


def decisions(
    asked: Mapping[str, Any] | None,
    endpoint: Endpoint,
    train: pd.DataFrame,
    select: pd.DataFrame,
    calibrator: calibrators.Calibrator | None = None,
) -> list[decision_rules.Decision]:
    """Of one endpoint, or of each of several under names of their own; a decision that nobody can carry is left out."""
    found = []
    for name, rule, own in _parts(asked, endpoint):
        known = train[own.known(train)], select[own.known(select)]
        for plan in decision_rules.plans(rule, own):
            made = _tried(partial(plan.fit, *known, calibrator), "decision")
            if made is not None:
                found.append(made.model_copy(update={"name": f"{name}{made.name}"}))
    return found


def _parts(
    asked: Mapping[str, Any] | None, endpoint: Endpoint
) -> Iterator[tuple[str, Mapping[str, Any] | None, Endpoint]]:
    if not isinstance(endpoint, Several):
        yield "", asked, endpoint
        return
    if odd := sorted(set(asked or {}) - set(endpoint.endpoints)):
        raise ConfigError(f"tool.decision.{odd[0]}: expected a rule for some of {', '.join(endpoint.endpoints)}")
    for name, one in endpoint.endpoints.items():
        yield f"{name} ", (asked or {}).get(name), one


def _state(make: Callable[[], Any], what: str) -> State | None:
    made = _tried(make, what)
    return None if made is None else made.state()


def _tried(make: Callable[[], Found], what: str) -> Found | None:
    try:
        return make()
    except PredictionsError as error:
        logger.warning("no %s: %s", what, error)
        return None


def _novelty(asked: Mapping[str, Any], bags: Mapping[str, Shown]) -> novelty.Novelty:
    train, select = bags["train"], bags.get("select")
    return novelty.fit(asked, train.tiles, train.means, None if select is None else select.means)

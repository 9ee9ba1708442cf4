"""The yes-or-no questions that a prediction answers: what cuts, calibration and intervals are about."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.errors import ConfigError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """Is this patient a positive? A binary endpoint asks once, several classes once a class, grades once a boundary."""

    name: str
    """the class, the label, or `>= grade`"""
    columns: tuple[str, ...]
    """of the predictions, whose sum is the probability of yes"""
    endpoint: Endpoint
    answer: Callable[[Tensor], Tensor]
    """from encoded targets to yes and no, `(p,)`; NaN where not known"""

    def probability(self, table: pd.DataFrame) -> Floats:
        """Of yes, `(p,)`."""
        shares = table[list(self.columns)].to_numpy(np.float64)
        return shares[:, 0] if len(self.columns) == 1 else _rounded(shares.sum(1))

    def truth(self, table: pd.DataFrame) -> Floats:
        """1 for yes, 0 for no, NaN where not known, `(p,)`."""
        return np.asarray(self.answer(self.endpoint.encode(table)).double().numpy())


def questions(endpoint: Endpoint, positive: Collection[str] | None = None) -> list[Question]:
    """What an endpoint asks; none for survival and regression.

    Args:
        endpoint: What is predicted.
        positive: Classes that are yes together: then several classes or grades make one question.

    Raises:
        ConfigError: `positive` names no class, or all.
    """
    if positive is not None:
        return [_together(endpoint, positive)]
    match endpoint:
        case Binary():
            return [Question(endpoint.positive, (f"p_{endpoint.positive}",), endpoint, torch.Tensor.double)]
        case Ordinal():
            steps = range(1, len(endpoint.classes))
            return [_among(endpoint, endpoint.classes[step:], f">= {endpoint.classes[step]}") for step in steps]
        case Multiclass():
            return [_among(endpoint, [name], name) for name in endpoint.classes]
        case Multilabel():
            names = list(endpoint.decode(torch.zeros(1, endpoint.out_dim)))
            return [
                Question(name.removeprefix("p_"), (name,), endpoint, partial(_label, at))
                for at, name in enumerate(names)
            ]
    return []


def _rounded(total: Floats) -> Floats:
    """To fourteen digits: 0.1 + 0.2 and 0.3 are one probability, and a tie that rounding breaks is broken by chance."""
    digit = 10.0 ** (np.floor(np.log10(np.maximum(total, 1e-290))) - 14)
    return np.asarray(np.round(total / digit) * digit)


def _label(at: int, target: Tensor) -> Tensor:
    return target[:, at]


def _together(endpoint: Endpoint, positive: Collection[str]) -> Question:
    if not isinstance(endpoint, Multiclass | Ordinal):
        raise ConfigError(
            f"decision: positive {', '.join(map(str, positive))}, expected an endpoint of several classes"
        )
    classes = list(endpoint.classes)
    odd = sorted(set(map(str, positive)) - set(classes))
    if odd or not positive or set(map(str, positive)) == set(classes):
        found = ", ".join(map(str, positive)) or "nothing"
        raise ConfigError(f"decision: positive {found}, expected some of the classes {', '.join(classes)}")
    chosen = [name for name in classes if name in set(map(str, positive))]
    return _among(endpoint, chosen, " or ".join(chosen))


def _among(endpoint: Multiclass | Ordinal, chosen: Collection[str], name: str) -> Question:
    places = torch.tensor([list(endpoint.classes).index(one) for one in chosen])
    return Question(name, tuple(f"p_{one}" for one in chosen), endpoint, lambda target: torch.isin(target, places))

"""The yes-or-no questions that a prediction answers: thresholds, calibration and intervals are about these."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from mil.endpoints.endpoint import Endpoint

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """A yes-or-no question about a patient.

    A binary endpoint asks one, several classes ask one per class, grades ask one per boundary.
    """

    name: str
    """the class, the label, or `>= grade`"""
    columns: tuple[str, ...]
    """columns of the predictions whose sum is the probability of yes"""
    endpoint: "Endpoint"
    answer: Callable[[Tensor], Tensor]
    """from encoded targets to 1 for yes and 0 for no, `(p,)`; NaN where unknown"""
    negative: str
    """what no is called, such as `MSS` or `< high`"""
    positive: str
    """what yes is called, such as `MSI-H` or `>= high`"""

    def probability(self, table: pd.DataFrame) -> Floats:
        """Return the predicted probability of yes, `(p,)`."""
        values = table[list(self.columns)].to_numpy(np.float64)
        return values[:, 0] if len(self.columns) == 1 else _rounded(values.sum(1))

    def truth(self, table: pd.DataFrame) -> Floats:
        """Return 1 for yes, 0 for no and NaN where unknown, `(p,)`."""
        return np.asarray(self.answer(self.endpoint.encode(table)).double().numpy())


def class_question(endpoint: "Endpoint", classes: Collection[str], name: str, negative: str, positive: str) -> Question:
    """Return the question whether a patient has one of these classes.

    Args:
        endpoint: Its target is the index of a patient's class, and each class has a column of probabilities.
        classes: The classes that count as yes.
        name: Of the question.
        negative: What no is called.
        positive: What yes is called.
    """
    indices = [endpoint.classes.index(label) for label in classes]
    columns = tuple(endpoint.class_columns[index] for index in indices)
    members = torch.tensor(indices)
    return Question(name, columns, endpoint, lambda target: torch.isin(target, members), negative, positive)


def _rounded(total: Floats) -> Floats:
    """Round to fourteen digits, so that 0.1 + 0.2 equals 0.3: otherwise rounding errors would break ties at random."""
    digit = 10.0 ** (np.floor(np.log10(np.maximum(total, 1e-290))) - 14)
    return np.asarray(np.round(total / digit) * digit)

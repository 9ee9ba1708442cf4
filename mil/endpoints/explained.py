"""The numbers that an explanation of a prediction is about, and log odds that stay finite."""

from typing import NamedTuple

import torch
from torch import Tensor

_SMALLEST, _LARGEST = 1e-15, 700.0


class Explained(NamedTuple):
    """One number that a model gives for a patient, on a scale on which effects of tiles can be added up."""

    name: str
    """class, label, grade boundary, cause or horizon; unique within an endpoint"""
    meaning: str
    """what a higher number says, such as "speaks for MSI-H\""""
    unit: str
    """such as "log odds", "log hazard", or the unit of a value"""
    turns_at: float | None = None
    """the number at which the answer changes from no to yes; None where there is no question"""


def log_odds_of_event(log_survival: Tensor) -> Tensor:
    """Return the log odds of an event from the log probability of none, finite and differentiable."""
    bounded = log_survival.clamp(-_LARGEST, -_SMALLEST)
    return torch.log(-torch.expm1(bounded)) - bounded


def log_odds(probability: Tensor) -> Tensor:
    """Return the log odds of probabilities in [0, 1], finite and differentiable."""
    return probability.clamp(_SMALLEST, 1 - _SMALLEST).logit()

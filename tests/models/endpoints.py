"""Every endpoint with targets of five bags, for the contract tests of models."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module

import torch
from torch import Tensor

import mil.endpoints
from mil.endpoints.aft import LogNormal, Weibull
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.discrete_time import DiscreteTime
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import METHODS, Ordinal
from mil.endpoints.regression import LOSSES, Regression
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox, Survival

SURVIVAL_TARGET = torch.tensor([[3.0, 1], [5, 0], [4, 1], [9, 1], [1, 0]], dtype=torch.float64)
COMPETING_TARGET = SURVIVAL_TARGET + torch.tensor([[0.0, 0], [0, 0], [0, 1], [0, 0], [0, 0]])


def fit_endpoint(endpoint: Survival, target: Tensor) -> tuple[Survival, Tensor]:
    """Fit an endpoint to a target and return both."""
    endpoint.fit(target)
    return endpoint, target


ENDPOINTS: dict[str, tuple[Endpoint, Tensor]] = {
    "binary": (Binary(), torch.tensor([0.0, 1, 1, 0, 1])),
    "multiclass": (Multiclass(classes=("a", "b", "c", "d")), torch.tensor([0, 3, 1, 2, 3])),
    "focal": (Binary(loss="focal", smoothing=0.1), torch.tensor([0.0, 1, 1, 0, 1])),
    "multilabel": (Multilabel(("a", "b")), torch.tensor([[0.0, 1], [1, torch.nan], [torch.nan, 1], [0, 0], [1, 0]])),
    **{name: (Ordinal(classes=("a", "b", "c", "d"), method=name), torch.tensor([0, 3, 1, 2, 3])) for name in METHODS},
    **{name: (Regression(loss=name), torch.tensor([0.3, -1.2, 0.0, 2.1, -0.4]).double()) for name in LOSSES},
    "cox": (Cox(), torch.tensor([[3.0, 1], [5, 0], [3, 1], [9, 1], [1, 0]], dtype=torch.float64)),
    "discrete_time": fit_endpoint(DiscreteTime(intervals=3), SURVIVAL_TARGET),
    "weibull": fit_endpoint(Weibull(), SURVIVAL_TARGET),
    "log_normal": fit_endpoint(LogNormal(), SURVIVAL_TARGET),
    "competing_risks": fit_endpoint(CompetingRisks(intervals=2, ranking=0.5), COMPETING_TARGET),
    "several": (
        Several({"marker": Binary("marker"), "risk": Cox()}),
        torch.cat([torch.tensor([[0.0], [1], [torch.nan], [0], [1]]), SURVIVAL_TARGET], 1),
    ),
}


def endpoint_classes() -> Iterator[type[Endpoint]]:
    """Yield the concrete endpoint classes of `mil/endpoints/`."""
    for module in pkgutil.iter_modules(mil.endpoints.__path__, "mil.endpoints."):
        for _, member in inspect.getmembers(import_module(module.name), inspect.isclass):
            if issubclass(member, Endpoint) and not inspect.isabstract(member) and member.__module__ == module.name:
                yield member

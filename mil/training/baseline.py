"""The baseline of every report: a linear model on the mean of a patient's tiles, or on covariates."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.features.store import FeatureStore

PENALTIES = tuple(10.0**power for power in range(-4, 3))


def mean_features(store: FeatureStore, slides: Sequence[Sequence[str]]) -> Tensor:
    """Return the mean over all tiles of each bag, `(b, d)` in double precision; every file is read once."""
    return torch.stack([_mean(store, bag) for bag in slides])


def _mean(store: FeatureStore, slides: Sequence[str]) -> Tensor:
    features = [store.read(slide).features for slide in slides]
    total = torch.stack([tiles.float().sum(0).double() for tiles in features]).sum(0)
    return total / sum(len(tiles) for tiles in features)


def linear_logits(features: Tensor, target: Tensor, train: Tensor, select: Tensor, endpoint: Endpoint) -> Tensor:
    """Return the logits `(b, c)` of all bags from a ridge-penalised linear model of features `(b, d)`.

    Features are standardised on the `train` rows and weights fitted to them by L-BFGS with the loss of the endpoint;
    the penalty is the one with the lowest loss on the `select` rows.
    """
    spread, middle = torch.std_mean(features[train], 0)
    inputs = (features - middle) / torch.where(spread > 1e-8, spread, 1.0)
    fits = [_fit(inputs[train], target[train], endpoint, penalty) for penalty in PENALTIES]
    logits = [inputs @ weight + bias for weight, bias in fits]
    losses = [float(endpoint.loss(values[select], target[select])) for values in logits]
    return logits[losses.index(min(losses))]


def _fit(inputs: Tensor, target: Tensor, endpoint: Endpoint, penalty: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(inputs.shape[1], endpoint.out_dim, dtype=inputs.dtype, requires_grad=True)
    bias = torch.zeros(endpoint.out_dim, dtype=inputs.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = endpoint.loss(inputs @ weight + bias, target) + penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method without types
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]  # likewise
    return weight.detach(), bias.detach()

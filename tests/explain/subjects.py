"""Models, endpoints and bags for the tests of explanations."""

from collections.abc import Iterator

import torch

from mil.bags import Bags
from mil.endpoints.endpoint import Endpoint
from mil.explain.explained_model import ExplainedModel
from tests.models.endpoints import ENDPOINTS
from tests.models.zoo import IN_DIM, build_model, simulated

LINEAR = (
    *("abmil", "abmil_gated", "abmil_multihead", "abmil_aem", "acmil", "additive", "clam_mb", "clam_sb", "instances"),
    *("linear", "mean", "mhim", "subspaces", "2 abmil"),
)
"""Models whose logits are weighted means of tiles."""


def subject(name: str, endpoint: Endpoint | None = None, seed: int = 0) -> ExplainedModel:
    """Return a model of the zoo with random weights, and a reference tile."""
    model = build_model(name, 1 if endpoint is None else endpoint.out_dim, seed)
    return ExplainedModel(model, endpoint, torch.full((IN_DIM,), 0.1))


def bag_of(tiles: int, seed: int = 0) -> Bags:
    """Return one bag of tiles on a grid."""
    return simulated([tiles], seed)


def endpoints() -> Iterator[tuple[str, Endpoint]]:
    """Yield every endpoint by name."""
    for name, (endpoint, _) in ENDPOINTS.items():
        yield name, endpoint

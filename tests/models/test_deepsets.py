"""Deep Sets against the paper's decomposition, tile by tile."""

import pytest
import torch

from mil.models.deepsets import DeepSets

from .zoo import IN_DIM, simulated


@pytest.mark.parametrize("by", ["mean", "sum", "max"])
def test_rho_reads_what_phi_makes_of_the_tiles(by: str) -> None:
    torch.manual_seed(0)
    model, bags = (
        DeepSets(IN_DIM, 2, by, embed_dim=5, hidden_dim=4).double().eval(),
        simulated((4, 1), 0, torch.float64),
    )
    names = ("phi.0.0.weight", "phi.0.0.bias", "phi.1.weight", "phi.1.bias")
    first, first_bias, second, second_bias = (model.get_parameter(name) for name in names)
    for bag, rows in enumerate(bags.split()):
        phi = torch.stack([second @ (first @ x + first_bias).clamp(min=0) + second_bias for x in rows])
        pooled = {"mean": phi.sum(0) / len(rows), "sum": phi.sum(0), "max": phi.max(0).values}[by]
        weight, bias = model.get_parameter("rho.0.weight"), model.get_parameter("rho.0.bias")
        hidden = (weight @ pooled + bias).clamp(min=0)
        torch.testing.assert_close(model(bags).logits[bag], model.head.weight @ hidden + model.head.bias)


def test_a_sum_counts_tiles_and_a_mean_does_not() -> None:
    one = simulated((3,), 0)
    twice = type(one)(one.features.repeat(2, 1), (6,))
    for by, same in (("mean", True), ("sum", False), ("max", True)):
        torch.manual_seed(0)
        model = DeepSets(IN_DIM, 1, by).eval()
        assert torch.allclose(model(one).logits, model(twice).logits, atol=1e-6) == same


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling by 'median', expected one of mean, sum, max"):
        DeepSets(IN_DIM, 1, "median")

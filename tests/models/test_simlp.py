"""SiMLP against its description: the mean of the features, then a perceptron."""

import pytest
import torch

from mil.models.simlp import SiMLP

from .zoo import IN_DIM, simulated


def test_the_mean_tile_is_read_by_a_perceptron() -> None:
    torch.manual_seed(0)
    model, bags = SiMLP(IN_DIM, 2, hidden_dim=5, layers=2).double().eval(), simulated((4, 1, 9), 0, torch.float64)
    for bag, rows in enumerate(bags.split()):
        hidden = rows.sum(0) / len(rows)
        for layer in model.hidden:
            linear = layer.get_submodule("0")
            hidden = (linear.get_parameter("weight") @ hidden + linear.get_parameter("bias")).clamp(min=0)
        torch.testing.assert_close(model(bags).logits[bag], model.head.weight @ hidden + model.head.bias)


def test_without_hidden_layers_it_is_linear() -> None:
    model, bags = SiMLP(IN_DIM, 2, layers=0).eval(), simulated((4, 1))
    torch.testing.assert_close(model(bags).logits, model.head(bags.mean(bags.features)))
    assert [name for name, _ in model.named_parameters()] == ["head.weight", "head.bias"]
    with pytest.raises(ValueError, match="-1 hidden layers, expected zero or more"):
        SiMLP(IN_DIM, 1, layers=-1)

"""OTSurv's plan against the authors' code, and its gradient against all iterations."""

import math

import pytest
import torch
from torch import Tensor

from mil.bags import Bags
from mil.models.otsurv import OTSurv, transport

from .reference import copy_parameters, golden
from .zoo import IN_DIM, simulated


@pytest.mark.parametrize("steps", [0, 100, 1000])
def test_plan_matches_the_authors_code(steps: int) -> None:
    """Theirs has 20 batches an epoch and rises over ten epochs; it stops 4e-6 before convergence in the first one."""
    arrays, _ = golden("otsurv")
    model = OTSurv(6, 1, prototypes=4, embed_dim=6).double().train()
    copy_parameters(model, prototypes=arrays["prototypes"])
    model.begin_epoch(steps // 20)
    torch.testing.assert_close(
        model._flow(arrays["tiles"]), arrays[f"flow.{steps}"], rtol=5e-6 if steps == 0 else 1e-6, atol=1e-8
    )


def test_logits_are_a_weighted_sum_of_what_each_prototype_receives() -> None:
    model, bags = OTSurv(IN_DIM, 2, 3, 8).double().eval(), simulated((6, 1), 0, torch.float64)
    output = model(bags)
    tiles = bags.split(model.embed(bags.features))
    for bag, flow in enumerate(bags.split(output.extra["flow"])):
        received = flow.t() @ tiles[bag]
        expected = model.head(model.merge.weight[0] @ received + model.merge.bias)
        torch.testing.assert_close(output.logits[bag], expected)
        torch.testing.assert_close(flow.sum(), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_transported_share_rises_in_training_and_is_all_in_evaluation() -> None:
    model = OTSurv(IN_DIM, 1).train()
    shares = []
    for epoch in range(12):
        model.begin_epoch(epoch)
        shares.append(model.mass)
    assert shares[0] == pytest.approx(math.exp(-5) + 0.1)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    model.begin_epoch(0)
    assert model.eval().mass == 1


@pytest.mark.parametrize(("mass", "entropy"), [(0.3, 0.1), (1.0, 0.1), (0.3, 0.02), (0.5, 0.015)])
def test_plan_and_gradient_are_those_of_all_iterations(mass: float, entropy: float) -> None:
    """Small entropies are where Newton's steps fail, and scaling goes on."""
    torch.manual_seed(0)
    cost, pull = torch.rand(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    power = 1 / (1 + entropy)

    def unrolled(cost: Tensor) -> Tensor:
        kernel = (-torch.nn.functional.pad(cost, (0, 1)) / entropy).exp()
        aim = torch.tensor([mass / 3] * 3 + [1 - mass], dtype=torch.float64)
        powers = torch.tensor([power] * 3 + [1], dtype=torch.float64)
        right = torch.full((4,), 0.25, dtype=torch.float64)
        for _ in range(4000):
            right = (aim / (kernel.t() @ (1 / 7 / (kernel @ right)))) ** powers
        return ((1 / 7 / (kernel @ right)).unsqueeze(1) * kernel * right)[:, :-1]

    plans, gradients = [], []
    for plan in (lambda given: transport(given, mass, entropy, power), unrolled):
        given = cost.clone().requires_grad_()
        plans.append(plan(given))
        gradients.append(torch.autograd.grad((plans[-1] * pull).sum(), given)[0])
    torch.testing.assert_close(plans[0], plans[1], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-9)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="1 prototypes, ramp 10"):
        OTSurv(IN_DIM, 1, prototypes=1)


def test_one_tile_goes_to_the_prototypes_as_several_equal_tiles_do() -> None:
    model = OTSurv(IN_DIM, 1, 3, 8).double().eval()
    one = simulated((1,), 0, torch.float64)
    torch.testing.assert_close(model(Bags(one.features.expand(4, -1), (4,))).logits, model(one).logits)

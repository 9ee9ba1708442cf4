"""Smooth attention against torchmil, and the operator against the linear system that it solves."""

import pytest
import torch
import torchmil.models
import torchmil.nn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mil.bags import Bags
from mil.layers.neighbours import Places
from mil.models.smooth import Smooth, SmoothABMIL, touching

from .reference import copy_linear, copy_parameters
from .zoo import simulated

WIDTH = 12


def normalised_adjacency(bags: Bags) -> Tensor:
    """Return D^-1/2 A D^-1/2 of adjacent tiles as a dense matrix; every tile has a neighbour."""
    assert bags.coords is not None
    steps = bags.coords.double() / 512
    near = (steps.unsqueeze(0) - steps.unsqueeze(1)).abs().amax(2) < 1.5
    near &= bags.bag.unsqueeze(0) == bags.bag.unsqueeze(1)
    near &= ~torch.eye(len(steps), dtype=torch.bool)
    degree = near.sum(1).double()
    return near / (degree.unsqueeze(0) * degree.unsqueeze(1)).sqrt()


def grid(*sizes: int) -> Bags:
    return simulated(sizes, dtype=torch.float64)


def test_graph_is_the_normalised_adjacency() -> None:
    bags = grid(30, 7)
    torch.testing.assert_close(touching(Places.of(bags)).to_dense(), normalised_adjacency(bags))


def test_isolated_tile_keeps_its_value() -> None:
    bags = grid(1, 12)
    graph = touching(Places.of(bags))
    assert graph.to_dense()[0, 0] == 1
    values = torch.randn(13, 2, dtype=torch.float64)
    smoothed = Smooth(0.7, True, 10)(values, graph)
    torch.testing.assert_close(smoothed[0], values[0])
    assert not torch.allclose(smoothed[1:], values[1:])


@settings(deadline=None, max_examples=10)
@given(st.floats(0.05, 0.9), st.integers(2, 40), st.integers(0, 99))
def test_iteration_converges_to_the_solution_of_the_equation(alpha: float, tiles: int, seed: int) -> None:
    bags, values = (
        grid(tiles),
        torch.randn(tiles, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)),
    )
    graph = touching(Places.of(bags))
    laplacian = torch.eye(tiles, dtype=torch.float64) - normalised_adjacency(bags)
    gamma = alpha / (1 - alpha)
    exact = torch.linalg.solve(torch.eye(tiles, dtype=torch.float64) + gamma * laplacian, values)
    torch.testing.assert_close(Smooth(alpha, False, 400)(values, graph), exact, rtol=1e-4, atol=1e-5)
    energy = [torch.trace(signal.T @ laplacian @ signal) for signal in (values, exact)]
    assert energy[1] <= energy[0]


def torchmil_smooth(alpha: float) -> torchmil.nn.Sm:
    """Return torchmil's operator, whose fixed alpha is one minus ours."""
    return torchmil.nn.Sm(alpha=1 - alpha, num_steps=10, mode="approx")


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_operator_matches_torchmil(alpha: float) -> None:
    bags, values = grid(25), torch.randn(25, 3, dtype=torch.float64)
    expected = torchmil_smooth(alpha)(values.unsqueeze(0), normalised_adjacency(bags).unsqueeze(0))[0]
    torch.testing.assert_close(Smooth(alpha, False, 10)(values, touching(Places.of(bags))), expected)


@pytest.mark.parametrize("where", ["early", "mid", "late"])
@pytest.mark.parametrize("spectral", [False, True])
def test_logits_and_attention_match_torchmil(where: str, spectral: bool) -> None:
    torch.manual_seed(0)
    model = SmoothABMIL(WIDTH, 1, embed_dim=9, attention_dim=5, where=where, spectral=spectral)
    theirs = torchmil.models.SmABMIL(
        (WIDTH,), att_dim=5, sm_where=where, spectral_norm=spectral, sm_steps=10, feat_ext=model.embed
    )
    model, theirs = model.double().eval(), theirs.double().eval()  # both have alpha = 0.5
    for ours, reference in ((model.inner, theirs.pool.proj1), (model.outer, theirs.pool.proj2)):
        reference.load_state_dict(ours.state_dict())
    copy_linear(theirs.last_layer, dict(model.state_dict()), "head")
    bags = grid(37)
    logit, scores = theirs(bags.features.unsqueeze(0), normalised_adjacency(bags).unsqueeze(0), return_att=True)
    output = model(bags)
    torch.testing.assert_close(output.logits[0], logit, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.attention, scores[0].softmax(0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("where", ["early", "mid", "late"])
def test_gradients_are_finite_in_mixed_precision(where: str) -> None:
    torch.manual_seed(0)
    model, bags = SmoothABMIL(WIDTH, 1, embed_dim=9, attention_dim=5, where=where).train(), simulated((20, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(bags.cast(torch.bfloat16)).logits.float().square().sum()
    torch.autograd.backward(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_fixed_alpha_is_not_a_parameter() -> None:
    model = SmoothABMIL(WIDTH, 1, learn_alpha=False, alpha=0.25)
    assert "smooth.logit" not in dict(model.named_parameters())
    assert torch.sigmoid(model.state_dict()["smooth.logit"]).item() == pytest.approx(0.25)


def test_larger_alpha_gives_more_even_attention() -> None:
    bags, spread = grid(30), []
    for alpha in (0.01, 0.5, 0.95):
        torch.manual_seed(0)
        model = SmoothABMIL(WIDTH, 1, embed_dim=9, alpha=alpha).double().eval()
        copy_parameters(model.outer, weight=20 * model.outer.weight)
        spread.append(model(bags).attention.std().item())
    assert spread == sorted(spread, reverse=True)


@pytest.mark.parametrize("alpha", [0, 1, -0.5])
def test_alpha_outside_zero_to_one_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha is .*, expected a number between 0 and 1"):
        SmoothABMIL(3, 1, alpha=alpha)


def test_unknown_place_of_the_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="where is 'last', expected one of early, mid, late"):
        SmoothABMIL(3, 1, where="last")

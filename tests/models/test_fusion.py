"""Fusion of clinical covariates with any model: the model is preserved, and every loss uses the covariates."""

from dataclasses import replace

import pytest
import torch

from mil.bags import Bags
from mil.models.fusion import FUSIONS, Fused
from mil.models.mil_model import MILModel
from mil.study import build

from .endpoints import ENDPOINTS
from .zoo import IN_DIM, NAMES, build_model, composed, simulated

SIZES = (5, 1, 30, 8, 2)
WIDTH = 3
every_model = pytest.mark.parametrize("name", NAMES)
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)


def bags_with_covariates(dtype: torch.dtype = torch.float32) -> Bags:
    covariates = torch.randn(len(SIZES), WIDTH, generator=torch.Generator().manual_seed(1))
    return replace(simulated(SIZES, dtype=dtype), covariates=covariates)


def fused(name: str, fusion: str, out_dim: int = 1) -> Fused:
    inner = build_model(name, out_dim)
    width = inner(simulated((2,))).embedding.shape[1]
    torch.manual_seed(1)
    return Fused(inner, WIDTH, out_dim, fusion, width).eval()


@every_model
@every_fusion
def test_a_training_step_changes_all_fusion_parameters(name: str, fusion: str) -> None:
    model = fused(name, fusion).double().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    judge, target = ENDPOINTS["binary"]
    loss = model.loss(model(bags_with_covariates(torch.float64)), target, judge)
    torch.autograd.backward(loss)
    optimizer.step()
    assert loss.isfinite()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    added = [key for key in before if not key.startswith("inner.")]
    assert added
    assert all(not torch.equal(model.state_dict()[key], before[key]) for key in added)
    assert any(not torch.equal(model.state_dict()[key], before[key]) for key in before if key.startswith("inner."))


@every_model
def test_untrained_late_fusion_equals_the_inner_model(name: str) -> None:
    model, (judge, target) = fused(name, "late"), ENDPOINTS["binary"]
    alone, output = model.inner(bags_with_covariates()), model(bags_with_covariates())
    assert torch.equal(output.logits, alone.logits)
    assert torch.equal(output.embedding, alone.embedding)
    assert (output.attention is None) == (alone.attention is None)
    assert output.attention is None or torch.equal(output.attention, alone.attention)
    assert torch.equal(model.loss(output, target, judge), model.inner.loss(alone, target, judge))


def test_late_fusion_is_a_linear_head_on_embedding_and_covariates() -> None:
    model = fused("abmil", "late", 2)
    torch.nn.init.normal_(model.shift.weight)
    head = model.inner.get_submodule("head")
    assert isinstance(head, torch.nn.Linear)
    output, covariates_of_bags = model(bags_with_covariates()), bags_with_covariates().covariates
    assert covariates_of_bags is not None
    joined = torch.cat([output.embedding, covariates_of_bags], 1)
    weight = torch.cat([head.weight, model.shift.weight], 1)
    torch.testing.assert_close(output.logits, torch.nn.functional.linear(joined, weight, head.bias))


def test_open_gate_adds_a_linear_layer_of_the_embedding() -> None:
    model = fused("abmil", "gated")
    assert model.gate is not None
    assert model.head is not None
    torch.nn.init.zeros_(model.gate.weight)
    torch.nn.init.zeros_(model.gate.bias)
    output = model(bags_with_covariates())
    torch.testing.assert_close(output.logits, output.extra["inner"] + model.head(output.embedding))


@every_model
@pytest.mark.parametrize("endpoint", ["binary", "cox"])
def test_a_constant_shift_changes_every_loss_but_cox(name: str, endpoint: str) -> None:
    """A shift shared by all bags acts as a bias, to which Cox is invariant."""
    model, (judge, target) = fused(name, "late"), ENDPOINTS[endpoint]
    torch.nn.init.ones_(model.shift.weight)
    constant = replace(bags_with_covariates(), covariates=torch.ones(len(SIZES), WIDTH))
    try:
        loss = model.loss(model(constant), target, judge)
    except ValueError:
        pytest.skip("the model refuses the endpoint")
    alone = model.inner.loss(model.inner(constant), target, judge)
    if endpoint == "cox":
        torch.testing.assert_close(loss, alone)
    else:
        assert not torch.isclose(loss, alone)


def test_fusion_is_built_with_the_embedding_width_of_the_model() -> None:
    for name in NAMES:
        inputs = {"numeric": ["age"], "categorical": {"sex": ["F", "M"]}, "fusion": "gated"}
        settings = composed(name).replaced({"tool.covariates": inputs})
        endpoint = build.endpoint(settings)
        with torch.device("meta"):
            network = build.network(settings, IN_DIM, endpoint)
        assert isinstance(network, Fused)
        assert network.shift.weight.is_meta
        assert network.embed_dim == build_model(name)(simulated((2,))).embedding.shape[1]


def test_missing_covariates_and_unknown_fusions_are_refused() -> None:
    with pytest.raises(ValueError, match="reads clinical covariates, the bags have none"):
        fused("mean", "late")(simulated(SIZES))
    inner: MILModel = build_model("mean")
    with pytest.raises(ValueError, match="expected one of late, gated"):
        Fused(inner, WIDTH, 1, "early")
    with pytest.raises(ValueError, match="expected embed_dim"):
        Fused(inner, WIDTH, 1, "gated")

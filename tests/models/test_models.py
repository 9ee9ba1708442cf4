"""The contract of every model of the zoo: a yaml in `conf/model/` is tested by existing."""

from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mil.bags import Bags
from mil.endpoints.base import Endpoint
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.survival import Cox
from mil.layers.attention import AttentionScore
from mil.models.base import Output

from .zoo import IN_DIM, NAMES, built, simulated

SIZES = (5, 1, 30, 8, 2)
every_model = pytest.mark.parametrize("name", NAMES)
every_width = pytest.mark.parametrize("out_dim", [1, 4])
ENDPOINTS: dict[str, tuple[Endpoint, Tensor]] = {
    "binary": (Binary(), torch.tensor([0.0, 1, 1, 0, 1])),
    "multiclass": (Multiclass(classes=("a", "b", "c", "d")), torch.tensor([0, 3, 1, 2, 3])),
    "cox": (Cox(), torch.tensor([[3.0, 1], [5, 0], [3, 1], [9, 1], [1, 0]], dtype=torch.float64)),
}
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)


def rows(output: Output, bags: Bags, bag: int) -> list[Tensor]:
    """All that a model says of one bag."""
    tiles = [] if output.attention is None else [bags.split(output.attention)[bag]]
    return [output.logits[bag], output.embedding[bag], *tiles]


def permuted(bags: Bags, seed: int) -> tuple[Bags, Tensor]:
    """Each bag's tiles in another order, and where each tile was."""
    torch.manual_seed(seed)
    parts = [start + torch.randperm(size) for start, size in zip(bags.offsets.tolist(), bags.sizes, strict=False)]
    order = torch.cat(parts)
    assert bags.coords is not None
    return Bags(bags.features[order], bags.sizes, bags.coords[order]), order


@every_model
@every_width
def test_shapes_are_those_of_the_contract(name: str, out_dim: int) -> None:
    output = built(name, out_dim)(simulated(SIZES))
    assert output.logits.shape == (len(SIZES), out_dim)
    assert output.embedding.dim() == 2
    assert len(output.embedding) == len(SIZES)
    assert output.attention is None or output.attention.shape == (sum(SIZES),)


@every_model
@every_width
def test_a_bag_alone_is_read_as_in_a_batch(name: str, out_dim: int) -> None:
    model, bags = built(name, out_dim).double(), simulated(SIZES, dtype=torch.float64)
    together = model(bags)
    for bag, alone in enumerate(bags):
        torch.testing.assert_close(rows(model(alone), alone, 0), rows(together, bags, bag), rtol=1e-10, atol=1e-12)


@every_model
@every_width
def test_the_order_of_tiles_does_not_matter(name: str, out_dim: int) -> None:
    model, bags = built(name, out_dim).double(), simulated(SIZES, dtype=torch.float64)
    if model.order_matters:
        pytest.skip(f"{type(model).__name__}: the paper's method depends on the order of tiles")
    shuffled, order = permuted(bags, seed=1)
    expected, found = model(bags), model(shuffled)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-10, atol=1e-12)
    if expected.attention is not None:
        torch.testing.assert_close(found.attention, expected.attention[order], rtol=1e-10, atol=1e-12)


@every_model
def test_attention_is_there_where_it_is_computed_and_sums_to_one(name: str) -> None:
    model, bags = built(name), simulated(SIZES)
    with mock.patch.object(Bags, "softmax", autospec=True, side_effect=Bags.softmax) as softmax:
        attention = model(bags).attention
    has = softmax.called or any(isinstance(part, AttentionScore) for part in model.modules())
    assert (attention is not None) == has
    if attention is not None:
        assert (attention >= 0).all()
        totals = torch.stack([shares.double().sum() for shares in bags.split(attention)])
        torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-6)


@every_model
@every_width
def test_a_bag_of_one_tile_is_read(name: str, out_dim: int) -> None:
    output = built(name, out_dim)(simulated((1,)))
    assert output.logits.isfinite().all()
    assert output.attention is None or output.attention.tolist() == [1]


@every_model
def test_a_bag_of_twenty_thousand_tiles_is_read(name: str) -> None:
    with torch.inference_mode():
        output = built(name)(simulated((20_000,)))
    assert output.logits.isfinite().all()
    assert output.attention is None or output.attention.double().sum().item() == pytest.approx(1, abs=1e-6)


@every_model
@pytest.mark.parametrize("endpoint", ["binary", "multiclass"])
def test_a_gradient_reaches_every_parameter(name: str, endpoint: str) -> None:
    judge, target = ENDPOINTS[endpoint]
    model = built(name, judge.out_dim).double().train()
    for seed in range(3):
        bags = simulated(SIZES, seed, torch.float64)
        torch.autograd.backward(model.loss(model(bags), target, judge))
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 1e-12, parameter_name  # more than rounding leaves of a gradient of zero


@every_model
@every_width
def test_bfloat16_is_near_float32(name: str, out_dim: int) -> None:
    """Each value is rounded by up to 2^-9; inputs, weights and outputs of three layers make a few times that."""
    model, bags = built(name, out_dim), simulated((20,) * 16)
    exact = model(bags).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(bags.cast(torch.bfloat16)).logits
    assert ((logits.float() - exact).norm() / exact.norm()).item() < 8 * 2**-9


@every_model
@every_width
def test_weights_survive_a_file_to_the_bit(name: str, out_dim: int, tmp_path: Path) -> None:
    model, other, bags = built(name, out_dim, seed=0), built(name, out_dim, seed=1), simulated(SIZES)
    assert not torch.equal(other(bags).logits, model(bags).logits)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(other(bags).logits, model(bags).logits)


@every_model
def test_a_neighbour_full_of_nan_changes_no_other_bag(name: str) -> None:
    model, bags, spoilt = built(name), simulated(SIZES), simulated(SIZES)
    spoilt.features[6:36] = torch.nan  # the third bag
    expected, found = model(bags), model(spoilt)
    for bag in (0, 1, 3, 4):
        torch.testing.assert_close(rows(found, bags, bag), rows(expected, bags, bag), rtol=1e-6, atol=1e-7)
    assert found.logits[2].isnan().all()


@every_model
@every_endpoint
def test_every_model_takes_a_step_with_every_endpoint(name: str, endpoint: str) -> None:
    judge, target = ENDPOINTS[endpoint]
    model, bags = built(name, judge.out_dim).train(), simulated(SIZES)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = model.loss(model(bags), target, judge)
    torch.autograd.backward(loss)
    optimizer.step()
    assert loss.isfinite()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_model
@every_endpoint
def test_unless_a_model_says_otherwise_its_loss_is_the_endpoints(name: str, endpoint: str) -> None:
    judge, target = ENDPOINTS[endpoint]
    model = built(name, judge.out_dim)
    if "loss" in vars(type(model)):
        pytest.skip(f"{type(model).__name__} has a loss of its own")
    output = model(simulated(SIZES))
    assert torch.equal(model.loss(output, target, judge), judge.loss(output.logits, target))


@every_model
def test_features_of_another_width_are_no_input(name: str) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        built(name)(Bags(torch.zeros(3, IN_DIM + 1), (3,), torch.zeros(3, 2)))

"""The contract of every model of the zoo: a yaml in `conf/model/` is tested by existing."""

import inspect
import re
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mil.bags import Bags
from mil.layers.attention import AttentionScore
from mil.models.mil_model import MILModel, Output

from .endpoints import ENDPOINTS, classes
from .zoo import IN_DIM, NAMES, built, permuted, simulated

SIZES = (5, 1, 30, 8, 2)
LARGER = (5, 1, 300, 8, 2)
"""Where a method has to have parts with several tiles each, such as the regions of RRT."""
WITHOUT_ATTENTION = {"mean", "max", "lse", "chowder", "chowder_wide"}
"""Their methods weigh no tiles."""
SLOW_TO_READ = {"transformer", "transformer_alibi"}
"""Their time grows with the square of the tiles: half a minute and more for 20,000."""
every_model = pytest.mark.parametrize("name", NAMES)
every_width = pytest.mark.parametrize("out_dim", [1, 4])
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)


def rows(output: Output, bags: Bags, bag: int) -> list[Tensor]:
    """All that a model says of one bag."""
    tiles = [] if output.attention is None else [bags.split(output.attention)[bag]]
    return [output.logits[bag], output.embedding[bag], *tiles]


def same(output: Output, expected: Output, order: Tensor | None = None) -> None:
    """Asserts that two outputs say the same, the first of tiles in another order."""
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=1e-10, atol=1e-12)
    if expected.attention is not None:
        shares = expected.attention if order is None else expected.attention[order]
        torch.testing.assert_close(output.attention, shares, rtol=1e-10, atol=1e-12)


def loss_or_skip(model: MILModel, endpoint: str, bags: Bags) -> Tensor:
    """The training loss; skips where the model refuses the endpoint, in one line that says why."""
    judge, target = ENDPOINTS[endpoint]
    output = model(bags)
    try:
        return model.loss(output, target, judge)
    except ValueError as refusal:
        message = str(refusal)
    assert len(message.split()) > 3
    assert "\n" not in message
    assert judge.membership(target) is None, "classes are all that a model may ask for"
    pytest.skip(message)


@every_model
def test_every_model_says_what_it_is(name: str) -> None:
    kind = type(built(name))
    module = inspect.getdoc(inspect.getmodule(kind)) or ""
    text = module + (inspect.getdoc(kind) or "")
    assert (paper := re.fullmatch(r"(.+) (\d{4})", kind.paper)), kind.paper
    assert paper[1] in text
    assert paper[2] in text
    assert re.match(r"n\b", kind.cost), kind.cost
    assert "order" in text or not kind.order_matters, "the reason"


def test_every_endpoint_is_tried() -> None:
    assert {type(judge) for judge, _ in ENDPOINTS.values()} == set(classes())
    for judge, target in ENDPOINTS.values():
        assert len(target) == len(SIZES)
        membership = judge.membership(target)
        assert membership is None or membership.shape == (len(SIZES), judge.out_dim)


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
    model, bags = built(name, out_dim).double(), simulated(SIZES, dtype=torch.float64, slides=2)
    together = model(bags)
    for bag, alone in enumerate(bags):
        torch.testing.assert_close(rows(model(alone), alone, 0), rows(together, bags, bag), rtol=1e-10, atol=1e-12)


@every_model
@every_width
@pytest.mark.parametrize("slides", [1, 2])
def test_the_order_of_tiles_does_not_matter(name: str, out_dim: int, slides: int) -> None:
    model, bags = built(name, out_dim).double(), simulated(LARGER, dtype=torch.float64, slides=slides)
    shuffled, order = permuted(bags, seed=1)
    if model.order_matters:
        assert not torch.allclose(model(shuffled).logits, model(bags).logits), "it says that order matters"
    else:
        same(model(shuffled), model(bags), order)


@every_model
def test_places_on_two_slides_have_no_distance(name: str) -> None:
    model, near = built(name).double(), simulated(SIZES, dtype=torch.float64, slides=2)
    assert near.coords is not None
    assert near.slide is not None
    far = replace(near, coords=near.coords + 2**20 * near.slide.unsqueeze(1))  # whole grids and regions of any power
    same(model(far), model(near))


@every_model
def test_a_model_that_needs_places_says_so_and_others_read_bags_without(name: str) -> None:
    model, bags = built(name), replace(simulated(SIZES), coords=None)
    if not model.needs_coords:
        assert model(bags).logits.isfinite().all()
        return
    with pytest.raises(ValueError, match="coordinates") as refusal:
        model(bags)
    assert "\n" not in str(refusal.value)


@every_model
def test_attention_is_there_where_the_method_has_it_and_sums_to_one(name: str) -> None:
    model, bags = built(name), simulated(SIZES)
    with mock.patch.object(Bags, "softmax", autospec=True, side_effect=Bags.softmax) as softmax:
        attention = model(bags).attention
    assert (attention is None) == (name in WITHOUT_ATTENTION)
    if attention is None:
        assert not softmax.called
        assert not any(isinstance(part, AttentionScore) for part in model.modules())
        return
    assert (attention >= 0).all()
    totals = torch.stack([shares.double().sum() for shares in bags.split(attention)])
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-6)


@every_model
@every_width
def test_a_bag_of_one_tile_is_read(name: str, out_dim: int) -> None:
    output = built(name, out_dim)(simulated((1,)))
    assert output.logits.isfinite().all()
    assert output.attention is None or output.attention.tolist() == pytest.approx([1], abs=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_TO_READ else []) for name in NAMES]
)
def test_a_bag_of_twenty_thousand_tiles_is_read(name: str) -> None:
    with torch.inference_mode():
        output = built(name)(simulated((20_000,)))
    assert output.logits.isfinite().all()
    assert output.attention is None or output.attention.double().sum().item() == pytest.approx(1, abs=1e-6)


def sees_no_shift(endpoint: str) -> bool:
    """Whether a constant added to every bag's one logit changes nothing, as with Cox: a bias then has no gradient."""
    judge, target = ENDPOINTS[endpoint]
    logits = torch.linspace(-1, 1, len(SIZES), dtype=torch.float64).unsqueeze(1).expand(-1, judge.out_dim)
    return judge.out_dim == 1 and torch.allclose(judge.loss(logits + 1, target), judge.loss(logits, target))


def unreached(model: MILModel, endpoint: str) -> list[str]:
    """Parameters with no more gradient than rounding leaves of one of zero, but biases that change no loss."""
    blind = sees_no_shift(endpoint)
    return [
        name
        for name, parameter in model.named_parameters()
        if (parameter.grad is None or parameter.grad.abs().max() <= 1e-12) and not (blind and name.endswith("bias"))
    ]


@every_model
@pytest.mark.parametrize("endpoint", ["binary", "multiclass", "multilabel", "cox"])
def test_a_gradient_reaches_every_parameter(name: str, endpoint: str) -> None:
    """Of three batches at most: what a method keeps of the best tiles or hides by chance need not be in the first."""
    model = built(name, ENDPOINTS[endpoint][0].out_dim).double().train()
    for seed in range(3):
        torch.autograd.backward(loss_or_skip(model, endpoint, simulated(LARGER, seed, torch.float64)))
        if not unreached(model, endpoint):
            break
    assert unreached(model, endpoint) == []
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@every_model
def test_a_gradient_of_bags_of_one_tile_is_finite(name: str) -> None:
    model = built(name).train()
    torch.autograd.backward(loss_or_skip(model, "binary", simulated((1,) * len(SIZES))))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


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
def test_a_model_that_is_no_longer_trained_says_the_same_twice(name: str) -> None:
    model, bags = built(name), simulated(SIZES)
    first, second = model(bags), model(bags)
    assert torch.equal(first.logits, second.logits)
    assert first.attention is None or torch.equal(first.attention, second.attention)


@every_model
@every_width
def test_weights_survive_a_file_to_the_bit(name: str, out_dim: int, tmp_path: Path) -> None:
    model, loaded, bags = built(name, out_dim, seed=0), built(name, out_dim, seed=1), simulated(SIZES)
    assert not torch.equal(loaded(bags).logits, model(bags).logits)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(loaded(bags).logits, model(bags).logits)


@every_model
def test_a_neighbour_full_of_nan_changes_no_other_bag(name: str) -> None:
    model, bags, spoilt = built(name), simulated(SIZES), simulated(SIZES)
    spoilt.features[6:36] = torch.nan  # the third bag
    expected, output = model(bags), model(spoilt)
    for bag in (0, 1, 3, 4):
        torch.testing.assert_close(rows(output, bags, bag), rows(expected, bags, bag), rtol=1e-6, atol=1e-7)
    assert output.logits[2].isnan().all()


@every_model
@every_endpoint
def test_every_model_takes_a_step_with_every_endpoint_or_says_why_not(name: str, endpoint: str) -> None:
    model = built(name, ENDPOINTS[endpoint][0].out_dim).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = loss_or_skip(model, endpoint, simulated(SIZES))
    assert loss.shape == ()
    torch.autograd.backward(loss)
    optimizer.step()
    assert loss.isfinite()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_model
def test_unless_a_model_says_otherwise_its_loss_is_the_endpoints(name: str) -> None:
    model = built(name)
    if type(model).loss is not MILModel.loss:
        pytest.skip(f"{type(model).__name__} has a loss of its own")
    for judge, target in ENDPOINTS.values():
        logits = torch.randn(len(SIZES), judge.out_dim, generator=torch.Generator().manual_seed(0))
        assert torch.equal(model.loss(Output(logits, logits), target, judge), judge.loss(logits, target))


@every_model
def test_features_of_another_width_are_no_input(name: str) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        built(name)(Bags(torch.zeros(3, IN_DIM + 1), (3,), torch.zeros(3, 2)))

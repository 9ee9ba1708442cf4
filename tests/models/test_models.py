"""The contract of every model of the zoo; each yaml in `conf/model/` is tested without further code."""

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

from .endpoints import ENDPOINTS, endpoint_classes
from .zoo import ENSEMBLES, IN_DIM, NAMES, build_model, permuted, simulated

SIZES = (5, 1, 30, 8, 2)
LARGER = (5, 1, 300, 8, 2)
"""For methods that need several tiles in each part, such as the regions of RRT."""
WITHOUT_ATTENTION = {"mean", "max", "lse", "chowder", "chowder_wide", "deepsets", "linear", "mlp", "panther", "simlp"}
"""Methods that do not weight tiles."""
QUADRATIC = {"abmilx", "mambamil", "transformer", "transformer_alibi", "transmil", "wikg"}
"""Models that take seconds to minutes for 20,000 tiles, which are read by hand (`-m slow`), fewer each time."""
every_model = pytest.mark.parametrize("name", [*NAMES, *ENSEMBLES])
every_width = pytest.mark.parametrize("out_dim", [1, 4])
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)


def outputs_of_bag(output: Output, bags: Bags, bag: int) -> list[Tensor]:
    """Return all outputs that belong to one bag."""
    tiles = [] if output.attention is None else [bags.split(output.attention)[bag]]
    return [output.logits[bag], output.embedding[bag], *tiles]


def assert_same_output(output: Output, expected: Output, order: Tensor | None = None) -> None:
    """Assert that two outputs are equal; `order` is the order of tiles of the first."""
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=1e-10, atol=1e-12)
    if expected.attention is not None:
        shares = expected.attention if order is None else expected.attention[order]
        torch.testing.assert_close(output.attention, shares, rtol=1e-10, atol=1e-12)


def loss_or_skip(model: MILModel, endpoint: str, bags: Bags) -> Tensor:
    """Return the training loss, or skip if the model refuses the endpoint with a one-line reason."""
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


@pytest.mark.parametrize("name", NAMES)
def test_every_model_declares_paper_cost_and_order(name: str) -> None:
    kind = type(build_model(name))
    module = inspect.getdoc(inspect.getmodule(kind)) or ""
    text = module + (inspect.getdoc(kind) or "")
    assert (paper := re.fullmatch(r"(.+) (\d{4})", kind.paper)), kind.paper
    assert paper[1] in text
    assert paper[2] in text
    assert re.match(r"n\b", kind.cost), kind.cost
    assert "order" in text or not kind.order_matters, "the reason"


def test_every_endpoint_class_is_covered() -> None:
    assert {type(judge) for judge, _ in ENDPOINTS.values()} == set(endpoint_classes())
    for judge, target in ENDPOINTS.values():
        assert len(target) == len(SIZES)
        membership = judge.membership(target)
        assert membership is None or membership.shape == (len(SIZES), judge.out_dim)


@every_model
@every_width
def test_output_shapes(name: str, out_dim: int) -> None:
    output = build_model(name, out_dim)(simulated(SIZES))
    assert output.logits.shape == (len(SIZES), out_dim)
    assert output.embedding.dim() == 2
    assert len(output.embedding) == len(SIZES)
    assert output.attention is None or output.attention.shape == (sum(SIZES),)


@every_model
@every_width
def test_output_of_a_bag_does_not_depend_on_the_batch(name: str, out_dim: int) -> None:
    model, bags = build_model(name, out_dim).double(), simulated(SIZES, dtype=torch.float64, slides=2)
    together = model(bags)
    for bag, alone in enumerate(bags):
        torch.testing.assert_close(
            outputs_of_bag(model(alone), alone, 0), outputs_of_bag(together, bags, bag), rtol=1e-10, atol=1e-12
        )


@every_model
@every_width
@pytest.mark.parametrize("slides", [1, 2])
def test_order_of_tiles_matters_only_if_declared(name: str, out_dim: int, slides: int) -> None:
    model, bags = build_model(name, out_dim).double(), simulated(LARGER, dtype=torch.float64, slides=slides)
    shuffled, order = permuted(bags, seed=1)
    if model.order_matters:
        assert not torch.allclose(model(shuffled).logits, model(bags).logits), "order_matters is declared"
    else:
        assert_same_output(model(shuffled), model(bags), order)


@every_model
def test_distance_between_slides_does_not_matter(name: str) -> None:
    model, near = build_model(name).double(), simulated(SIZES, dtype=torch.float64, slides=2)
    assert near.coords is not None
    assert near.slide is not None
    far = replace(near, coords=near.coords + 2**20 * near.slide.unsqueeze(1))  # by a multiple of any grid or region
    assert_same_output(model(far), model(near))


@every_model
def test_bags_without_coordinates_are_refused_only_if_needed(name: str) -> None:
    model, bags = build_model(name), replace(simulated(SIZES), coords=None)
    if not model.needs_coords:
        assert model(bags).logits.isfinite().all()
        return
    with pytest.raises(ValueError, match="coordinates") as refusal:
        model(bags)
    assert "\n" not in str(refusal.value)


@every_model
def test_attention_sums_to_one_if_the_method_has_it(name: str) -> None:
    model, bags = build_model(name), simulated(SIZES)
    with mock.patch.object(Bags, "softmax", autospec=True, side_effect=Bags.softmax) as softmax:
        attention = model(bags).attention
    assert (attention is None) == (name.removeprefix("2 ") in WITHOUT_ATTENTION)
    if attention is None:
        assert not softmax.called
        assert not any(isinstance(part, AttentionScore) for part in model.modules())
        return
    assert (attention >= 0).all()
    totals = torch.stack([shares.double().sum() for shares in bags.split(attention)])
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-6)


@every_model
@every_width
def test_bag_of_one_tile_is_read(name: str, out_dim: int) -> None:
    output = build_model(name, out_dim)(simulated((1,)))
    assert output.logits.isfinite().all()
    assert output.attention is None or output.attention.tolist() == pytest.approx([1], abs=1e-6)


@every_model
def test_a_large_bag_is_read(name: str) -> None:
    check_large_bag(name, 3_000 if name in QUADRATIC else 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(QUADRATIC))
def test_bag_of_twenty_thousand_tiles_is_read(name: str) -> None:
    check_large_bag(name, 20_000)


def check_large_bag(name: str, tiles: int) -> None:
    """Read a bag: the output is finite, and so many shares of attention still sum to one."""
    with torch.inference_mode():
        output = build_model(name)(simulated((tiles,)))
    assert output.logits.isfinite().all()
    assert output.attention is None or output.attention.double().sum().item() == pytest.approx(1, abs=1e-6)


def is_shift_invariant(endpoint: str) -> bool:
    """Return whether a constant added to all logits leaves the loss unchanged, as with Cox."""
    judge, target = ENDPOINTS[endpoint]
    logits = torch.linspace(-1, 1, len(SIZES), dtype=torch.float64).unsqueeze(1).expand(-1, judge.out_dim)
    return judge.out_dim == 1 and torch.allclose(judge.loss(logits + 1, target), judge.loss(logits, target))


def parameters_without_gradient(model: MILModel, endpoint: str) -> list[str]:
    """Return parameters without a gradient, except biases to which the loss is invariant."""
    invariant = is_shift_invariant(endpoint)
    return [
        name
        for name, parameter in model.named_parameters()
        if (parameter.grad is None or parameter.grad.abs().max() <= 1e-12) and not (invariant and name.endswith("bias"))
    ]


@every_model
@pytest.mark.parametrize("endpoint", ["binary", "multiclass", "multilabel", "cox"])
def test_gradient_reaches_every_parameter(name: str, endpoint: str) -> None:
    """Within three batches: top tiles or random masks may leave a parameter out of the first."""
    model = build_model(name, ENDPOINTS[endpoint][0].out_dim).double().train()
    for seed in range(3):
        torch.autograd.backward(loss_or_skip(model, endpoint, simulated(LARGER, seed, torch.float64)))
        if not parameters_without_gradient(model, endpoint):
            break
    assert parameters_without_gradient(model, endpoint) == []
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@every_model
def test_gradients_of_bags_of_one_tile_are_finite(name: str) -> None:
    model = build_model(name).train()
    torch.autograd.backward(loss_or_skip(model, "binary", simulated((1,) * len(SIZES))))
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_model
@every_width
def test_bfloat16_is_close_to_float32(name: str, out_dim: int) -> None:
    """Rounding errors are up to 2^-9 per value and accumulate over inputs, weights and layers."""
    model, bags = build_model(name, out_dim), simulated((20,) * 16)
    exact = model(bags).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(bags.cast(torch.bfloat16)).logits
    assert ((logits.float() - exact).norm() / exact.norm()).item() < 8 * 2**-9


@every_model
def test_evaluation_is_deterministic(name: str) -> None:
    model, bags = build_model(name), simulated(SIZES)
    first, second = model(bags), model(bags)
    assert torch.equal(first.logits, second.logits)
    assert first.attention is None or torch.equal(first.attention, second.attention)


@every_model
@every_width
def test_weights_survive_a_file_bit_for_bit(name: str, out_dim: int, tmp_path: Path) -> None:
    model, loaded, bags = build_model(name, out_dim, seed=0), build_model(name, out_dim, seed=1), simulated(SIZES)
    assert not torch.equal(loaded(bags).logits, model(bags).logits)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(loaded(bags).logits, model(bags).logits)


@every_model
def test_nan_in_one_bag_does_not_affect_others(name: str) -> None:
    model, bags, spoilt = build_model(name), simulated(SIZES), simulated(SIZES)
    spoilt.features[6:36] = torch.nan  # the third bag
    expected, output = model(bags), model(spoilt)
    for bag in (0, 1, 3, 4):
        torch.testing.assert_close(
            outputs_of_bag(output, bags, bag), outputs_of_bag(expected, bags, bag), rtol=1e-6, atol=1e-7
        )
    assert output.logits[2].isnan().all()


@every_model
@every_endpoint
def test_every_model_trains_on_every_endpoint_or_refuses_it(name: str, endpoint: str) -> None:
    model = build_model(name, ENDPOINTS[endpoint][0].out_dim).train()
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
def test_default_loss_is_that_of_the_endpoint(name: str) -> None:
    model = build_model(name)
    if type(model).loss is not MILModel.loss:
        pytest.skip(f"{type(model).__name__} has a loss of its own")
    for judge, target in ENDPOINTS.values():
        logits = torch.randn(len(SIZES), judge.out_dim, generator=torch.Generator().manual_seed(0))
        assert torch.equal(model.loss(Output(logits, logits), target, judge), judge.loss(logits, target))


@every_model
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tiles_converted_in_blocks_give_the_output_of_converted_tiles(name: str, dtype: torch.dtype) -> None:
    model, bags = build_model(name), simulated([300, 5], dtype=dtype)
    assert model.reads_in_blocks() != (name == "ilra"), "only ILRA reads the tiles otherwise"
    if not model.reads_in_blocks():
        return
    with torch.inference_mode(), mock.patch("mil.bags.BLOCK", 64):
        output, expected = model(bags.cast_in_blocks(torch.float32)), model(bags.cast(torch.float32))
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(output.embedding, expected.embedding)


def test_a_class_derived_from_a_model_says_itself_how_it_reads() -> None:
    derived = type("Mine", (type(build_model("abmil")),), {})(IN_DIM, 1)
    assert build_model("abmil").reads_in_blocks()
    assert not derived.reads_in_blocks()


@every_model
def test_features_of_another_width_are_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        build_model(name)(Bags(torch.zeros(3, IN_DIM + 1), (3,), torch.zeros(3, 2)))

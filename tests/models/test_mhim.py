"""Masked training: what is hidden, what the teacher does, and that evaluation is the inner model's."""

from math import ceil

import pytest
import torch

from mil.endpoints.classification import Binary
from mil.models.abmil import ABMIL
from mil.models.mhim import INNER, MHIM, _only

from .zoo import IN_DIM, simulated


def small_model(**options: float) -> MHIM:
    torch.manual_seed(0)
    return MHIM(IN_DIM, 1, options={"embed_dim": 8, "attention_dim": 4, "dropout": 0.0}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("inner", INNER)
def test_evaluation_is_the_inner_models_and_training_hides_tiles(inner: str) -> None:
    torch.manual_seed(0)
    model, bags = MHIM(IN_DIM, 1, inner, high=0.2), simulated((20, 3))
    output = model.eval()(bags)
    assert torch.equal(output.logits, model.inner(bags).logits)
    trained = model.train()(bags)
    assert trained.attention is not None
    assert len(trained.attention) == 20 - 4 + 3 - 1
    assert model.loss(trained, torch.tensor([0.0, 1]), Binary()).isfinite()


@pytest.mark.parametrize(
    ("high", "drawn", "low", "random"), [(0.2, 1.0, 0.0, 0.0), (0.2, 0.5, 0.3, 0.0), (0.1, 1, 0, 0.4)]
)
def test_tiles_of_high_low_and_random_attention_are_hidden(
    high: float, drawn: float, low: float, random: float
) -> None:
    model = small_model(high=high, drawn=drawn, low=low, random=random)
    attention = torch.rand(30, generator=torch.Generator().manual_seed(1))
    order = attention.argsort(descending=True).tolist()
    hidden = sorted(set(range(30)) - set(model._remaining(attention).tolist()))
    first, last = order[: ceil(30 * high / drawn)], order[30 - ceil(30 * low) :] if low else []
    assert set(last) <= set(hidden)
    assert len(set(first) & set(hidden)) >= ceil(30 * high)
    if not random:
        assert set(hidden) <= set(first) | set(last)
        assert len(hidden) == ceil(len(first) * drawn) + len(last)


def test_one_tile_is_always_seen() -> None:
    assert small_model(high=0.5, drawn=0.5)._remaining(torch.ones(1)).tolist() == [0]


def test_the_teacher_follows_the_student() -> None:
    model = small_model(momentum=0.9)
    name, weight = "inner.head.weight", model.get_parameter("inner.head.weight")
    before = weight.detach().clone()
    assert torch.equal(model.get_buffer("teacher_head__weight"), before)
    with torch.no_grad():
        weight.add_(1)
    model.after_step()
    torch.testing.assert_close(model.get_buffer("teacher_head__weight"), before + 0.1)
    assert name in model.state_dict()
    assert "teacher_head__weight" in model.state_dict()


def test_the_loss_has_the_difference_to_the_teachers_embedding() -> None:
    model, bags, target = small_model(high=0.2, consistency=0.3).train(), simulated((20, 9)), torch.tensor([0.0, 1])
    torch.manual_seed(1)
    output = model(bags)
    torch.manual_seed(1)
    visible = [model._remaining(rows) for rows in bags.split(model.inner(bags).attention)]
    student = model.inner(_only(bags, visible))
    aim = (model.inner(bags).embedding / 0.1).softmax(1)
    consistency = -(aim * student.embedding.log_softmax(1)).sum(1).mean()
    expected = Binary().loss(student.logits, target) + 0.3 * consistency
    torch.testing.assert_close(model.loss(output, target, Binary()), expected)
    assert isinstance(model.inner, ABMIL)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"inner": "mean"}, "inner is 'mean'"), ({"high": 0.6, "low": 0.5}, "sum to less than one")],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MHIM(IN_DIM, 1, **options)  # type: ignore[arg-type]  # as from a yaml file

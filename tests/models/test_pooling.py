"""Mean, max and log-sum-exp pooling against direct computations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.errors import ConfigError
from mil.models.pooling import Pooling, log_mean_exp
from mil.study import build
from mil.study.compose import compose

from .zoo import IN_DIM, composed, simulated


@pytest.mark.parametrize("by", ["mean", "max"])
def test_embeddings_are_pooled_then_classified(by: str) -> None:
    torch.manual_seed(0)
    model, bags = Pooling(IN_DIM, 3, by=by, embed_dim=8).eval(), simulated((4, 1, 6))
    weight, bias = model.embed[0].weight, model.embed[0].bias
    for bag, rows in enumerate(bags.split()):
        tiles = [torch.clamp(weight @ row + bias, min=0) for row in rows]
        pooled = torch.stack(
            [sum(column) / len(column) if by == "mean" else max(column) for column in zip(*tiles, strict=True)]
        )
        output = model(bags)
        torch.testing.assert_close(output.embedding[bag], pooled)
        torch.testing.assert_close(output.logits[bag], model.head.weight @ pooled + model.head.bias)


@pytest.mark.parametrize("r", [0.3, 1.0, 8.0])
def test_log_sum_exp_matches_the_paper(r: float) -> None:
    bags = simulated((4, 1, 6), dtype=torch.float64)
    for pooled, rows in zip(log_mean_exp(bags, bags.features, r), bags.split(), strict=True):
        expected = [math.log(sum(math.exp(r * x) for x in column) / len(column)) / r for column in rows.t().tolist()]
        torch.testing.assert_close(pooled, torch.tensor(expected, dtype=torch.float64))


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4), seed=st.integers(0, 99), r=st.floats(0.01, 50))
def test_log_sum_exp_lies_between_mean_and_maximum(sizes: list[int], seed: int, r: float) -> None:
    bags = simulated(sizes, seed, torch.float64)
    pooled = log_mean_exp(bags, bags.features, r)
    assert (pooled >= bags.mean(bags.features) - 1e-9).all()
    assert (pooled <= bags.max(bags.features) + 1e-9).all()


def test_log_sum_exp_converges_to_mean_and_maximum() -> None:
    bags = simulated((4, 1, 6), dtype=torch.float64)
    torch.testing.assert_close(log_mean_exp(bags, bags.features, 1e-5), bags.mean(bags.features), rtol=0, atol=1e-4)
    torch.testing.assert_close(log_mean_exp(bags, bags.features, 1e3), bags.max(bags.features), rtol=0, atol=1e-2)
    assert log_mean_exp(bags, 1e6 * bags.features, 1e3).isfinite().all()


def test_sharpness_is_an_option() -> None:
    torch.manual_seed(0)
    model, bags = Pooling(IN_DIM, 3, by="lse", embed_dim=8, r=2.0).eval(), simulated((4, 1, 6))
    tiles = model.embed(bags.features)
    torch.testing.assert_close(model(bags).embedding, log_mean_exp(bags, tiles, 2.0))
    with pytest.raises(ValueError, match="r is 0, expected a positive number"):
        Pooling(IN_DIM, 3, by="lse", r=0)


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="pooling by 'median', expected one of mean, max, lse"):
        build.model(compose(["model=max", "model.by=median"]), IN_DIM, 1)


def test_constructor_options_absent_from_the_yaml_are_accepted() -> None:
    narrow = compose(["model=abmil", "model.embed_dim=9"])
    assert "embed_dim" not in composed("abmil").model
    assert build.model(narrow, IN_DIM, 2)(simulated((3,))).embedding.shape == (1, 9)

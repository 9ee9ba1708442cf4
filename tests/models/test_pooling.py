"""Mean and max pooling, written out."""

import pytest
import torch

from mil import build, config
from mil.errors import ConfigError
from mil.models.pooling import Pooling

from .zoo import IN_DIM, composed, simulated


@pytest.mark.parametrize("by", ["mean", "max"])
def test_embeddings_are_pooled_then_classified(by: str) -> None:
    torch.manual_seed(0)
    model, bags = Pooling(IN_DIM, 3, by=by, embed_dim=8).eval(), simulated((4, 1, 6))
    weight, bias = model.embed[0].weight, model.embed[0].bias
    for bag, rows in enumerate(bags.split()):
        tiles = [torch.clamp(weight @ row + bias, min=0) for row in rows]
        pooled = torch.stack([sum(one) / len(one) if by == "mean" else max(one) for one in zip(*tiles, strict=True)])
        output = model(bags)
        torch.testing.assert_close(output.embedding[bag], pooled)
        torch.testing.assert_close(output.logits[bag], model.head.weight @ pooled + model.head.bias)


def test_another_pooling_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="pooling by 'median', expected one of mean, max"):
        build.model(config.compose(["model=max", "model.by=median"]), IN_DIM, 1)


def test_options_that_only_the_constructor_knows_are_taken() -> None:
    narrow = config.compose(build.prepared(["model=abmil", "model.embed_dim=9"]))
    assert "embed_dim" not in composed("abmil").model
    assert build.model(narrow, IN_DIM, 2)(simulated((3,))).embedding.shape == (1, 9)

"""The Set Transformer against its authors' code."""

import pytest
import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.models.set_transformer import SetTransformer

from .reference import copy_linear, copy_parameters, golden
from .zoo import IN_DIM, simulated


def copy_block(block: nn.Module, weights: dict[str, Tensor], name: str, norm: bool) -> None:
    """Copy a MAB; a bias of keys has no effect."""
    copy_linear(block.get_submodule("attend.query"), weights, f"{name}.fc_q")
    copy_parameters(block.get_submodule("attend.key"), weight=weights[f"{name}.fc_k.weight"])
    copy_linear(block.get_submodule("attend.value"), weights, f"{name}.fc_v")
    copy_linear(block.get_submodule("feed"), weights, f"{name}.fc_o")
    for ours, theirs in (("before", "ln0"), ("after", "ln1")) if norm else ():
        copy_linear(block.get_submodule(ours), weights, f"{name}.{theirs}")


@pytest.mark.parametrize(("seeds", "norm"), [(1, False), (2, True)])
def test_embedding_matches_the_authors_code(seeds: int, norm: bool) -> None:
    arrays, weights = golden("set_transformer")
    weights = {name.removeprefix(f"{seeds}."): w for name, w in weights.items() if name.startswith(f"{seeds}.")}
    model = SetTransformer(8, 2, 8, heads=2, inducing=3, seeds=seeds, norm=norm).double().eval()
    copy_parameters(model.start, weight=torch.eye(8), bias=torch.zeros(8))
    for place in range(2):
        copy_parameters(model.points, **{str(place): weights[f"{place}.I"][0]})
        copy_block(model.down[place], weights, f"{place}.mab0", norm)
        copy_block(model.up[place], weights, f"{place}.mab1", norm)
    copy_parameters(model, seeds=weights["2.S"][0])
    copy_block(model.pool, weights, "2.mab", norm)
    if model.exchange is not None:
        copy_block(model.exchange, weights, "3.mab", norm)
    output = model(Bags(arrays["features"], (13,)))
    expected = arrays[f"{seeds}.embedding"].flatten()
    torch.testing.assert_close(output.embedding[0], expected, rtol=1e-9, atol=1e-11)


def test_attention_is_that_of_the_seeds() -> None:
    model, bags = SetTransformer(IN_DIM, 1, 8, heads=2, seeds=2).double().eval(), simulated((7,), 0, torch.float64)
    tiles = model.start(bags.features)
    for points, down, up in zip(model.points, model.down, model.up, strict=True):
        tiles = up(tiles, down(points, tiles))
    attend = model.pool.attend
    scores = [
        (attend.query(model.seeds)[:, part] @ attend.key(tiles)[:, part].t() / 8**0.5).softmax(1)
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(model(bags).extra["heads"], torch.cat(scores).t())


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="1 inducing points and 1 seeds, expected two or more, and one or more"):
        SetTransformer(IN_DIM, 1, inducing=1)

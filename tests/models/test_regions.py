"""Regions against a direct computation per region with torch's encoder layer."""

import pytest
import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.models.regions import EncoderLayer, Regions

from .reference import copy_parameters


def small_model() -> Regions:
    torch.manual_seed(0)
    return Regions(5, 2, region=1000, layers=2, embed_dim=8, heads=2).double().eval()


def scattered_bags(sizes: tuple[int, ...], slides: int) -> Bags:
    """Return bags of several slides with tiles at random places, some with negative coordinates."""
    generator = torch.Generator().manual_seed(0)
    count = sum(sizes)
    coords = torch.randint(-1500, 2500, (count, 2), generator=generator)
    slide = torch.randint(0, slides, (count,), generator=generator)
    return Bags(torch.randn(count, 5, generator=generator, dtype=torch.float64), sizes, coords, slide)


def as_torch(layer: EncoderLayer) -> nn.TransformerEncoderLayer:
    """Return torch's encoder layer with the weights of this layer."""
    reference = nn.TransformerEncoderLayer(8, 2, 8, 0, batch_first=True).double()
    mine = layer.attend
    copy_parameters(
        reference.self_attn,
        in_proj_weight=torch.cat([mine.query.weight, mine.key.weight, mine.value.weight]),
        in_proj_bias=torch.cat([mine.query.bias, torch.zeros(8), mine.value.bias]),
    )
    reference.self_attn.out_proj.load_state_dict(mine.out.state_dict())
    reference.linear1.load_state_dict(layer.think[0].state_dict())
    reference.linear2.load_state_dict(layer.think[3].state_dict())
    reference.norm1.load_state_dict(layer.after_attend.state_dict())
    reference.norm2.load_state_dict(layer.after_think.state_dict())
    return reference.eval()


def pooled(score: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    shares = score(rows).softmax(0)
    return (shares * rows).sum(0), shares[:, 0]


def test_logits_and_attention_match_the_description() -> None:
    model, bags = small_model(), scattered_bags((17, 1, 6), slides=2)
    layers = [as_torch(layer) for layer in model.layers if isinstance(layer, EncoderLayer)]
    output = model(bags)
    for bag in range(3):
        alone = bags[bag]
        assert alone.coords is not None
        assert alone.slide is not None
        places = zip(alone.slide.tolist(), alone.coords.tolist(), strict=True)
        cells = [(slide, x // 1000, y // 1000) for slide, (x, y) in places]
        groups = {
            cell: [tile for tile, cell_of_tile in enumerate(cells) if cell_of_tile == cell]
            for cell in sorted(set(cells))
        }
        tiles = model.embed(alone.features)
        within = {cell: pooled(model.score, tiles[members]) for cell, members in groups.items()}
        regions = model.region_embed(torch.stack([mean for mean, _ in within.values()]))[None]
        for layer in layers:
            regions = layer(regions)
        mean, between = pooled(model.region_score, regions[0])
        torch.testing.assert_close(output.logits[bag], model.head(model.last(mean)), rtol=1e-10, atol=1e-10)
        attention = torch.zeros(len(tiles), dtype=torch.float64)
        for share, (cell, members) in zip(between, groups.items(), strict=True):
            attention[members] = share * within[cell][1]
        torch.testing.assert_close(bags.split(output.attention)[bag], attention, rtol=1e-10, atol=1e-12)


def test_slides_do_not_share_regions() -> None:
    bags = scattered_bags((6,), slides=1)
    same_place = Bags(bags.features, (6,), torch.zeros(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]))
    assert small_model()(same_place).extra["region"].tolist() == [0, 1, 0, 1, 0, 1]


def test_bags_without_coordinates_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^Regions groups tiles by their places: the bags have no coordinates"):
        small_model()(Bags(torch.zeros(3, 5, dtype=torch.float64), (3,)))


def test_region_of_size_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="region is 0 pixels wide, expected at least one"):
        Regions(5, 2, region=0)

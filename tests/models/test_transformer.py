"""The transformers against full layers, and how coordinates are used."""

from dataclasses import replace

import pytest
import torch

from mil.layers.transformer_block import EncoderLayer
from mil.models.transformer import AlibiTransformer, ClassTokenReader, Transformer

from .zoo import simulated


def layers_of(reader: ClassTokenReader) -> list[EncoderLayer]:
    return [layer for layer in reader.layers if isinstance(layer, EncoderLayer)]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_class_token_matches_full_layers(layers: int) -> None:
    torch.manual_seed(0)
    model = Transformer(12, 3, embed_dim=8, layers=layers, heads=2, hidden_dim=8).double().eval()
    bags, reader = simulated((4, 1, 9), dtype=torch.float64), model.reader
    output = model(bags)
    assert output.attention is not None
    for bag, shares in zip(range(3), bags.split(output.attention), strict=True):
        tokens = torch.cat([reader.class_token.unsqueeze(0), reader.embed(bags[bag].features)])
        for layer in layers_of(reader):
            before, tokens = tokens, layer(tokens)  # the last layer too, unlike in the model
        embedding = reader.norm(tokens[0])
        torch.testing.assert_close(output.embedding[bag], embedding)
        torch.testing.assert_close(output.logits[bag], model.head(embedding))
        weights = layers_of(reader)[-1].first(before)[1].mean(0)[1:]
        torch.testing.assert_close(shares, weights / weights.sum())


def alibi_model() -> AlibiTransformer:
    torch.manual_seed(0)
    model = AlibiTransformer(12, 1, embed_dim=8, heads=2, hidden_dim=8).double().eval()
    torch.nn.init.normal_(layers_of(model.reader)[0].qkv.weight)
    return model


def test_distances_are_relative_to_the_grid_step() -> None:
    model, bags = alibi_model(), simulated((4, 30), dtype=torch.float64)
    assert bags.coords is not None
    moved = replace(bags, coords=2 * bags.coords + torch.tensor([7, 90_000]))
    torch.testing.assert_close(model(moved).logits, model(bags).logits)


def test_coordinates_change_the_logits() -> None:
    model, bags = alibi_model(), simulated((30,), dtype=torch.float64)
    assert bags.coords is not None
    moved = replace(bags, coords=bags.coords.roll(7, 0))  # flipping the grid would keep all distances
    assert not torch.allclose(model(moved).logits, model(bags).logits, rtol=1e-6)


def test_zero_slopes_equal_the_plain_transformer() -> None:
    biased, bags = alibi_model(), simulated((4, 9), dtype=torch.float64)
    plain = Transformer(12, 1, embed_dim=8, heads=2, hidden_dim=8).double().eval()
    plain.load_state_dict(biased.state_dict())
    torch.nn.init.zeros_(layers_of(biased.reader)[0].slopes)
    torch.testing.assert_close(biased(bags).logits, plain(bags).logits)


def test_too_few_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="0 layers, expected at least one"):
        Transformer(3, 1, layers=0)
    with pytest.raises(ValueError, match="1 layers, expected two or more"):
        AlibiTransformer(3, 1, layers=1)

"""Transformer layers against torch.nn.TransformerEncoderLayer, with distances as its mask."""

import pytest
import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers import transformer_block
from mil.layers.neighbours import Places
from mil.layers.transformer_block import Distances, EncoderLayer

HEADS, WIDTH = 2, 8


def encoder_layers(heads: int = HEADS) -> tuple[EncoderLayer, nn.TransformerEncoderLayer]:
    """Return our layer and torch's with the same weights."""
    torch.manual_seed(0)
    ours = EncoderLayer(WIDTH, heads, 12, dropout=0.25).double().eval()
    theirs = nn.TransformerEncoderLayer(WIDTH, heads, 12, activation="gelu", batch_first=True, norm_first=True)
    theirs = theirs.double().eval()
    attend = theirs.self_attn
    projections = {"in_proj_weight": ours.qkv.weight, "in_proj_bias": torch.zeros(3 * WIDTH)}
    attend.load_state_dict({**attend.state_dict(), **projections})
    for mine, their in (
        (ours.norm, theirs.norm1),
        (ours.out[0], attend.out_proj),
        (ours.feed[0], theirs.norm2),
        (ours.feed[1], theirs.linear1),
        (ours.feed[4], theirs.linear2),
    ):
        their.load_state_dict(mine.state_dict())
    return ours, theirs


def random_tokens(tokens: int) -> Tensor:
    return torch.randn(tokens, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(tokens))


def distances(tiles: int, slides: int = 1, apart: float = 100) -> Distances:
    """Return distances of tiles in rows of three, 256 pixels apart, assigned to the slides in turn."""
    order = torch.arange(tiles)
    xy = 256 * torch.stack([order // slides % 3, order // slides // 3], 1)
    bags = Bags(torch.zeros(tiles, 1), (tiles,), xy, order % slides if slides > 1 else None)
    return Distances.of(Places.of(bags), slice(0, tiles), apart)


@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_layer_matches_torch(tokens: int) -> None:
    ours, theirs = encoder_layers()
    rows = random_tokens(tokens)
    torch.testing.assert_close(ours(rows), theirs(rows.unsqueeze(0)).squeeze(0))


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("slides", [1, 2])
def test_distances_times_slopes_are_subtracted_from_the_scores(heads: int, slides: int) -> None:
    ours, theirs = encoder_layers(heads)
    rows = random_tokens(8)
    bias = torch.zeros(heads, 8, 8, dtype=torch.float64)
    for head in range(heads):
        for first in range(1, 8):
            for second in range(1, 8):
                a, b = first - 1, second - 1
                row, column = (a // slides // 3 - b // slides // 3), (a // slides % 3 - b // slides % 3)
                away = (row**2 + column**2) ** 0.5 if a % slides == b % slides else 30
                bias[head, first, second] = -away * 2 ** (-8 * (head + 1) / heads)
    expected = theirs(rows.unsqueeze(0), src_mask=bias).squeeze(0)
    torch.testing.assert_close(ours(rows, distances(7, slides, apart=30)), expected, rtol=1e-6, atol=1e-7)


def test_first_token_alone_matches_the_full_layer() -> None:
    ours, _ = encoder_layers()
    rows = random_tokens(9)
    first, attention = ours.first(rows)
    torch.testing.assert_close(first, ours(rows)[0])
    torch.testing.assert_close(first, ours(rows, distances(8))[0])
    query, key, _ = (part.view(9, HEADS, -1) for part in ours.qkv(ours.norm(rows)).chunk(3, 1))
    scores = torch.einsum("hw,thw->ht", query[0], key) / 2  # square root of 4 channels
    torch.testing.assert_close(attention, scores.softmax(1))


def test_processing_in_blocks_changes_neither_result_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = encoder_layers()
    results = []
    for biases in (transformer_block.BIASES, 1, 3 * 10 * HEADS):
        monkeypatch.setattr(transformer_block, "BIASES", biases)
        rows = random_tokens(10).requires_grad_()
        read = ours(rows, distances(9))
        results.append([read, *torch.autograd.grad(read.square().sum(), [rows, *ours.parameters()])])
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_full_attention_matrix_is_never_stored() -> None:
    ours = EncoderLayer(WIDTH, HEADS, 12, dropout=0.25).train()
    rows = torch.randn(3000, WIDTH, requires_grad=True)
    sizes: list[int] = []

    def record_size(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record_size, lambda tensor: tensor):
        ours(rows, distances(2999))
    assert max(sizes) <= 3000 * 3 * WIDTH


def test_width_not_divisible_by_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 in 4 heads, expected a multiple of them"):
        EncoderLayer(10, 4, 8, 0)

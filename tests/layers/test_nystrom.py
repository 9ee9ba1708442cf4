"""Nyström attention against its equations with explicit padding, and against exact attention."""

import pytest
import torch
from torch import Tensor

from mil.layers.nystrom import NystromAttention, pseudo_inverse

TOKENS = [1, 2, 7, 8, 9, 15, 16, 17, 40, 67]


def layer(landmarks: int, padded: bool = True) -> NystromAttention:
    torch.manual_seed(0)
    return NystromAttention(12, heads=3, landmarks=landmarks, padded=padded).double().eval()


def random_tokens(tokens: int, seed: int = 1) -> Tensor:
    return torch.randn(tokens, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def head_inputs(model: NystromAttention, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scaled queries, keys and values of each head, `(h, t, w)`."""
    query, key, value = (
        part.view(len(tokens), 3, -1).transpose(0, 1) for part in (tokens @ model.qkv.weight.T).chunk(3, 1)
    )
    return query / query.shape[2] ** 0.5, key, value


def with_explicit_padding(model: NystromAttention, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Apply equation (15) to the tokens after explicit zero padding, head by head."""
    padding = -len(tokens) % model.landmarks
    heads = zip(*head_inputs(model, torch.cat([tokens.new_zeros(padding, tokens.shape[1]), tokens])), strict=True)
    sections = [
        (query, key, value, *(rows.view(model.landmarks, -1, rows.shape[1]).mean(1) for rows in (query, key)))
        for query, key, value in heads
    ]
    among = [(query_marks @ key_marks.T).softmax(1) for *_, query_marks, key_marks in sections]
    largest = max(matrix.sum(1).max() for matrix in among) * max(matrix.sum(0).max() for matrix in among)
    mixed: list[Tensor] = []
    first: list[Tensor] = []
    for (query, key, value, query_marks, key_marks), matrix in zip(sections, among, strict=True):
        guess, identity = matrix.T / largest, torch.eye(len(matrix), dtype=matrix.dtype)
        for _ in range(model.iterations):  # equation (14)
            both = matrix @ guess
            guess = guess @ (13 * identity - both @ (15 * identity - both @ (7 * identity - both))) / 4
        weights = (query @ key_marks.T).softmax(1) @ guess @ (query_marks @ key.T).softmax(1)
        kernel = model.local.weight[len(mixed)].flatten()
        reach = len(kernel) // 2
        wide = torch.nn.functional.pad(value, (0, 0, reach, reach))
        near = torch.stack([(kernel.unsqueeze(1) * wide[i : i + len(kernel)]).sum(0) for i in range(len(value))])
        mixed.append((weights @ value + near)[padding:])
        first.append(weights[padding, padding:])
    return model.out(torch.cat(mixed, 1)), torch.stack(first)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("landmarks", [1, 4, 8])
def test_implicit_padding_matches_explicit_padding(tokens: int, landmarks: int) -> None:
    model, rows = layer(landmarks), random_tokens(tokens)
    # equal padding rows make the matrix singular, so rounding errors grow in the iteration
    torch.testing.assert_close(model(rows), with_explicit_padding(model, rows), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("tokens", [8, 16, 40])
def test_padded_and_unpadded_agree_if_no_padding_is_needed(tokens: int) -> None:
    rows = random_tokens(tokens)
    torch.testing.assert_close(layer(8, padded=False)(rows), layer(8)(rows), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_unpadded_is_exact_if_every_token_is_a_landmark(tokens: int) -> None:
    model, rows = layer(8, padded=False), random_tokens(tokens)
    model.iterations = 40
    query, key, value = head_inputs(model, rows)
    weights = (query @ key.mT).softmax(2)
    torch.nn.init.zeros_(model.local.weight)
    out, first = model(rows)
    expected = model.out((weights @ value).transpose(0, 1).flatten(1))
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(first, weights[:, 0], rtol=1e-6, atol=1e-8)


def test_unpadded_landmarks_are_segment_means() -> None:
    model, rows = layer(4, padded=False), random_tokens(7)
    segment, weight, padding = model._segments(7, rows.device)
    assert segment.tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert (weight.tolist(), padding) == ([1, 1, 1, 1], 1)
    means = model._means(rows.unsqueeze(0), segment, 4, padding)[0]
    torch.testing.assert_close(means, torch.stack([part.mean(0) for part in torch.split(rows, [1, 2, 2, 2])]))


def test_pseudo_inverse_converges_to_the_inverse() -> None:
    torch.manual_seed(0)
    matrix = (3 * torch.randn(2, 6, 6, dtype=torch.float64)).softmax(2)
    inverse = pseudo_inverse(matrix, torch.ones(6), iterations=40)
    torch.testing.assert_close(inverse, torch.linalg.inv(matrix), rtol=1e-8, atol=1e-10)


def test_pseudo_inverse_merges_equal_rows_and_columns() -> None:
    torch.manual_seed(0)
    small = torch.randn(1, 4, 4, dtype=torch.float64)
    which = torch.tensor([0, 0, 0, 1, 2, 3])
    large = small[:, which][:, :, which].softmax(2)
    weight = torch.tensor([3, 1, 1, 1], dtype=torch.float64)
    merged = large[:, 2:, 2:] * weight
    inverse, expected = pseudo_inverse(merged, weight, 6), pseudo_inverse(large, torch.ones(6), 6)
    torch.testing.assert_close(inverse, expected[:, 2:, 2:] * weight, rtol=1e-9, atol=1e-11)


def test_width_not_divisible_by_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 in 4 heads, expected a multiple of them"):
        NystromAttention(10, 4, 8)

"""The score of gated attention and the first layer, in training: values and gradients are those of plain torch."""

import pytest
import torch
from torch import Tensor, nn

from mil.layers.attention import AttentionScore
from mil.layers.embed import Embed

DTYPES = pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 0), (torch.bfloat16, 2e-2)]
)


def of_all(function: nn.Module, rows: Tensor) -> list[Tensor]:
    """Return the output and the gradients of input and weights."""
    rows = rows.detach().requires_grad_()
    torch.manual_seed(1)
    out: Tensor = function(rows)
    pull = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad(out, [rows, *function.parameters()], pull)]


class PlainScore(nn.Module):
    def __init__(self, score: AttentionScore) -> None:
        super().__init__()
        self.score = score

    def forward(self, tiles: Tensor) -> Tensor:
        value, gate = self.score.branches(tiles).chunk(2, dim=1)
        scores: Tensor = self.score.score(self.score.dropout(value.tanh() * gate.sigmoid()))
        return scores


@DTYPES
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_gate_is_that_of_plain_torch(dtype: torch.dtype, rtol: float, dropout: float) -> None:
    torch.manual_seed(0)
    score = AttentionScore(8, 6, 2, gated=True, dropout=dropout).to(dtype).train()
    rows = torch.randn(37, 8, dtype=dtype)
    for value, expected in zip(of_all(score, rows), of_all(PlainScore(score), rows), strict=True):
        torch.testing.assert_close(value, expected, rtol=rtol, atol=2 * rtol)


@DTYPES
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25])
def test_the_first_layer_is_that_of_plain_torch(dtype: torch.dtype, rtol: float, rate: float) -> None:
    torch.manual_seed(0)
    embed = Embed(8, 40, rate).to(dtype).train()
    rows = torch.randn(37, 8, dtype=dtype)
    for value, expected in zip(of_all(embed, rows), of_all(nn.Sequential(*embed), rows), strict=True):
        torch.testing.assert_close(value, expected, rtol=rtol, atol=2 * rtol)


def test_the_gradient_of_the_first_layer_needs_no_mask() -> None:
    embed, saved = Embed(8, 40, 0.25).train(), list[torch.dtype]()

    def noted(tensor: Tensor) -> Tensor:
        saved.append(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        embed(torch.randn(5, 8))
    assert set(saved) == {torch.float32}

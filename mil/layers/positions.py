"""Position encodings of tiles by convolutions."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

REACH = 3
"""Rows and columns of the square on each side of a token that its position encoding depends on."""


class PPEG(nn.Module):
    """Pyramid position encoding generator (Shao et al. 2021): depthwise convolutions of 7, 5 and 3 on a square.

    The output is the sum of the three and of the tokens. Convolution is linear, so the kernels are added first and
    applied once.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(
            nn.Conv2d(embed_dim, embed_dim, size, padding=size // 2, groups=embed_dim) for size in (7, 5, 3)
        )

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """`(side * side, e)`, row by row of the square, to the same shape."""
        width = tokens.shape[1]
        square = tokens.T.reshape(1, width, side, side)
        kernel, bias = self._summed()
        positions = conv2d(square, kernel, bias, padding=REACH, groups=width)
        return tokens + positions.view(width, -1).T

    def of_rows(self, tokens: Tensor, side: int, above: int, below: int) -> Tensor:
        """Return the same for some rows of the square, given with up to `REACH` further rows above and below them.

        Args:
            tokens: `((above + rows + below) * side, e)`.
            side: Tokens of a row.
            above: Further rows above; beyond them the square ends, if they are fewer than `REACH`.
            below: Further rows below.
        """
        width = tokens.shape[1]
        part = tokens.T.reshape(1, width, -1, side)
        part = pad(part, (0, 0, REACH - above, REACH - below))
        kernel, bias = self._summed()
        positions = conv2d(part, kernel, bias, padding=(0, REACH), groups=width)
        return tokens[above * side : len(tokens) - below * side] + positions.view(width, -1).T

    def _summed(self) -> tuple[Tensor, Tensor]:
        """Return the sums of kernels and biases of the three convolutions."""
        layers = [layer for layer in self.kernels if isinstance(layer, nn.Conv2d)]
        kernel = torch.stack([pad(layer.weight, ((7 - layer.kernel_size[0]) // 2,) * 4) for layer in layers]).sum(0)
        return kernel, torch.stack([layer.bias for layer in layers if layer.bias is not None]).sum(0)

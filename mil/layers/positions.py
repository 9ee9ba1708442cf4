"""Position encodings of tiles by convolutions."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


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
        layers = self._kernels()
        kernel = torch.stack([pad(layer.weight, ((7 - layer.kernel_size[0]) // 2,) * 4) for layer in layers]).sum(0)
        bias = torch.stack([layer.bias for layer in layers if layer.bias is not None]).sum(0)
        positions = conv2d(square, kernel, bias, padding=3, groups=width)
        return tokens + positions.view(width, -1).T

    def _kernels(self) -> list[nn.Conv2d]:
        return [layer for layer in self.kernels if isinstance(layer, nn.Conv2d)]

"""Transformer layers over the tokens of one bag, with memory linear in tokens.

Pre-norm layers of Dosovitskiy et al. 2021 (ViT, arXiv:2010.11929, equations 2 and 3); linear biases of O. Press,
N. A. Smith, M. Lewis: Train short, test long: attention with linear biases enables input length extrapolation.
ICLR 2022, arXiv:2108.12409.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from mil.layers.dropout import Dropout
from mil.layers.neighbours import Places

BIASES = 2**24
"""Biases held at a time: bounds memory, changes no result."""


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances between the tokens of one bag: the class token, which has no position, then the tiles."""

    xy: Tensor
    """`(1 + n, 2)`, in steps of the slide's grid; of the class token anything"""
    slide: Tensor
    """`(1 + n,)`; of the class token anything"""
    apart: float | None
    """steps between tiles of different slides, which have no distance; none where all lie on one"""

    @classmethod
    def of(cls, places: Places, tiles: slice, apart: float) -> "Distances":
        """Return the distances of one bag's tiles."""
        slide = places.slide[tiles]
        steps = (places.xy[tiles] - places.corner[slide]).double() / places.step[slide].unsqueeze(1)
        several = bool((slide != slide[0]).any())
        return cls(pad(steps, (0, 0, 1, 0)), pad(slide, (1, 0)), apart if several else None)

    def rows(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """Return distances from some tokens to all, `(q, 1 + n)`; zero to and from the class token."""
        x, y = self.xy.to(dtype).unbind(1)
        steps = ((x[tokens, None] - x).square_() + (y[tokens, None] - y).square_()).sqrt_()
        if self.apart is not None:
            steps.masked_fill_(self.slide[tokens].unsqueeze(1) != self.slide, self.apart)
        steps[tokens == 0] = 0
        steps[:, 0] = 0
        return steps


class EncoderLayer(nn.Module):
    """Attention of normalised tokens, then two linear layers with GELU, each added to the tokens.

    With distances, `slope * distance` is subtracted from each head's scores before the softmax; slopes are the paper's,
    2^(-8/h), 2^(-16/h), ..., 2^-8. Dropout applies to what is added to the tokens, not to the attention weights, which
    are never stored.
    """

    slopes: Tensor

    def __init__(self, embed_dim: int, heads: int, hidden_dim: int, dropout: float) -> None:
        """`embed_dim` is a multiple of `heads`."""
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"width {embed_dim} in {heads} heads, expected a multiple of them")
        self.heads = heads
        self.norm = nn.LayerNorm(embed_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.out = nn.Sequential(nn.Linear(embed_dim, embed_dim), Dropout(dropout))
        self.feed = nn.Sequential(
            nn.LayerNorm(embed_dim),
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(hidden_dim, embed_dim),
            Dropout(dropout),
        )
        self.register_buffer("slopes", 2 ** (-8 * torch.arange(1, heads + 1) / heads), persistent=False)

    def forward(self, tokens: Tensor, distances: Distances | None = None) -> Tensor:
        """`(t, e)` to `(t, e)`."""
        query, key, value = self._split(self.qkv(self.norm(tokens)))
        if distances is None:
            read = scaled_dot_product_attention(query, key, value)
        else:
            read = self._biased(query, key, value, distances)
        return self._added(tokens, read)

    def first(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output of the first token only, `(e,)`, in linear time, and its attention `(h, t)`.

        The first token has no position, so there is no bias.
        """
        query, key, value = self._split(self.qkv(self.norm(tokens)))
        scores = query[:, :, :1] @ key.mT / query.shape[3] ** 0.5
        attention = scores.double().softmax(3).to(torch.promote_types(scores.dtype, torch.float32))  # (1, h, 1, t)
        read = attention.to(value.dtype) @ value
        return self._added(tokens[:1], read).squeeze(0), attention[0, :, 0]

    def _split(self, projected: Tensor) -> tuple[Tensor, ...]:
        """`(t, 3 e)` to `(1, h, t, w)` each."""
        return projected.view(1, len(projected), 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind()

    def _added(self, tokens: Tensor, read: Tensor) -> Tensor:
        tokens = tokens + self.out(read[0].transpose(0, 1).flatten(1))
        fed: Tensor = tokens + self.feed(tokens)
        return fed

    def _biased(self, query: Tensor, key: Tensor, value: Tensor, distances: Distances) -> Tensor:
        """Attend from some tokens at a time; biases are computed again for the gradient and not stored."""
        tokens = torch.arange(query.shape[2], device=query.device)
        key, value = key.contiguous(), value.contiguous()  # they are read many times
        blocks = [
            checkpoint(self._part, some, query[:, :, some], key, value, distances, use_reentrant=False)
            for some in torch.split(tokens, max(1, BIASES // (self.heads * len(tokens))))
        ]
        return torch.cat(blocks, 2)

    def _part(self, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor, distances: Distances) -> Tensor:
        rows = distances.rows(tokens, self.slopes.dtype).to(query.dtype)  # (q, t)
        bias = -self.slopes.to(query.dtype).view(1, -1, 1, 1) * rows
        return scaled_dot_product_attention(query, key, value, attn_mask=bias)

"""TransMIL: self-attention of tiles, with positions from their order.

Z. Shao, H. Bian, Y. Chen, Y. Wang, J. Zhang, X. Ji, Y. Zhang: TransMIL: transformer based correlated multiple instance
learning for whole slide image classification. NeurIPS 2021, arXiv:2106.00908 (TPT module and PPEG, section 3.3). The
authors' code is szc19990412/TransMIL.
"""

from functools import partial
from itertools import pairwise
from math import isqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from mil import tile_rows
from mil.bags import Bags
from mil.layers.embed import Embed
from mil.layers.nystrom import NystromAttention, NystromInPieces
from mil.layers.positions import PPEG, REACH
from mil.layers.shares import shares
from mil.models.mil_model import MILModel, Output
from mil.tile_rows import Reader, TileRows, held, read, whole

ROWS_AT_ONCE = 2**14
"""Tokens of the square that are computed together, where a row of it has no more."""


class TransMIL(MILModel):
    """Two layers of Nyström attention over a class token and the tiles, with PPEG's convolutions in between.

    The order of tiles matters: they are arranged row by row in a square, which is filled with copies of the first
    tiles, and PPEG's convolutions use neighbours in that square, not in the tissue.

    Attention is the class token's in the last layer: the mean over heads of its row of the Nyström product, the shares
    of a tile's two copies added, negative ones set to zero, scaled to sum to one (departure: the paper shows it without
    saying how the approximation's negative weights are read).

    The paper does not say how a bag is divided into landmarks. The authors' code pads it with tokens of zeros and
    attends to them; `padded=False` does not.
    """

    paper: ClassVar[str] = "Shao 2021"
    cost: ClassVar[str] = "n m, m landmarks"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True
    order_matters: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        padded: bool = True,
        dropout: float = 0.1,
    ) -> None:
        """`landmarks` of the Nyström attention; `dropout` on its output."""
        super().__init__()
        self.embed = Embed(in_dim, embed_dim, dropout=0)
        self.class_token = nn.Parameter(torch.randn(embed_dim))
        self.first, self.second = (
            Layer(embed_dim, NystromAttention(embed_dim, heads, landmarks, padded=padded, dropout=dropout))
            for _ in range(2)
        )
        self.positions = PPEG(embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the class token's."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        read = [self._read(rows) for rows in bags.split(tiles)]
        embedding = torch.stack([token for token, _ in read])  # (b, e)
        return Output(self.head(embedding), embedding, torch.cat([attention for _, attention in read]))

    def _read(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token `(e,)` after one bag `(n, e)`, and its attention `(n,)`."""
        if isinstance(tiles, TileRows):
            return self._read_in_pieces(tiles if tiles.order is None else held(whole(tiles)))
        n, side = len(tiles), isqrt(len(tiles) - 1) + 1
        again = side**2 - n
        token = self.class_token.to(tiles.dtype).unsqueeze(0)
        tokens, _ = self.first(torch.cat([token, tiles, tiles[:again]]))  # (1 + side^2, e)
        tokens = torch.cat([tokens[:1], self.positions(tokens[1:], side)])
        tokens, weights = self.second(tokens)  # (1 + side^2, e), (h, 1 + side^2)
        return self.norm(tokens[0]), _of_tiles(weights, n)

    def _read_in_pieces(self, tiles: TileRows) -> tuple[Tensor, Tensor]:
        """Return the same, for prediction: tokens of both layers are computed again in each pass over them."""
        side = isqrt(len(tiles) - 1) + 1
        plain = partial(self._tokens, tiles)
        first = self.first.in_pieces(plain, 1 + side**2)
        placed = TokensOfSquare(partial(self.first.read, plain, first), self.positions, side)
        second = self.second.in_pieces(placed.read, 1 + side**2)
        token = self.second.read(placed.read, second, 0, 1)[0]
        return self.norm(token), _of_tiles(second.first(), len(tiles))

    def _tokens(self, tiles: TileRows, start: int, stop: int) -> Tensor:
        """Return tokens before the first layer: the class token, the tiles, and the first tiles again."""
        n, parts = len(tiles), [self.class_token.to(tiles.dtype).unsqueeze(0)] if start == 0 else []
        place = max(start, 1) - 1
        while place < stop - 1:
            row = place % n
            end = min(row + tile_rows.READ_ROWS, n, row + stop - 1 - place)
            parts.append(read(tiles, row, end))
            place += end - row
        return torch.cat(parts)


class Layer(nn.Module):
    """Attention of normalised tokens, added to them."""

    def __init__(self, embed_dim: int, attend: NystromAttention) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.attend = attend

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`(t, e)` to `(t, e)`, and the attention of the first token `(h, t)`."""
        read, weights = self.attend(self.norm(tokens))
        return tokens + read, weights

    def in_pieces(self, tokens: Reader, count: int) -> NystromInPieces:
        """Return the attention of tokens that are computed when they are read."""
        return NystromInPieces(self.attend, lambda start, stop: self.norm(tokens(start, stop)), count)

    def read(self, tokens: Reader, attention: NystromInPieces, start: int, stop: int) -> Tensor:
        """Return some of the tokens after the layer, `(r, e)`."""
        first, last = attention.around(start, stop)
        rows = tokens(first, last)
        return rows[start - first : stop - first] + attention.read(self.norm(rows), start, stop)


class TokensOfSquare:
    """The class token and the square of tiles after PPEG, computed some rows of the square at a time."""

    def __init__(self, tokens: Reader, positions: PPEG, side: int) -> None:
        self.tokens, self.positions, self.side = tokens, positions, side
        self.rows = max(1, ROWS_AT_ONCE // side)
        self._latest: tuple[int, Tensor] | None = None

    def read(self, start: int, stop: int) -> Tensor:
        """Return some of the tokens, `(r, e)`."""
        parts = [self.tokens(0, 1)] if start == 0 else []
        place, size = max(start, 1) - 1, self.rows * self.side
        while place < stop - 1:
            number, within = divmod(place, size)
            rows = self._block(number)[within : within + stop - 1 - place]
            parts.append(rows)
            place += len(rows)
        return torch.cat(parts)

    def _block(self, number: int) -> Tensor:
        """Return a block of rows of the square; the latest is remembered."""
        if self._latest is None or self._latest[0] != number:
            first, last = number * self.rows, min((number + 1) * self.rows, self.side)
            above, below = min(REACH, first), min(REACH, self.side - last)
            start, stop = 1 + (first - above) * self.side, 1 + (last + below) * self.side
            cuts = [*range(start, stop, tile_rows.READ_ROWS), stop]
            tokens = torch.cat([self.tokens(begin, end) for begin, end in pairwise(cuts)])
            self._latest = number, self.positions.of_rows(tokens, self.side, above, below)
        return self._latest[1]


def _of_tiles(weights: Tensor, tiles: int) -> Tensor:
    """Return the attention of tiles `(n,)` from each head's weights of the tokens `(h, 1 + side^2)`."""
    mean = weights[:, 1:].mean(0)
    again = mean[tiles:]
    return shares(mean[:tiles] + nn.functional.pad(again, (0, tiles - len(again))))

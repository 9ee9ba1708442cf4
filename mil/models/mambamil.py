"""MambaMIL: state spaces over the sequence of tiles, read in their order and in a reordering of it.

S. Yang, Y. Wang, H. Chen: MambaMIL: enhancing long sequence modeling with sequence reordering in computational
pathology. MICCAI 2024, arXiv:2403.06800. The authors' code is isyangshu/MambaMIL (SRMamba). Blocks of Mamba (A. Gu, T.
Dao 2023) are written in plain torch: no compiled kernels are needed, and long bags are slow on a CPU.
"""

from collections.abc import Sequence
from math import ceil
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mil.bags import Bags, sent
from mil.layers.attention import AttentionScore
from mil.layers.embed import Embed
from mil.layers.selective_scan import Carried, StateSpace
from mil.models.mil_model import MILModel, Output
from mil.tile_rows import TileRows, blocks, held, whole


class MambaMIL(MILModel):
    """Layers of SR-Mamba, then attention pooling.

    The order of tiles matters: a state runs over them as they come, which is the order of the feature file (usually row
    by row), and over several slides of a patient one after another. The reordering takes every `rate`-th tile from the
    first on, then every `rate`-th from the second on, and so on, so that the state meets tiles that are far apart in
    the file; tokens of zeros fill the sequence to a multiple of `rate`, as in the authors' code.

    Departures: the attention's score has no bias, which the softmax would remove. Steps start as in Mamba's paper; the
    authors' initialisation resets their biases to zero. The default width is 128 in place of 512, for CPUs.
    """

    paper: ClassVar[str] = "Yang 2024"
    cost: ClassVar[str] = "n"
    in_blocks: ClassVar[bool] = True
    in_pieces: ClassVar[bool] = True
    order_matters: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 128,
        layers: int = 2,
        rate: int = 10,
        states: int = 16,
        attention_dim: int = 128,
        dropout: float = 0.25,
    ) -> None:
        """`rate` is the paper's R, the number of segments of the reordering; `states` of each channel."""
        super().__init__()
        if rate < 1 or layers < 1:
            raise ValueError(f"rate is {rate} and layers {layers}, expected at least one")
        self.embed = Embed(in_dim, embed_dim, dropout)
        self.layers = nn.ModuleList(ReorderedMamba(embed_dim, states, rate) for _ in range(layers))
        self.norm = nn.LayerNorm(embed_dim)
        self.score = AttentionScore(embed_dim, attention_dim, 1, gated=False, dropout=0)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)`."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        read = self.norm(self._read(bags, tiles))  # (n, e)
        attention = bags.softmax(self.score(read))  # (n, 1)
        embedding = bags.sum(read, weight=attention)  # (b, e)
        return Output(self.head(embedding), embedding, attention.squeeze(1))

    def _read(self, bags: Bags, tiles: Tensor) -> Tensor:
        if isinstance(tiles, TileRows):
            return torch.cat([self._read_in_pieces(whole(rows)) for rows in bags.split(tiles)])
        for layer in self.layers:
            tiles = tiles + layer(tiles, bags.sizes)
        return tiles

    def _read_in_pieces(self, tokens: Tensor) -> Tensor:
        """Return the same, for prediction: rows of one layer are held, all that is wider is computed piece by piece."""
        for layer in self.layers:
            changed = tokens.clone()
            cast(ReorderedMamba, layer).add_in_pieces(tokens, changed)
            tokens = changed
        return held(tokens)


class ReorderedMamba(nn.Module):
    """One state space reads the tokens in order, another one reordered; both share projections and gate."""

    def __init__(self, embed_dim: int, states: int, rate: int, kernel: int = 4) -> None:
        """`kernel` is the length of the convolutions; inside tokens are twice as wide."""
        super().__init__()
        self.rate, width = rate, 2 * embed_dim
        self.norm = nn.LayerNorm(embed_dim)
        self.start = nn.Linear(embed_dim, 2 * width, bias=False)
        self.in_order, self.reordered = (StateSpace(width, states, kernel, ceil(embed_dim / 16)) for _ in range(2))
        self.out = nn.Linear(width, embed_dim, bias=False)

    def forward(self, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """`(n, e)` to `(n, e)`; `lengths` are those of the sequences that follow each other in `tokens`."""
        both = self.start(self.norm(tokens))  # (n, 2 w): token and gate
        read = _scanned(self.in_order, both, lengths)
        order = self._reordering(lengths)
        padded = torch.cat([both, both.new_zeros(1, both.shape[1])])
        shuffled = padded[sent(order, both.device)]
        again = _scanned(self.reordered, shuffled, [length + -length % self.rate for length in lengths])
        again = again[sent(order.argsort()[: len(both)], both.device)]
        mixed: Tensor = self.out((read + again).to(both.dtype))
        return mixed

    def _reordering(self, lengths: Sequence[int]) -> Tensor:
        """Return the number of the token at each place of the reordered sequences; n is a token of zeros, `(m,)`."""
        start, total, parts = 0, sum(lengths), []
        for length in lengths:
            places = pad(torch.arange(start, start + length), (0, -length % self.rate), value=total)
            parts.append(places.view(-1, self.rate).t().flatten())
            start += length
        return torch.cat(parts)

    def add_in_pieces(self, tokens: Tensor, out: Tensor) -> None:
        """Add `forward` of `(n, e)` to `out` `(n, e)`, without gradients, some tokens at a time."""
        self._add_read(self.in_order, tokens, out, self.in_order.start())
        carried = self.reordered.start()
        for at in range(self.rate):
            rows, place = tokens[at :: self.rate], out[at :: self.rate]
            carried = self._add_read(self.reordered, rows, place, carried)
            if len(rows) * self.rate < len(tokens):
                carried = self._past_padding(carried)

    def _add_read(self, space: StateSpace, tokens: Tensor, out: Tensor, carried: Carried) -> Carried:
        for rows, place in zip(blocks(tokens), blocks(out), strict=True) if len(tokens) else ():
            both = self.start(self.norm(rows))
            read, carried = space(*both.chunk(2, dim=1), carried, [len(both)])
            place += self.out(read.to(both.dtype))
        return carried

    def _past_padding(self, carried: Carried) -> Carried:
        """Return what follows the token of zeros that fills a segment of the reordered sequence."""
        zeros = self.start.weight.new_zeros(1, len(self.start.weight))
        return cast(Carried, self.reordered(*zeros.chunk(2, dim=1), carried, [1])[1])


def _scanned(space: StateSpace, both: Tensor, lengths: Sequence[int]) -> Tensor:
    token, gate = both.chunk(2, dim=1)
    return cast(Tensor, space(token, gate, space.start(len(lengths)), lengths)[0])

"""WiKG: tiles as a knowledge graph with learnt edges.

J. Li, Y. Chen, H. Chu, Q. Sun, T. Guan, A. Han, Y. He: Dynamic graph representation with knowledge-aware attention for
histopathology whole slide image analysis. CVPR 2024, arXiv:2403.07719. The authors' code is WonderLandxD/WiKG.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mil.bags import Bags
from mil.layers.dropout import Dropout
from mil.models.mil_model import MILModel, Output

SCORES = 2**24
"""Similarities held at a time: bounds memory, changes no result."""
BLOCK = 1024
"""Tiles whose neighbours are read at a time."""
KNOWLEDGE, READOUTS = ("inner", "sums"), ("attention", "mean")


class WiKG(MILModel):
    """Each tile, as a head, gathers the tails of the tiles most similar to it, by attention to tail and edge.

    The paper's knowledge-aware attention is the inner product of a neighbour's tail with tanh(head + edge). The
    authors' code has two summation indices where one was meant, so that it multiplies the sum of the one with the sum
    of the other; `knowledge="sums"` is that reading. Their code has three gate layers that nothing uses, left out here.

    Departures: a bag of fewer tiles than `neighbours` uses them all (the authors' code fails). A tile may be its own
    neighbour, as there.
    """

    paper: ClassVar[str] = "Li 2024"
    cost: ClassVar[str] = "n^2, memory n"
    in_blocks: ClassVar[bool] = True

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        embed_dim: int = 512,
        neighbours: int = 6,
        knowledge: str = "inner",
        readout: str = "attention",
        dropout: float = 0.3,
    ) -> None:
        """`knowledge` is "inner" or "sums", `readout` "attention" or "mean"; `dropout` is on updated tiles."""
        super().__init__()
        for name, value, choices in (("knowledge", knowledge, KNOWLEDGE), ("readout", readout, READOUTS)):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        self.neighbours, self.sums = neighbours, knowledge == "sums"
        self.embed = nn.Sequential(nn.Linear(in_dim, embed_dim), nn.LeakyReLU())
        self.to_head, self.to_tail = nn.Linear(embed_dim, embed_dim), nn.Linear(embed_dim, embed_dim)
        self.of_sum = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.LeakyReLU())
        self.of_product = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.LeakyReLU())
        self.dropout = Dropout(dropout)
        self.score = _score(embed_dim) if readout == "attention" else None
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, out_dim)

    def forward(self, bags: Bags) -> Output:
        """Logits `(b, c)`; attention `(n,)` is the readout's, none where that is the mean."""
        (tiles,) = bags.tilewise(lambda features: (self.embed(features),))  # (n, e)
        tiles = (tiles + bags.spread(bags.mean(tiles)).to(tiles.dtype)) / 2
        heads, tails = self.to_head(tiles), self.to_tail(tiles)
        pairs = zip(bags.split(heads), bags.split(tails), strict=True)
        gathered = torch.cat([self._gather(head, tail) for head, tail in pairs])  # (n, e)
        tiles = self.dropout(self.of_sum(heads + gathered) + self.of_product(heads * gathered))
        if self.score is None:
            embedding, attention = self.norm(bags.mean(tiles)), None
        else:
            shares = bags.softmax(self.score(tiles))  # (n, 1)
            embedding, attention = self.norm(bags.sum(tiles, weight=shares)), shares.squeeze(1)
        return Output(self.head(embedding), embedding, attention)

    def _gather(self, heads: Tensor, tails: Tensor) -> Tensor:
        """Return what the tiles of one bag `(n, e)` receive from their neighbours, `(n, e)`."""
        index = most_similar(heads, tails, min(self.neighbours, len(tails)))  # (n, k)
        blocks = zip(torch.split(heads, BLOCK), torch.split(index, BLOCK), strict=True)
        return torch.cat([self._attend(head, tails[near]) for head, near in blocks])

    def _attend(self, head: Tensor, tail: Tensor) -> Tensor:
        """Attend from heads `(n, e)` to the tails of their neighbours `(n, k, e)`, to `(n, e)`."""
        head = head.unsqueeze(1)  # (n, 1, e)
        share = ((head * tail).sum(2) / head.shape[2] ** 0.5).softmax(1).unsqueeze(2)  # (n, k, 1)
        edge = share * tail + (1 - share) * head  # (n, k, e)
        gate = (head + edge).tanh()
        weight = tail.sum(2) * gate.sum(2) if self.sums else (tail * gate).sum(2)  # (n, k)
        gathered: Tensor = (weight.softmax(1).unsqueeze(2) * tail).sum(1)
        return gathered.to(tail.dtype)


@torch.no_grad()
def most_similar(heads: Tensor, tails: Tensor, k: int) -> Tensor:
    """Return the `k` tails with the highest inner product for each head, `(n, k)`, in blocks to save memory."""
    with torch.autocast(heads.device.type, enabled=False):
        wide = torch.promote_types(heads.dtype, torch.float32)
        heads, tails = heads.to(wide), tails.to(wide)
        blocks = torch.split(heads, max(1, SCORES // len(tails)))
        return torch.cat([(block @ tails.T).topk(k, 1).indices for block in blocks])


def _score(embed_dim: int) -> nn.Sequential:
    # a bias of the last layer would fall out of the softmax
    return nn.Sequential(nn.Linear(embed_dim, embed_dim // 2), nn.LeakyReLU(), nn.Linear(embed_dim // 2, 1, bias=False))

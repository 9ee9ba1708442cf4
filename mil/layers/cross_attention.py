"""Attention of a few queries to the many tiles of their bag."""

import torch
from torch import Tensor, nn

from mil.bags import Bags


class CrossAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) of the queries of each bag to its tiles.

    The projection of the keys is applied to the queries, and that of the values to the weighted sums of tiles, so that
    tiles are not projected: with `h` heads and `q` queries a tile costs `h q` products of its width instead of two
    matrices. Keys have no bias: it would add a constant to all scores of a query, which the softmax removes.
    """

    def __init__(self, query_dim: int, tile_dim: int, embed_dim: int, heads: int) -> None:
        """`embed_dim` is the width inside and of the output, a multiple of `heads`."""
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"width {embed_dim} in {heads} heads, expected a multiple of them")
        self.heads = heads
        self.query = nn.Linear(query_dim, embed_dim)
        self.key = nn.Linear(tile_dim, embed_dim, bias=False)
        self.value = nn.Linear(tile_dim, embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, queries: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
        """Queries `(b, q, d)` to `(b, q, e)`, and the attention of each head and query to the tiles `(n, h, q)`."""
        bag, count, _ = queries.shape
        query = self.query(queries).view(bag, count, self.heads, -1)  # (b, q, h, w)
        key = self.key.weight.view(self.heads, query.shape[3], -1) / query.shape[3] ** 0.5  # (h, w, t)
        folded = torch.einsum("bqhw,hwt->bthq", query, key.to(query.dtype)).flatten(2)  # (b, t, h * q)
        scores = [rows @ query for rows, query in zip(bags.split(), folded.unbind(), strict=True)]
        attention = bags.softmax(torch.cat(scores))  # (n, h * q)
        gathered = _gathered(bags, attention).view(bag, self.heads, count, -1)  # (b, h, q, t)
        value = self.value.weight.view(self.heads, query.shape[3], -1)  # (h, w, t)
        read = torch.einsum("bhqt,hwt->bqhw", gathered, value.to(gathered.dtype)).flatten(2)  # (b, q, e)
        mixed: Tensor = self.out(read + self.value.bias)  # shares sum to one, and so the bias is added once
        return mixed, attention.view(-1, self.heads, count)


def _gathered(bags: Bags, attention: Tensor) -> Tensor:
    """Return each bag's sums of tiles, weighted by `(n, k)`, as `(b, k, t)`, at least in float32.

    One matrix product for each bag on every device: `Bags.sum` would hold every tile k times on a GPU.
    """
    with torch.autocast(attention.device.type, enabled=False):
        pairs = zip(bags.split(attention), bags.split(), strict=True)
        return torch.stack([shares.t() @ rows.to(shares.dtype) for shares, rows in pairs])

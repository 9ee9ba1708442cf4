"""Self-attention within one bag."""

from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2.2), without a bias of the keys, which has no effect.

    Memory grows with the rows, not with their square, where torch has a fused kernel.
    """

    def __init__(self, embed_dim: int, heads: int) -> None:
        """`embed_dim` is a multiple of `heads`."""
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"width {embed_dim} in {heads} heads, expected a multiple of them")
        self.heads = heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, rows: Tensor) -> Tensor:
        """`(b, n, e)` to `(b, n, e)`."""
        projections = (
            layer(rows).view(*rows.shape[:2], self.heads, -1).transpose(1, 2) for layer in self._projections()
        )
        read = nn.functional.scaled_dot_product_attention(*projections)  # (b, h, n, w)
        mixed: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return mixed

    def _projections(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.query, self.key, self.value

"""Attention scores of tiles."""

from torch import Tensor, nn

from mil.layers.dropout import Dropout


class AttentionScore(nn.Module):
    """Unnormalised attention of Ilse et al. 2018: `w tanh(V h)`, gated `w (tanh(V h) * sigmoid(U h))`."""

    def __init__(self, embed_dim: int, attention_dim: int, heads: int, gated: bool, dropout: float) -> None:
        super().__init__()
        self.gated = gated
        # V, with U below it where gated: one product reads the tiles once
        self.branches = nn.Linear(embed_dim, 2 * attention_dim if gated else attention_dim)
        # The branches are only ever multiplied: a mask in each, kept with probability k, is one mask kept with k * k.
        self.dropout = Dropout(1 - (1 - dropout) ** 2 if gated else dropout)
        # A constant added to all scores falls out of the softmax: a bias here would never receive a gradient.
        self.score = nn.Linear(attention_dim, heads, bias=False)

    def forward(self, tiles: Tensor) -> Tensor:
        """`(n, e)` to `(n, h)`; `dropout` falls on each branch."""
        if self.gated:
            value, gate = self.branches(tiles).chunk(2, dim=1)  # (n, a), (n, a)
            hidden = value.tanh() * gate.sigmoid()
        else:
            hidden = self.branches(tiles).tanh()
        scores: Tensor = self.score(self.dropout(hidden))
        return scores

"""Attention scores of tiles."""

from torch import Tensor, nn

from mil.layers.dropout import Dropout


class AttentionScore(nn.Module):
    """Unnormalised attention of Ilse et al. 2018: `w tanh(V h)`, gated `w (tanh(V h) * sigmoid(U h))`."""

    def __init__(self, embed_dim: int, attention_dim: int, heads: int, gated: bool, dropout: float) -> None:
        super().__init__()
        self.value = nn.Sequential(nn.Linear(embed_dim, attention_dim), nn.Tanh(), Dropout(dropout))
        self.gate = (
            nn.Sequential(nn.Linear(embed_dim, attention_dim), nn.Sigmoid(), Dropout(dropout)) if gated else None
        )
        # a score's constant falls out of the softmax: a bias here would never receive a gradient
        self.score = nn.Linear(attention_dim, heads, bias=False)

    def forward(self, tiles: Tensor) -> Tensor:
        """`(n, e)` to `(n, h)`."""
        value: Tensor = self.value(tiles)  # (n, a)
        if self.gate is not None:
            value = value * self.gate(tiles)
        scores: Tensor = self.score(value)
        return scores

"""Attention of every token to every token in time linear in tokens.

Y. Xiong, Z. Zeng, R. Chakraborty, M. Tan, G. Fung, Y. Li, V. Singh: Nyströmformer: a Nyström-based algorithm for
approximating self-attention. AAAI 2021, arXiv:2102.03902. The pseudo-inverse is equation (14), the attention
equation (15). Results equal those of lucidrains/nystrom-attention, the implementation that is commonly used.
"""

import torch
from torch import Tensor, nn

from mil.layers.dropout import Dropout


class NystromAttention(nn.Module):
    """`softmax(Q K~') pinv(softmax(Q~ K~')) softmax(Q~ K') V` and a depthwise convolution of V, for one bag.

    Landmarks Q~ and K~ are means over segments of tokens. The common implementation prepends tokens of zeros until all
    segments have equal length, attends to them, and includes them in the means of the first segments. With `padded`
    this layer does the same without storing them: all tokens of zeros are equal, so one token with their number as its
    weight gives the same result, and a short bag costs only its own tokens.

    Departures, both as in the common implementation: the first guess of the pseudo-inverse is divided by the largest
    norms of all heads together, and the kernel of the convolution is shared by the channels of a head.
    """

    def __init__(
        self,
        embed_dim: int,
        heads: int,
        landmarks: int,
        iterations: int = 6,
        kernel: int = 33,
        padded: bool = True,
        dropout: float = 0.1,
    ) -> None:
        """`embed_dim` is a multiple of `heads`; `kernel`, odd, the convolution's length; dropout is on the output."""
        super().__init__()
        if embed_dim % heads:
            raise ValueError(f"width {embed_dim} in {heads} heads, expected a multiple of them")
        self.heads, self.landmarks, self.iterations, self.padded = heads, landmarks, iterations, padded
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.local = nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads, bias=False)
        self.out = nn.Sequential(nn.Linear(embed_dim, embed_dim), Dropout(dropout))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(t, e)` to `(t, e)`; also return each head's weights of the first token `(h, t)`.

        The weights approximate a softmax and may be negative; those of padding are left out.
        """
        query, key, value = self.qkv(tokens).view(len(tokens), 3, self.heads, -1).permute(1, 2, 0, 3)  # (h, t, w)
        query = query / query.shape[2] ** 0.5
        segment, weight, padding = self._segments(len(tokens), query.device)
        query_marks, key_marks = (
            self._means(rows, segment, len(weight), padding) for rows in (query, key)
        )  # (h, m, w)
        many = weight.log().to(query.dtype)
        to_marks = (query @ key_marks.mT + many).softmax(2)  # (h, t, m)
        among = (query_marks @ key_marks.mT + many).softmax(2)  # (h, m, m)
        to_tokens = _softmax_with(query_marks @ key.mT, padding if self.padded else 0)  # (h, m, t)
        inverse = pseudo_inverse(among, weight, self.iterations).to(to_marks.dtype)
        mixed = to_marks @ (inverse @ (to_tokens @ value))  # (h, t, w)
        mixed = mixed + self.local(value.unsqueeze(0)).squeeze(0)
        first = to_marks[:, :1] @ inverse @ to_tokens  # (h, 1, t)
        out: Tensor = self.out(mixed.transpose(0, 1).flatten(1))
        return out, first.squeeze(1)

    def _segments(self, tokens: int, device: torch.device) -> tuple[Tensor, Tensor, int]:
        """Return each token's landmark `(t,)`, the size of each landmark `(m,)`, and the number of padding tokens."""
        length = -(-tokens // self.landmarks)
        padding = self.landmarks * length - tokens
        empty = padding // length  # landmarks of nothing but padding
        alike = int(self.padded and empty > 0)
        segment = (torch.arange(tokens, device=device) + padding) // length - empty + alike
        weight = torch.ones(self.landmarks - empty + alike, device=device)
        weight[:alike] = empty
        return segment, weight, padding

    def _means(self, rows: Tensor, segment: Tensor, marks: int, padding: int) -> Tensor:
        """Return means of `(h, t, w)` over segments of tokens, including padding where `padded`."""
        counts = segment.new_zeros(marks).index_add(0, segment, torch.ones_like(segment)).clamp_min(1)
        if self.padded:
            counts = torch.full_like(counts, -(-len(segment) // self.landmarks))
        sums = rows.new_zeros(rows.shape[0], marks, rows.shape[2]).index_add(1, segment, rows)
        return sums / counts.unsqueeze(1).to(rows.dtype)


def pseudo_inverse(matrix: Tensor, weight: Tensor, iterations: int) -> Tensor:
    """Return the Moore-Penrose inverse of positive matrices `(h, m, m)`, at least in float32; equation (14).

    `weight` `(m,)` is the number of equal rows and columns that each row and column stands for: a column holds their
    sum, a row one of them, both in the matrix and in its inverse.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        matrix = matrix.float() if matrix.dtype in (torch.float16, torch.bfloat16) else matrix
        weight = weight.to(matrix.dtype)
        transposed = matrix.mT * weight / weight.unsqueeze(1)
        inverse = transposed / (matrix.sum(2).max() * transposed.sum(2).max())
        identity = torch.eye(len(weight), dtype=matrix.dtype, device=matrix.device)
        for _ in range(iterations):
            product = matrix @ inverse
            inner = torch.baddbmm(15 * identity, product, 7 * identity - product, alpha=-1)
            inverse = inverse @ torch.baddbmm(13 * identity, product, inner, alpha=-1) / 4
        return inverse


def _softmax_with(scores: Tensor, others: int) -> Tensor:
    """Return the softmax of `(..., t)` over its entries and `others` further entries of zero, without the latter."""
    if not others:
        return scores.softmax(-1)
    zero = torch.full_like(scores[..., :1], others).log()
    return torch.cat([scores, zero], -1).softmax(-1)[..., :-1]

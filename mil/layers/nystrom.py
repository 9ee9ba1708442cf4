"""Attention of every token to every token in time linear in tokens.

Y. Xiong, Z. Zeng, R. Chakraborty, M. Tan, G. Fung, Y. Li, V. Singh: Nyströmformer: a Nyström-based algorithm for
approximating self-attention. AAAI 2021, arXiv:2102.03902. The pseudo-inverse is equation (14), the attention
equation (15). Results equal those of lucidrains/nystrom-attention, the implementation that is commonly used.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from mil import tile_rows
from mil.layers.dropout import Dropout
from mil.tile_rows import Reader


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
        query, key, value = self.split(tokens)  # (h, t, w)
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
        sums = rows.new_zeros(rows.shape[0], marks, rows.shape[2]).index_add(1, segment, rows)
        return sums / self._counts(segment, marks).unsqueeze(1).to(rows.dtype)

    def _counts(self, segment: Tensor, marks: int) -> Tensor:
        """Return by how many tokens the sums over segments are divided, `(m,)`."""
        counts = segment.new_zeros(marks).index_add(0, segment, torch.ones_like(segment)).clamp_min(1)
        return torch.full_like(counts, -(-len(segment) // self.landmarks)) if self.padded else counts

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scaled queries, keys and values of tokens `(t, e)`, `(h, t, w)` each."""
        query, key, value = self.qkv(tokens).view(len(tokens), 3, self.heads, -1).permute(1, 2, 0, 3)
        return query / query.shape[2] ** 0.5, key, value


class NystromInPieces:
    """The attention of tokens that are computed when they are read, without gradients.

    Only means and sums of landmarks are held, `(h, m, w)`. The softmax over tokens is that of M. Milakov, N.
    Gimelshein: Online normalizer calculation for softmax. 2018, arXiv:1805.02867.
    """

    def __init__(self, attend: NystromAttention, tokens: Reader, count: int) -> None:
        """Read all `count` tokens twice; `tokens` returns those from a first up to a last one, `(r, e)`."""
        self.attend, self.tokens, self.count = attend, tokens, count
        segment, weight, self.padding = attend._segments(count, attend.qkv.weight.device)
        self.query_marks, self.key_marks = self._marks(segment, len(weight))
        self.many = weight.log().to(self.key_marks.dtype)
        among = (self.query_marks @ self.key_marks.mT + self.many).softmax(2)
        self.inverse = pseudo_inverse(among, weight, attend.iterations).to(among.dtype)
        self.most, self.total, read = self._read_by_marks()
        self.mixed = self.inverse @ (read / self.total).to(among.dtype)  # (h, m, w)

    def around(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first and the last of the tokens on which depends what some of them read."""
        half = self.attend.local.kernel_size[0] // 2
        return max(0, start - half), min(self.count, stop + half)

    def read(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """Return what some tokens read, `(r, e)`, from the tokens `around` them."""
        half, (first, last) = self.attend.local.kernel_size[0] // 2, self.around(start, stop)
        query, _, value = self.attend.split(tokens)
        query = query[:, start - first : stop - first]
        around = pad(value, (0, 0, half - (start - first), half - (last - stop)))
        near = conv2d(around.unsqueeze(0), self.attend.local.weight, groups=self.attend.heads).squeeze(0)
        mixed = (query @ self.key_marks.mT + self.many).softmax(2) @ self.mixed + near
        out: Tensor = self.attend.out(mixed.transpose(0, 1).flatten(1))
        return out

    def first(self) -> Tensor:
        """Return each head's weights of the first token `(h, t)`, in one more pass."""
        query, _, _ = self.attend.split(self.tokens(0, 1))
        share = (query @ self.key_marks.mT + self.many).softmax(2) @ self.inverse  # (h, 1, m)
        pieces = []
        for _, (_, key, _) in self._pieces():
            scores = ((self.query_marks @ key.mT).double() - self.most).exp() / self.total  # (h, m, r)
            pieces.append((share @ scores.to(share.dtype)).squeeze(1))
        return torch.cat(pieces, 1)

    def _pieces(self) -> Iterator[tuple[slice, tuple[Tensor, Tensor, Tensor]]]:
        for start in range(0, self.count, tile_rows.READ_ROWS):
            stop = min(start + tile_rows.READ_ROWS, self.count)
            yield slice(start, stop), self.attend.split(self.tokens(start, stop))

    def _marks(self, segment: Tensor, marks: int) -> tuple[Tensor, Tensor]:
        """Return the landmarks of queries and keys, `(h, m, w)`."""
        heads, width = self.attend.heads, self.attend.qkv.in_features // self.attend.heads
        sums = torch.zeros(2, heads, marks, width, dtype=torch.float64, device=segment.device)
        for rows, (query, key, _) in self._pieces():
            sums.index_add_(2, segment[rows], torch.stack([query, key]).double())
            dtype = key.dtype
        query_marks, key_marks = (sums / self.attend._counts(segment, marks).unsqueeze(1)).to(dtype).unbind()
        return query_marks, key_marks

    def _read_by_marks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return of each landmark's scores the largest and the sum of exponentials, `(h, m, 1)`, and what it reads."""
        most = self.query_marks.new_zeros((*self.query_marks.shape[:2], 1), dtype=torch.float64)
        total, read = torch.zeros_like(most), torch.zeros_like(self.query_marks, dtype=torch.float64)
        if self.attend.padded:
            total += self.padding  # tokens of zeros have the score 0
        else:
            most -= torch.inf
        for _, (_, key, value) in self._pieces():
            scores = (self.query_marks @ key.mT).double()  # (h, m, r)
            larger = torch.maximum(most, scores.amax(2, keepdim=True))
            shares, before = (scores - larger).exp(), (most - larger).exp()
            total = before * total + shares.sum(2, keepdim=True)
            read = before * read + (shares.to(value.dtype) @ value).double()
            most = larger
        return most, total, read


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

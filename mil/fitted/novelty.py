"""Slides unlike those of training: too few tiles, or features that lie too far from all that training slides showed.

A bag is judged by its own tiles: their number, and the mean of their features, `(d,)`. Means are standardised by
channel. Their distance from the training bags' has two parts, as in the monitoring of processes (Jackson & Mudholkar,
Technometrics 21, 1979): within the first principal components, `T²`, and the squared residual beside them, `Q`. Both
are put on one scale, standard deviations of the logarithm, by training bags that were left out of the fit in turn; the
larger one counts.

The limit is an order statistic of the distances of select bags, which the fit has not seen: of n bags like those of
training and one more, the last lies beyond the limit with a chance of `1 - quantile` (a conformal p-value; Bates et
al., Annals of Statistics 51, 2023). Too few select bags for that rank are joined by the left-out training bags; where
these are too few as well the limit is the largest distance, and more is withheld than asked: `expected` says how much.
The limit of tiles, where it is not stated beforehand, adds as much again.

What is flagged is what training did not show, wrong or not: a hospital with another stain or scanner may be flagged
nearly always. A mean hides what only a few tiles have: a pen mark or a fold passes. Its noise grows as tiles get
fewer, so that small bags are flagged somewhat more often than large ones.
"""

import base64
import math
from fractions import Fraction
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from mil.fitted.options import NoveltyOptions

Floats = NDArray[np.float64]
COMPONENTS, PER_COMPONENT, PARTS = 16, 5, 5
"""At most, training bags for each, and parts of the training bags that are left out in turn."""
LEAST_BAGS = 2 * PARTS
"""Training bags below which features are not judged."""
_TINY = 1e-12


class Space(NamedTuple):
    """Where training means lie."""

    mean: Floats
    """`(d,)`"""
    scale: Floats
    """`(d,)`"""
    basis: Floats
    """principal directions of standardised means, `(k, d)`"""
    variance: Floats
    """along them, `(k,)`"""

    def parts(self, means: Floats) -> Floats:
        """Logarithms of `T² / k` and of `Q / d`, `(b, 2)`."""
        away = (means - self.mean) / self.scale  # (b, d)
        along = away @ self.basis.T  # (b, k)
        within = (along**2 / self.variance).mean(1)
        beside = np.maximum((away**2).sum(1) - (along**2).sum(1), 0) / away.shape[1]
        return np.asarray(np.log(np.maximum(np.stack([within, beside], 1), _TINY)))


def _decoded(said: str) -> str:
    """Refuses what is no list of finite single-precision numbers."""
    if not np.isfinite(_unpacked(said)).all():
        raise ValueError("numbers that are not finite")
    return said


Packed = Annotated[str, AfterValidator(_decoded)]
"""Single-precision numbers, little-endian, in base64: 16 components of 1,536 channels take 150 kB of a manifest."""


class Reference(BaseModel):
    """Where training means lie and how far is too far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int
    mean: Packed
    scale: Packed
    basis: Packed
    variance: Packed
    middle: tuple[float, float]
    """of the two parts' logarithms over left-out training bags"""
    spread: tuple[float, float]
    cut: float
    n: int
    """bags the cut comes from"""
    on: str
    """whose they are"""
    expected: float
    """share of bags like those of training that lie beyond"""

    @model_validator(mode="after")
    def _sized(self) -> "Reference":
        space = self.space()
        amounts = (len(space.mean), len(space.scale), space.basis.shape)
        if self.dim < 1 or amounts != (self.dim, self.dim, (len(space.variance), self.dim)):
            raise ValueError(f"mean, scale and basis of {amounts}, expected {self.dim} channels")
        if min(*self.spread, *space.scale, *space.variance) <= 0:
            raise ValueError("a scale that is not positive")
        return self

    def space(self) -> Space:
        """Unpacked."""
        mean, scale, basis, variance = map(_unpacked, (self.mean, self.scale, self.basis, self.variance))
        return Space(mean, scale, basis.reshape(len(variance), -1), variance)

    def distance(self, means: Floats) -> Floats:
        """Of bags' mean features `(b, d)`, `(b,)`: the larger part in standard deviations of left-out bags."""
        return _distance(self.space(), means, self.middle, self.spread)


class Novelty(BaseModel):
    """What withholds a result, fitted and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_tiles: int
    min_tiles_on: str
    """`train`, or `stated beforehand`"""
    train: int
    """bags"""
    features: Reference | None
    """none where features were not given, or of too few bags"""

    def judge(self, means: Floats | None, tiles: int) -> str | None:
        """Why a bag with these mean features `(d,)` and so many tiles gets no result, as one sentence; none if it does.

        Raises:
            ValueError: features of another width.
        """
        if tiles < self.min_tiles:
            return f"It has {tiles} tiles, and the tool needs {self.min_tiles} or more."
        if means is None or self.features is None:
            return None
        if len(means) != self.features.dim:
            raise ValueError(f"mean features of width {len(means)}, expected {self.features.dim}")
        if not np.isfinite(means).all():
            return "The mean of its features is not finite."
        if np.ptp(means) == 0:
            return f"The mean of its features is {means[0] + 0.0:g} in every channel: no tissue was encoded."
        found, known = float(self.features.distance(np.asarray(means, np.float64)[None])[0]), self.features
        if found <= known.cut:
            return None
        return (
            f"Its features are too far from those of the {self.train} training bags: {found:.2f} standard deviations "
            f"beyond their usual distance, where {known.expected:.1%} of bags like them lie beyond {known.cut:.2f}."
        )


def fit(
    options: NoveltyOptions, tiles: NDArray[np.int64], train: Floats | None = None, select: Floats | None = None
) -> Novelty:
    """From bags of training patients, with the limit from those of select patients.

    Args:
        options: As the tool states them.
        tiles: Of each training bag, `(b,)`.
        train: Mean features of the training bags, `(b, d)`; none judges the tiles alone.
        select: Those of the select bags, `(s, d)`; none where there are none.
    """
    shown = max(1, int(np.quantile(tiles, 1 - options.quantile, method="lower")))
    fixed = options.min_tiles is not None
    least, on = (options.min_tiles or 1, "stated beforehand") if fixed else (shown, "train")
    judged = train is not None and len(train) >= LEAST_BAGS
    features = _reference(train, select, options.quantile) if judged and train is not None else None
    return Novelty(min_tiles=least, min_tiles_on=on, train=len(tiles), features=features)


def _reference(train: Floats, select: Floats | None, quantile: float) -> Reference:
    train = np.asarray(train, np.float64)
    left_out = _left_out(train)
    middle, spread = left_out.mean(0), np.maximum(left_out.std(0), 1e-6)
    space = _space(train)
    scaled = (tuple(middle.tolist()), tuple(spread.tolist()))
    own = _distance(space, np.asarray(select, np.float64), *scaled) if select is not None else np.zeros(0)
    share, on = Fraction(str(quantile)), "select"
    if _rank(len(own), share) > len(own):
        on = "select and left-out train" if len(own) else "left-out train"
        own = np.concatenate([own, ((left_out - middle) / spread).max(1)])
    rank = min(_rank(len(own), share), len(own))
    return Reference(
        dim=train.shape[1],
        mean=_packed(space.mean),
        scale=_packed(space.scale),
        basis=_packed(space.basis),
        variance=_packed(space.variance),
        middle=scaled[0],
        spread=scaled[1],
        cut=float(np.sort(own)[rank - 1]),
        n=len(own),
        on=on,
        expected=(len(own) + 1 - rank) / (len(own) + 1),
    )


def _rank(amount: int, share: Fraction) -> int:
    return math.ceil((amount + 1) * share)


def _space(means: Floats) -> Space:
    """Rounded as it will be kept, so that the limit is that of the distances to come."""
    components = max(1, min(COMPONENTS, len(means) // PER_COMPONENT, means.shape[1] // 2))
    mean, scale = _kept(means.mean(0)), means.std(0)
    scale = _kept(np.maximum(scale, max(1e-3 * float(np.median(scale)), 1e-6)))  # a constant channel has no scale
    _, singular, rows = np.linalg.svd((means - mean) / scale, full_matrices=False)
    variance = np.maximum(singular[:components] ** 2 / (len(means) - 1), _TINY)
    return Space(mean, scale, _kept(rows[:components]), _kept(variance))


def _left_out(means: Floats) -> Floats:
    """The two parts of each bag's distance from the bags of the other parts, `(b, 2)`."""
    turn = np.random.default_rng(0).permutation(len(means)) % PARTS  # tables are often sorted by site
    found = np.empty((len(means), 2))
    for part in range(PARTS):
        found[turn == part] = _space(means[turn != part]).parts(means[turn == part])
    return found


def _distance(space: Space, means: Floats, middle: tuple[float, ...], spread: tuple[float, ...]) -> Floats:
    return np.asarray(((space.parts(means) - np.array(middle)) / np.array(spread)).max(1))


def _kept(values: Floats) -> Floats:
    return np.asarray(values, "<f4").astype(np.float64)


def _packed(values: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")


def _unpacked(said: str) -> Floats:
    return np.frombuffer(base64.b64decode(said, validate=True), "<f4").astype(np.float64)

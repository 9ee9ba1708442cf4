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
    """The space of mean features of training bags."""

    mean: Floats
    """`(d,)`"""
    scale: Floats
    """`(d,)`"""
    basis: Floats
    """principal directions of standardised means, `(k, d)`"""
    variance: Floats
    """along the principal directions, `(k,)`"""

    def log_distances(self, means: Floats) -> Floats:
        """Return the logarithms of `T² / k` and of `Q / d`, `(b, 2)`."""
        standardised = (means - self.mean) / self.scale  # (b, d)
        along = standardised @ self.basis.T  # (b, k)
        within = (along**2 / self.variance).mean(1)
        residual = np.maximum((standardised**2).sum(1) - (along**2).sum(1), 0) / standardised.shape[1]
        return np.asarray(np.log(np.maximum(np.stack([within, residual], 1), _TINY)))


def _check_packed(text: str) -> str:
    """Check that a text holds finite single-precision numbers."""
    if not np.isfinite(unpacked(text)).all():
        raise ValueError("numbers that are not finite")
    return text


Packed = Annotated[str, AfterValidator(_check_packed)]
"""Single-precision numbers, little-endian, in base64: 16 components of 1,536 channels take 150 kB of a manifest."""


class Reference(BaseModel):
    """The space of training bags, and the distance from which a bag is too far from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int
    mean: Packed
    scale: Packed
    basis: Packed
    variance: Packed
    middle: tuple[float, float]
    """mean of the two log distances over left-out training bags"""
    spread: tuple[float, float]
    """their standard deviation"""
    cut: float
    n: int
    """bags that set the cut"""
    on: str
    """role of their patients"""
    expected: float
    """share of bags like those of training that lie beyond the cut"""

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
        """Return the space, unpacked."""
        mean, scale, basis, variance = map(unpacked, (self.mean, self.scale, self.basis, self.variance))
        return Space(mean, scale, basis.reshape(len(variance), -1), variance)

    def distance(self, means: Floats) -> Floats:
        """Return the distance of bags by their mean features `(b, d)`, `(b,)`, in standard deviations of left-out bags.

        It is the larger of the two log distances.
        """
        return _distance(self.space(), means, self.middle, self.spread)


class Novelty(BaseModel):
    """The fitted limits beyond which a result is withheld."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_tiles: int
    min_tiles_on: str
    """`train`, or `stated beforehand`"""
    train: int
    """number of training bags"""
    features: Reference | None
    """None where features were not given, or of too few bags"""

    def judge(self, means: Floats | None, tiles: int) -> str | None:
        """Return in one sentence why a bag gets no result, by its mean features `(d,)` and tiles; None if it gets one.

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
        distance, limit = float(self.features.distance(np.asarray(means, np.float64)[None])[0]), self.features.cut
        if distance <= limit:
            return None
        return (
            f"Its features are too far from those of the {self.train} training bags: {distance:.2f} "
            f"standard deviations beyond their usual distance, where {self.features.expected:.1%} of bags like them "
            f"lie beyond {limit:.2f}."
        )


def fit(
    options: NoveltyOptions, tiles: NDArray[np.int64], train: Floats | None = None, select: Floats | None = None
) -> Novelty:
    """Fit the limits to the bags of training patients, with the distance limit from those of select patients.

    Args:
        options: As the tool states them.
        tiles: Number of tiles of each training bag, `(b,)`.
        train: Mean features of the training bags, `(b, d)`; None judges the number of tiles alone.
        select: Mean features of the select bags, `(s, d)`; None where there are none.
    """
    min_tiles, on = options.min_tiles, "stated beforehand"
    if min_tiles is None:
        min_tiles, on = max(1, int(np.quantile(tiles, 1 - options.quantile, method="lower"))), "train"
    features = None
    if train is not None and len(train) >= LEAST_BAGS:
        features = _reference(train, select, options.quantile)
    return Novelty(min_tiles=min_tiles, min_tiles_on=on, train=len(tiles), features=features)


def _reference(train: Floats, select: Floats | None, quantile: float) -> Reference:
    train = np.asarray(train, np.float64)
    left_out = _left_out(train)
    middle, spread = left_out.mean(0), np.maximum(left_out.std(0), 1e-6)
    space = _space(train)
    scaled = (tuple(middle.tolist()), tuple(spread.tolist()))
    distances = np.zeros(0) if select is None else _distance(space, np.asarray(select, np.float64), *scaled)
    on = "select"
    if not suffices(len(distances), quantile):
        on = "select and left-out train" if len(distances) else "left-out train"
        distances = np.concatenate([distances, ((left_out - middle) / spread).max(1)])
    return reference_of(space, middle, spread, distances, on, quantile)


def _rank(bags: int, share: Fraction) -> int:
    return math.ceil((bags + 1) * share)


def _space(means: Floats) -> Space:
    """Return the space of these bags, rounded as it is stored, so that the limit fits the distances computed later."""
    components = _components(len(means), means.shape[1])
    mean, scale = _single(means.mean(0)), _scale(means.std(0))
    _, singular, rows = np.linalg.svd((means - mean) / scale, full_matrices=False)
    variance = np.maximum(singular[:components] ** 2 / (len(means) - 1), _TINY)
    return Space(mean, scale, _single(rows[:components]), _single(variance))


def space_of_moments(bags: int, mean: Floats, covariance: Floats) -> Space:
    """Return the space of bags that are known by their moments alone, as `fit` has it for bags in one place.

    Args:
        bags: Number of bags, b.
        mean: Of their mean features, `(d,)`.
        covariance: With divisor b, `(d, d)`.
    """
    components, scale = _components(bags, len(mean)), _scale(np.sqrt(np.maximum(np.diag(covariance), 0)))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    chosen = np.argsort(-values)[:components]
    variance = np.maximum(values[chosen] * bags / max(bags - 1, 1), _TINY)
    return Space(_single(mean), scale, _single(vectors[:, chosen].T), _single(variance))


def reference_of(
    space: Space, middle: Floats, spread: Floats, distances: Floats, on: str, quantile: float
) -> Reference:
    """Return the reference of a space whose limit is an order statistic of distances.

    Args:
        space: Of the training bags.
        middle: Mean of the two log distances over left-out training bags, `(2,)`.
        spread: Their standard deviation, `(2,)`.
        distances: Of the bags that set the limit, `(s,)`.
        on: Role of their patients.
        quantile: Of the limit.
    """
    rank = min(_rank(len(distances), Fraction(str(quantile))), len(distances))
    return Reference(
        dim=len(space.mean),
        mean=packed(space.mean),
        scale=packed(space.scale),
        basis=packed(space.basis),
        variance=packed(space.variance),
        middle=(float(middle[0]), float(middle[1])),
        spread=(float(spread[0]), float(spread[1])),
        cut=float(np.sort(distances)[rank - 1]),
        n=len(distances),
        on=on,
        expected=(len(distances) + 1 - rank) / (len(distances) + 1),
    )


def suffices(bags: int, quantile: float) -> bool:
    """Return whether so many select bags have the rank of the limit among them."""
    return _rank(bags, Fraction(str(quantile))) <= bags


def _components(bags: int, width: int) -> int:
    return max(1, min(COMPONENTS, bags // PER_COMPONENT, width // 2))


def _scale(spread: Floats) -> Floats:
    # a constant channel has no scale
    return _single(np.maximum(spread, max(1e-3 * float(np.median(spread)), 1e-6)))


def _left_out(means: Floats) -> Floats:
    """Return the log distances of each bag from the bags of the other parts, `(b, 2)`."""
    turn = np.random.default_rng(0).permutation(len(means)) % PARTS  # tables are often sorted by site
    distances = np.empty((len(means), 2))
    for part in range(PARTS):
        distances[turn == part] = _space(means[turn != part]).log_distances(means[turn == part])
    return distances


def _distance(space: Space, means: Floats, middle: tuple[float, ...], spread: tuple[float, ...]) -> Floats:
    return np.asarray(((space.log_distances(means) - np.array(middle)) / np.array(spread)).max(1))


def _single(values: Floats) -> Floats:
    return np.asarray(values, "<f4").astype(np.float64)


def packed(values: Floats) -> str:
    """Return numbers as text: single precision, little-endian, in base64."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> Floats:
    """Return the numbers that `packed` made a text of, flat."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)

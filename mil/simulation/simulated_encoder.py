"""Simulated features: phenotypes as clusters on a curved low-rank manifold, shifted by site and scanner.

The simulated encoder depends only on the width; sites and scanners depend on the seed of the cohort.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mil.simulation.tissue import PHENOTYPES

Floats = NDArray[np.float32]

# Tuned so that a gated ABMIL, cross-validated on 200 patients, comes within 0.05 of a perfect reader, and for classes
# above mean pooling. Larger features are learnt faster and then by heart: 45 events bear few steps. Distances are in
# standard deviations within a cluster.
_RANK, _BENDS = 16, 8
_DISTANCE = 2.8  # of a phenotype from the origin
_SEPARATION = 7.0  # of a biomarker phenotype from tumour
_PATIENT = 0.15  # of a patient's tumour, along each axis of the manifold
_SCALE = 0.18  # of the manifold in feature units
_NOISE = 0.2  # of each feature, beside the manifold
_SHIFTS = {
    "site": (0.15, 0.03, 0.03),
    "scanner": (0.15, 0.03, 0.05),
    "slide": (0.1, 0.02, 0.03),
}  # axes, features, gain


@dataclass(frozen=True)
class Encoder:
    """Map from phenotypes to features of width `d`, with `m` axes of the manifold and `r` bends."""

    centres: Floats
    """Of each phenotype, `(phenotypes, m)`."""
    within: Floats
    """Of each phenotype, the linear map of white noise to its covariance, `(phenotypes, m, m)`."""
    bends: Floats
    """`(m, r)`"""
    out: Floats
    """`(m + r, d)`"""

    @property
    def width(self) -> int:
        return int(self.out.shape[1])


@dataclass(frozen=True)
class Shift:
    """The technical part of a slide's features."""

    axes: Floats
    """Along the manifold's axes, `(m,)`."""
    features: Floats
    """`(d,)`"""
    gain: float


def encoder(width: int, biomarkers: int, contrast: float = 1.0, number: int = 0) -> Encoder:
    """Return the simulated encoder of a width; each biomarker phenotype lies near tumour, in a separate direction.

    `contrast` multiplies the distances between phenotypes; each `number` is an encoder of its own.
    """
    rank = min(_RANK, width)
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(width, number) if number else (width,)))
    centres = contrast * _DISTANCE * _directions(len(PHENOTYPES), rank, rng)
    within = np.eye(rank) + 0.6 * rng.standard_normal((len(PHENOTYPES), rank, rank)) / np.sqrt(rank)
    bends = rng.standard_normal((rank, _BENDS)) / np.sqrt(rank)
    out = _SCALE * rng.standard_normal((rank + _BENDS, width)) / np.sqrt(rank)
    carrying = centres[0] + contrast * _SEPARATION * _directions(biomarkers, rank, rng)
    return Encoder(
        np.vstack([centres, carrying]).astype(np.float32),
        np.concatenate([within, np.repeat(within[:1], biomarkers, axis=0)]).astype(np.float32),
        bends.astype(np.float32),
        out.astype(np.float32),
    )


def shift_of(encoder: Encoder, source: str, rng: np.random.Generator) -> Shift:
    """Return how the stain of a `site`, its `scanner` or the preparation of one `slide` shifts every tile."""
    axes, features, gain = _SHIFTS[source]
    return Shift(
        np.asarray(axes * rng.standard_normal(encoder.centres.shape[1]), dtype=np.float32),
        np.asarray(features * rng.standard_normal(encoder.width), dtype=np.float32),
        float(np.exp(gain * rng.standard_normal())),
    )


def patient_shift(encoder: Encoder, rng: np.random.Generator) -> Floats:
    """Return the shift of one patient's tumour along the axes of the manifold, `(m,)`."""
    return np.asarray(_PATIENT * rng.standard_normal(encoder.centres.shape[1]), dtype=np.float32)


def encode(
    encoder: Encoder, phenotype: NDArray[np.int64], tumour: Floats, shifts: list[Shift], rng: np.random.Generator
) -> Floats:
    """Return features `(n, d)` of tiles of given phenotypes `(n,)`; `tumour (m,)` shifts those of tumour.

    Sums use einsum, because the result of BLAS may depend on the number of threads.
    """
    white = rng.standard_normal((len(phenotype), encoder.centres.shape[1]), dtype=np.float32)
    place = encoder.centres[phenotype]  # (n, m)
    for k in np.unique(phenotype):
        mine = phenotype == k
        place[mine] += np.einsum("nm,mk->nk", white[mine], encoder.within[k])
    place[(phenotype == 0) | (phenotype >= len(PHENOTYPES))] += tumour
    place += np.sum([shift.axes for shift in shifts], axis=0)
    bent = np.tanh(np.einsum("nm,mr->nr", place, encoder.bends))
    features = _NOISE * rng.standard_normal((len(phenotype), encoder.width), dtype=np.float32)
    features += np.einsum("nm,md->nd", np.hstack([place, 2 * bent]), encoder.out)
    features *= np.float32(np.prod([shift.gain for shift in shifts]))
    features += np.sum([shift.features for shift in shifts], axis=0)
    return features


def _directions(count: int, rank: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw random unit vectors, `(count, rank)`."""
    draw = rng.standard_normal((count, rank))
    return np.asarray(draw / np.linalg.norm(draw, axis=1, keepdims=True))

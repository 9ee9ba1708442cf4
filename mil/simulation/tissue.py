"""Tissue on simulated slides: contiguous regions from smoothed random fields."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]

PHENOTYPES = ("tumour", "normal epithelium", "stroma", "lymphocytes", "necrosis", "mucin", "muscle", "artefact")
"""Of tumour, the part without a biomarker; phenotypes that carry one are counted from here on."""

_COMMON = np.log([0.22, 0.27, 0.13, 0.06, 0.11, 0.17, 0.04])
"""How common what is not tumour is, in logarithms."""

_GRAIN = {"regional": 0.08, "diffuse": 0.0, "sparse": 0.015}
"""Width of the biomarker's regions by signal, as a share of the slide's side."""

SIGNALS = tuple(_GRAIN)


@dataclass(frozen=True)
class Tissue:
    """The tiles of one slide, row by row of its grid."""

    cells: NDArray[np.int64]
    """Column and row on the grid, `(n, 2)`."""
    phenotype: NDArray[np.int64]
    """Index into PHENOTYPES, `(n,)`."""
    affinity: Floats
    """How early a tile comes to carry the biomarker as its share grows, `(n,)`."""


def grow(tiles: int, tumour: float, signal: str, rng: np.random.Generator) -> Tissue:
    """Draw a slide with a given number of tiles and share of tumour."""
    side = int(np.ceil(np.sqrt(tiles / 0.5)))
    mask = _outline(tiles, side, rng)
    phenotype = _regions(mask, tumour, rng)
    affinity = _fields(1, side, _GRAIN[signal] * side, rng)[0][mask]
    rows, columns = np.nonzero(mask)
    return Tissue(np.column_stack([columns, rows]), phenotype, affinity)


def infiltrate(slides: list[Tissue], shares: Floats, signal: str) -> list[NDArray[np.int64]]:
    """Return each slide's phenotypes, with the shares of the biomarkers `(k,)` of a patient realised over the slides.

    The share is one of the tumour tiles, from 2% to 95%; of all tiles, from 0.2% to 5%, where the signal is sparse.
    Tumour tiles of the highest affinity carry a biomarker; several biomarkers divide them in the order of affinity.
    """
    phenotype = np.concatenate([slide.phenotype for slide in slides])
    affinity = np.concatenate([slide.affinity for slide in slides])
    tumour = np.flatnonzero(phenotype == 0)
    chosen = tumour[np.argsort(-affinity[tumour], kind="stable")]
    ends = np.cumsum(carriers(shares, len(tumour), len(phenotype), signal))
    for k, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        phenotype[chosen[start:end]] = len(PHENOTYPES) + k
    return np.split(phenotype, np.cumsum([len(slide.phenotype) for slide in slides])[:-1])


def carriers(shares: Floats, tumour: int, tiles: int, signal: str) -> NDArray[np.int64]:
    """Return the number of a patient's tumour tiles that carry each biomarker, `(k,)`."""
    low, high, base = (0.002, 0.05, tiles) if signal == "sparse" else (0.02, 0.95, tumour)
    together = float(shares.sum())
    least, most = max(1, int(np.ceil(low * base))), min(tumour, max(1, int(high * base)))
    share = shares / together * (low + (high - low) * together) * base
    ends = np.round(np.cumsum(share))
    ends[-1] = max(ends[-1], least)
    return np.diff(np.minimum(ends, most), prepend=0).astype(np.int64)


def realised(phenotype: NDArray[np.int64], biomarkers: int, signal: str) -> tuple[Floats, float]:
    """Return the shares of the biomarkers `(k,)` of tumour (of all tiles if sparse), and their share of all tiles."""
    counts = np.bincount(phenotype, minlength=len(PHENOTYPES) + biomarkers)
    positive = counts[len(PHENOTYPES) :]
    base = len(phenotype) if signal == "sparse" else positive.sum() + counts[0]
    return positive / base, float(positive.sum() / len(phenotype))


def _outline(tiles: int, side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw a region of exactly `tiles` cells, near the middle and with a ragged border."""
    axis = np.linspace(-1, 1, side)
    height = 0.5 * _fields(1, side, side / 8, rng)[0] - 2 * (axis[:, None] ** 2 + axis**2)
    mask = np.zeros(side * side, dtype=bool)
    mask[np.argsort(-height, axis=None, kind="stable")[:tiles]] = True
    return mask.reshape(side, side)


def _regions(mask: NDArray[np.bool_], tumour: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the phenotype of every tile `(n,)`: tumour where its field is highest, else that of the highest field."""
    side = len(mask)
    fields = _fields(len(PHENOTYPES), side, side / 12, rng)[:, mask]  # (phenotypes, n)
    preference = 0.8 * _COMMON + 0.4 * rng.standard_normal(len(_COMMON))
    phenotype: NDArray[np.int64] = 1 + np.argmax(fields[1:] + preference[:, None], axis=0)
    order = np.argsort(-fields[0], kind="stable")
    phenotype[order[: round(tumour * len(order))]] = 0
    return phenotype


def _fields(count: int, side: int, grain: float, rng: np.random.Generator) -> Floats:
    """Draw smoothed random fields of unit variance, `(count, side, side)`."""
    noise = rng.standard_normal((count, side, side))
    smooth = gaussian_filter(noise, sigma=(0, grain, grain), mode="reflect")
    return np.asarray(smooth / smooth.std(axis=(1, 2), keepdims=True))

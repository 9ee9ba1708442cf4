"""Stratified random numbers, so that a small cohort has nearly the distribution of a large one."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

Floats = NDArray[np.float64]
Draws = np.random.Generator

NOISE = 0.3
"""What of a patient's biology its slides do not show, in standard deviations of the severity."""
SPREAD = float(np.hypot(1.0, NOISE))
"""Standard deviation of what the tiles show."""


def stratified(rows: int, columns: int, rng: np.random.Generator) -> Floats:
    """Return numbers in (0, 1), `(rows, columns)`, that fill the cube evenly.

    Each column has one number in each of `rows` equal strata, and columns are nearly uncorrelated. Rows are in random
    order.

    Source: the Kronecker sequence of the generalised golden ratio, randomly shifted (Roberts 2018).
    """
    golden = float(brentq(lambda x: x ** (columns + 1) - x - 1, 1.0, 2.0))
    step = golden ** -np.arange(1.0, columns + 1)
    lattice = (rng.random(columns) + np.arange(rows)[:, None] * step) % 1.0  # (rows, columns)
    ranks = lattice.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    spread: Floats = (ranks + rng.random((rows, columns))) / rows
    return rng.permutation(np.clip(spread, 1e-9, 1 - 1e-9), axis=0)


def label_draw(prevalence: Floats, patients: int, rng: Draws) -> NDArray[np.int64]:
    """Return labels `(p,)` in random order, each class with its share and at least once."""
    counts = np.maximum(np.floor(prevalence * patients).astype(np.int64), 1)
    while counts.sum() < patients:
        counts[np.argmax(prevalence * patients - counts)] += 1
    while counts.sum() > patients:
        counts[np.argmax(counts - prevalence * patients)] -= 1
    return rng.permutation(np.repeat(np.arange(len(counts)), counts))


def latents(means: Floats, label: NDArray[np.int64], rng: Draws) -> tuple[Floats, Floats]:
    """What tiles show and severity, `(p, k)` each, stratified within every class around the means `(p, k)`."""
    shown, severity = means.copy(), means.copy()
    for k in np.unique(label):
        mine = label == k
        normal = ndtri(stratified(int(mine.sum()), 2 * means.shape[1], rng))
        first, second = np.split(normal, 2, axis=1)
        extra_shown, extra_severity = noisy_view(first, second)
        shown[mine] += extra_shown
        severity[mine] += extra_severity
    return shown, severity


def noisy_view(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Standard normal severity and a noisy view of it from independent standard normals.

    The view is made of the first numbers alone, so that it is as evenly spread as they are.
    """
    return SPREAD * first, first / SPREAD + NOISE / SPREAD * second

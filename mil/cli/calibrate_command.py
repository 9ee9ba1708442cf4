"""`mil calibrate`: a cut, or probabilities, set by patients of a site or scanner that a checkpoint does not know."""

import sys
from collections.abc import Iterator
from pathlib import Path

from mil import checkpoint as checkpoints
from mil.errors import ConfigError
from mil.fitted import calibrators
from mil.fitted.calibrators import Calibrator, calibrated_name
from mil.inference.external import Labelled, labelled, put_right, recalibrated


def calibrate(
    place: Path,
    features: Path,
    cohort: Path,
    slides: Path | None,
    out: Path,
    decision: str | None,
    sensitivity: float | None,
    confidence: float,
    method: str | None = None,
) -> None:
    """Writes the checkpoint with its new cut and says what the known positives promise, or with its new calibration.

    Raises:
        ConfigError: the folder exists, there is no such decision or method, or a cut and a calibration are asked for.
        PredictionsError: too few known positives to carry the promise, or too few patients for the calibration.
    """
    if method is not None and (decision is not None or sensitivity is not None):
        raise ConfigError(
            f"--calibration {method}: given with --{'decision' if decision else 'sensitivity'}, expected one: a cut is "
            "set on the checkpoint whose calibration was written before"
        )
    loaded = checkpoints.load(place)
    if method is not None:
        calibrators.check(method, loaded.endpoint)
    found = labelled(loaded, features, cohort, slides)
    if method is not None:
        sys.stdout.writelines(f"{line}\n" for line in _told(put_right(loaded, found, out, method), found))
        sys.stdout.write(f"{out}\n")
        return
    fresh = recalibrated(loaded, found, out, decision, sensitivity, confidence)
    if fresh.guarantee is not None:
        sys.stdout.write(f"{fresh.guarantee.sentence()}\n")
    sys.stdout.write(f"{out}\n")


def _told(fresh: Calibrator, found: Labelled) -> Iterator[str]:
    """What each probability or risk was on average, and what it is now."""
    after = fresh.apply(found.table)
    for name in fresh.columns:
        means = f"mean {found.table[name].mean():.4g}, now {after[calibrated_name(name)].mean():.4g}"
        yield f"{name}  {means if fresh.answers([name]) else 'not calibrated: these patients cannot carry it'}"
    yield f"calibration by {fresh.method}, fitted to {fresh.n} patients"

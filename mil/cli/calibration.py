"""`mil calibrate`: a cut set anew from known positives of a site or scanner that a checkpoint does not know."""

import sys
from pathlib import Path

from mil import checkpoint as checkpoints
from mil.inference.external import labelled, recalibrated


def calibrate(
    place: Path,
    features: Path,
    cohort: Path,
    slides: Path | None,
    out: Path,
    decision: str | None,
    sensitivity: float | None,
    confidence: float,
) -> None:
    """Writes the checkpoint with its new cut, and says what the known positives promise.

    Raises:
        ConfigError: the folder exists, or there is no such decision.
        PredictionsError: too few known positives to carry the promise.
    """
    loaded = checkpoints.load(place)
    found = labelled(loaded, features, cohort, slides)
    fresh = recalibrated(loaded, found, out, decision, sensitivity, confidence)
    if fresh.guarantee is not None:
        sys.stdout.write(f"{fresh.guarantee.sentence()}\n")
    sys.stdout.write(f"{out}\n")

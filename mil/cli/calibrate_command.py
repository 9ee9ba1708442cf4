"""`mil calibrate`: set a threshold, or recalibrate probabilities, by patients of a new site or scanner."""

import sys
from collections.abc import Iterator
from pathlib import Path

from mil import checkpoint as checkpoints
from mil.cohort.columns import Columns
from mil.errors import ConfigError
from mil.fitted import calibrators
from mil.fitted.calibrators import Calibrator, calibrated_name
from mil.inference.external import Labelled, labelled, with_new_calibration, with_new_cut


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
    ids: Columns | None = None,
) -> None:
    """Write the checkpoint with its new threshold and print the guarantee, or with its new calibration.

    Raises:
        ConfigError: The folder exists, there is no such decision or method, or both a threshold and a calibration are
            requested.
        PredictionsError: Too few known positives for the guarantee, or too few patients for the calibration.
    """
    if method is not None and (decision is not None or sensitivity is not None):
        raise ConfigError(
            f"--calibration {method}: given with --{'decision' if decision else 'sensitivity'}, expected one: a cut is "
            "set on the checkpoint whose calibration was written before"
        )
    loaded = checkpoints.load(place)
    if method is not None:
        calibrators.check(method, loaded.endpoint)
    cohort_predictions = labelled(loaded, features, cohort, slides, ids=ids)
    if method is not None:
        calibrator = with_new_calibration(loaded, cohort_predictions, out, method)
        sys.stdout.writelines(f"{line}\n" for line in _calibration_lines(calibrator, cohort_predictions))
        sys.stdout.write(f"{out}\n")
        return
    fresh = with_new_cut(loaded, cohort_predictions, out, decision, sensitivity, confidence)
    if fresh.guarantee is not None:
        sys.stdout.write(f"{fresh.guarantee.sentence()}\n")
    sys.stdout.write(f"{out}\n")


def _calibration_lines(fresh: Calibrator, cohort_predictions: Labelled) -> Iterator[str]:
    """Yield the mean of each probability or risk before and after."""
    after = fresh.apply(cohort_predictions.table)
    for name in fresh.columns:
        means = f"mean {cohort_predictions.table[name].mean():.4g}, now {after[calibrated_name(name)].mean():.4g}"
        yield f"{name}  {means if fresh.answers([name]) else 'not calibrated: these patients cannot carry it'}"
    yield f"calibration by {fresh.method}, fitted to {fresh.n} patients"

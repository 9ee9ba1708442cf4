"""How much a patient's prediction depends on which patients and which seed a model was trained with.

Riley and Collins, Biometrical Journal 65, 2023, 2200302: several models of one method predict the same patients; the
mean absolute prediction error of a patient is the mean distance of the models' predictions from a reference. They
take bootstrap models and the model of all patients as reference. Here the reference is the mean of the patient's own
models, which is nearer to each of k models than one that they did not make: distances are multiplied by sqrt(k / (k -
1)), with which their expectation does not depend on k where predictions are normal.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEWEST = 2
"""Models of a patient below which nothing is said about them."""


@dataclass(frozen=True)
class PredictionInstability:
    """How much the predictions of several models differ for each patient.

    Attributes:
        models: Models that predict the patient, `(p,)`.
        mean: Of their predictions, `(p,)`; NaN below two models.
        error: Mean absolute prediction error, `(p,)`; NaN below two models.
    """

    models: NDArray[np.int64]
    mean: Floats
    error: Floats


def prediction_instability(predictions: Floats) -> PredictionInstability:
    """Return the mean absolute prediction error of each patient.

    Args:
        predictions: Of each model, `(m, p)`; NaN where a model may not be asked about a patient.
    """
    present = np.isfinite(predictions)
    models = present.sum(axis=0)
    enough = models >= FEWEST
    count = np.maximum(models, FEWEST)
    mean = np.where(present, predictions, 0).sum(axis=0) / count
    distance = np.where(present, np.abs(predictions - mean), 0).sum(axis=0) / count
    error = distance * np.sqrt(count / (count - 1))
    return PredictionInstability(models, np.where(enough, mean, np.nan), np.where(enough, error, np.nan))

"""What a checkpoint says of its scores: calibrated probabilities, calls, sets, and whose results are withheld.

Everything was fitted with the model and is frozen in its manifest under `fitted`: `calibration`, `decisions` (a list),
`conformal` and `novelty`; what is absent or null adds nothing.

A bag is judged by its own tiles. Where a patient has several bags (`data.bag=slide`) each counts as much as the others
in the patient's score, so that one of them that is flagged withholds the patient. Whoever is withheld keeps no number
and no call: scores are empty, and `withheld` says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.errors import CheckpointError
from mil.fitted import decision_rules
from mil.fitted.calibrators import Calibrator
from mil.fitted.conformal import Conformal
from mil.fitted.novelty import Novelty

WITHHELD = "withheld"
_KEPT = ["patient", "slide", "tiles", WITHHELD]


class Seen(NamedTuple):
    """What the bags behind a table's rows looked like."""

    row: NDArray[np.int64]
    """which row of the table each bag belongs to, `(b,)`"""
    names: Sequence[str]
    """of the bags, for a reason; `b`"""
    tiles: NDArray[np.int64]
    """`(b,)`"""
    means: NDArray[np.float64] | None
    """of their features, `(b, d)`"""


def concluded(fitted: Mapping[str, Any], table: pd.DataFrame, seen: Seen | None = None) -> pd.DataFrame:
    """The table with columns `calibrated_*`, `call*`, `set*` or `low` and `high`, and `withheld`, as far as fitted.

    Args:
        fitted: Of a manifest.
        table: Scores, a row a patient or slide.
        seen: The bags behind it; without them nobody is withheld.

    Raises:
        CheckpointError: something in `fitted` is not what was put there, or features have another width.
        PredictionsError: the scores that it needs are not in the table.
    """
    out = table
    if (said := fitted.get("calibration")) is not None:
        out = _joined(out, _calibrator(said).apply(table))
    if said := fitted.get("decisions"):
        out = _joined(out, decision_rules.apply([decision_rules.Decision.from_state(one) for one in said], out))
    if (said := fitted.get("conformal")) is not None:
        out = _joined(out, Conformal.from_state(said).apply(table))
    if (said := fitted.get("novelty")) is not None and seen is not None:
        out = withhold(out, reasons(Novelty.from_state(said), seen, len(out)))
    return out


def reasons(novelty: Novelty, seen: Seen, rows: int) -> list[str]:
    """Why each row's result is withheld, by the first of its bags that is flagged; empty where it is not.

    Raises:
        CheckpointError: features of another width than the training bags had.
    """
    found = [""] * rows
    several = np.bincount(seen.row, minlength=rows) > 1
    for bag, (row, name) in enumerate(zip(seen.row, seen.names, strict=True)):
        if found[row]:
            continue
        try:
            reason = novelty.judge(None if seen.means is None else seen.means[bag], int(seen.tiles[bag]))
        except ValueError as error:
            raise CheckpointError(f"novelty: {error}") from None
        if reason:
            found[row] = f"{name}: {reason}" if several[row] else reason
    return found


def _calibrator(said: Any) -> Calibrator:
    try:
        return Calibrator.from_state(said)
    except (TypeError, ValueError, KeyError) as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise CheckpointError(f"calibration: {line}, expected what `fit` gives") from None


def _joined(table: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """With what is new."""
    return table.assign(**{str(name): found[name] for name in found if name not in table})


def withhold(table: pd.DataFrame, why: Sequence[str]) -> pd.DataFrame:
    """With column `withheld`: scores of those with a reason become NaN, and their words empty."""
    out, hit = table.assign(**{WITHHELD: list(why)}), np.array([bool(reason) for reason in why])
    for name in out.columns.difference(_KEPT):
        out[name] = out[name].mask(hit, np.nan if pd.api.types.is_numeric_dtype(out[name]) else "")
    return out

"""The same tool under random folds and under folds that keep sites together: how much of the first was the site's."""

from typing import Any

import numpy as np
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.errors import PredictionsError
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.stats.bootstrap import METHOD, Floats, Fold, Score
from mil.stats.bootstrap_intervals import sampled


def gap(random: Evaluation, preserved: Evaluation) -> dict[str, Any]:
    """The main metric under both designs, and the first minus the second.

    Where both report the same patients each is drawn once a resample for both, else the two are drawn apart.

    Args:
        random: Of folds that do not look at sites.
        preserved: Of folds with whole sites.

    Returns:
        `metric`, `random`, `preserved`, `difference` with interval and n, `paired`, and `words`.

    Raises:
        PredictionsError: the two predict different things.
    """
    _refuse_other(random.endpoint, preserved.endpoint)
    amounts = [len(one.reported) for one in (random, preserved)]
    paired = set(random.reported.index) == set(preserved.reported.index)
    score = _main(random.endpoint)
    designs = [random.folds, preserved.folds if paired else [_renamed(fold) for fold in preserved.folds]]
    found = sampled([(score, folds) for folds in designs], random.resamples, random.seed)
    first, second = (own[""] for own in found)
    method = f"{METHOD}, {'the same for both designs' if paired else 'apart for each design'}"
    difference = as_dict(first.minus(second).interval(method)) | {"n": amounts[0] if paired else sum(amounts)}
    return {
        "metric": random.endpoint.metric,
        "random": as_dict(first.interval(METHOD)) | {"n": amounts[0]},
        "preserved": as_dict(second.interval(METHOD)) | {"n": amounts[1]},
        "difference": difference,
        "paired": paired,
        "words": _words(random.endpoint.metric, difference),
    }


def _main(endpoint: Endpoint) -> Score:
    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        return {"": endpoint.score(logits, target, weight)[endpoint.metric]}

    return score


def _renamed(fold: Fold) -> Fold:
    """Patients whom nobody else is."""
    names = np.asarray(fold.patients, dtype=np.str_)
    return fold._replace(patients=np.char.add("other ", names).astype(np.str_))


def _refuse_other(one: Endpoint, other: Endpoint) -> None:
    if type(one) is not type(other) or one.columns != other.columns:
        found = f"{type(other).__name__} of {', '.join(other.columns)}"
        raise PredictionsError(f"gap: {found}, expected {type(one).__name__} of {', '.join(one.columns)} as the other")


def _words(metric: str, found: dict[str, Any]) -> str:
    if found["value"] is None or found["low"] is None:
        return f"the gap in {metric} between random folds and folds of whole sites cannot be estimated"
    span = f"{found['value']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
    if found["low"] > 0:
        return f"random folds flatter: their {metric} lies {span} from that of folds of whole sites"
    if found["high"] < 0:
        return f"random folds do worse: their {metric} lies {span} from that of folds of whole sites"
    return f"no gap is shown: the {metric} of random folds lies {span} from that of folds of whole sites"

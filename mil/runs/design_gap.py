"""Compare a tool under random folds and under folds that keep sites together: the gap is what sites contribute."""

import numpy as np
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.errors import PredictionsError
from mil.report.evaluation import Evaluation
from mil.report.paired_difference import without_verdict
from mil.report.schema import Model
from mil.report.verdict_minimum import shortage
from mil.stats.bootstrap import METHOD, Floats, Fold, Score
from mil.stats.bootstrap_intervals import sampled
from mil.stats.estimate import Estimate


class DesignGap(Model):
    """The main metric under both designs, and the first minus the second."""

    random_run: str | None = None
    """folder name of the run with random folds"""
    preserved_run: str | None = None
    """folder name of the run with folds of whole sites"""
    metric: str
    random: Estimate
    preserved: Estimate
    difference: Estimate
    paired: bool
    """whether both designs report the same patients, who are then resampled together"""
    sentence: str


def gap(random: Evaluation, preserved: Evaluation) -> DesignGap:
    """Return the main metric under both designs and the difference.

    If both report the same patients, each resample draws the same patients for both; otherwise they are drawn apart.

    Args:
        random: Evaluation of folds that ignore sites.
        preserved: Evaluation of folds with whole sites.

    Raises:
        PredictionsError: if the two predict different things.
    """
    _check_same_endpoint(random.endpoint, preserved.endpoint)
    sizes = [len(evaluation.reported) for evaluation in (random, preserved)]
    paired = set(random.reported.index) == set(preserved.reported.index)
    metric, score = random.endpoint.metric, _main_metric(random.endpoint)
    designs = [random.folds, preserved.folds if paired else [_renamed(fold) for fold in preserved.folds]]
    samples = sampled([(score, folds) for folds in designs], random.resamples, random.seed)
    first, second = (metrics[metric] for metrics in samples)
    method = f"{METHOD}, {'the same for both designs' if paired else 'apart for each design'}"
    difference = first.minus(second).interval(method, {"n": sizes[0] if paired else sum(sizes)})
    short = [shortage(design.endpoint, design.folds, metric) for design in (random, preserved)]
    if (reason := next(filter(None, short), None)) is not None:
        difference = without_verdict(difference, reason)
    return DesignGap(
        metric=metric,
        random=first.interval(METHOD, {"n": sizes[0]}),
        preserved=second.interval(METHOD, {"n": sizes[1]}),
        difference=difference,
        paired=paired,
        sentence=_sentence(metric, difference),
    )


def _main_metric(endpoint: Endpoint) -> Score:
    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        return {endpoint.metric: endpoint.score(logits, target, weight)[endpoint.metric]}

    return score


def _renamed(fold: Fold) -> Fold:
    """Return the fold with patient names that no patient of the first design has."""
    names = np.asarray(fold.patients, dtype=np.str_)
    return fold._replace(patients=np.char.add("other ", names).astype(np.str_))


def _check_same_endpoint(first: Endpoint, second: Endpoint) -> None:
    if type(first) is not type(second) or first.columns != second.columns:
        raise PredictionsError(
            f"gap: {type(second).__name__} of {', '.join(second.columns)}, expected {type(first).__name__} of "
            f"{', '.join(first.columns)} as in the first run"
        )


def _sentence(metric: str, difference: Estimate) -> str:
    value, low, high = difference.value, difference.low, difference.high
    if value is None or low is None or high is None:
        why = f": {difference.reason}" if difference.reason else ""
        return f"the gap in {metric} between random folds and folds of whole sites cannot be estimated{why}"
    span = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    if low > 0:
        return f"random folds flatter: their {metric} differs by {span} from that of folds of whole sites"
    if high < 0:
        return f"random folds do worse: their {metric} differs by {span} from that of folds of whole sites"
    return f"no gap is shown: the {metric} of random folds differs by {span} from that of folds of whole sites"

"""What the sites' estimates say together, and which site does not resemble the others."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from scipy.special import expit, logit

from mil.report.sections.federation import SiteResult, SynthesisResult
from mil.stats.estimate import Estimate
from mil.stats.random_effects import FEWEST, METHOD, pool

_Z = 1.959963984540054


class _Scale(NamedTuple):
    """On which estimates are about normal."""

    name: str
    forward: Callable[[float], float]
    back: Callable[[float], float]


def _scale(metric: str) -> _Scale:
    if metric.startswith("observed over expected"):
        return _Scale("logarithm", math.log, math.exp)
    if "auroc" in metric or "c_index" in metric:
        return _Scale("logit", lambda value: float(logit(value)), lambda value: float(expit(value)))
    return _Scale("as it is", float, float)


def synthesis(results: Sequence[SiteResult]) -> Iterator[SynthesisResult]:
    """Yield the random-effects synthesis of each metric that enough sites tell with an interval."""
    for metric in dict.fromkeys(name for result in results for name in result.metrics):
        scale = _scale(metric)
        usable = [pair for result in results if (pair := _on_scale(result.metrics.get(metric), scale)) is not None]
        if len(usable) < FEWEST:
            continue
        pooled = pool([value for value, _ in usable], [error for _, error in usable])
        amount = sum(result.metrics[metric].n or 0 for result in results if metric in result.metrics)
        yield SynthesisResult(
            metric=metric,
            estimate=Estimate(
                value=scale.back(pooled.mean),
                low=scale.back(pooled.low),
                high=scale.back(pooled.high),
                method=METHOD,
                counts={"n": amount},
            ),
            predicted_low=scale.back(pooled.predicted_low),
            predicted_high=scale.back(pooled.predicted_high),
            tau2=pooled.tau2,
            scale=scale.name,
            sites=pooled.sites,
        )


def _on_scale(estimate: Estimate | None, scale: _Scale) -> tuple[float, float] | None:
    """Return value and standard error on the scale of the synthesis; None where it has none there."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    try:
        value, low, high = (scale.forward(bound) for bound in (estimate.value, estimate.low, estimate.high))
    except ValueError:
        return None
    error = (high - low) / (2 * _Z)
    return (value, error) if math.isfinite(value) and math.isfinite(error) and error > 0 else None


def unlike_sites(results: Sequence[SiteResult], metric: str) -> Iterator[str]:
    """Yield a sentence for each site whose metric lies below what the other sites let one expect of a further one.

    Such a site may have other patients, another stain or scanner, or labels that are wrong.
    """
    for result in results:
        others = [each for each in results if each is not result]
        expected: Mapping[str, SynthesisResult] = {row.metric: row for row in synthesis(others)}
        estimate = result.metrics.get(metric)
        if metric not in expected or estimate is None or estimate.value is None or estimate.high is None:
            continue
        if estimate.high < expected[metric].predicted_low or _is_reversed(estimate, expected[metric]):
            low, high = expected[metric].predicted_low, expected[metric].predicted_high
            yield (
                f"Site {result.site}: {metric} {estimate}, where the {len(others)} other sites let one expect "
                f"{low:.3f} to {high:.3f}: its patients, stain or scanner differ, or its labels are wrong."
            )


def _is_reversed(estimate: Estimate, expected: SynthesisResult) -> bool:
    """Return whether a ranking is worse than chance with its whole interval, where other sites' is better."""
    return expected.scale == "logit" and (estimate.high or 1.0) < 0.5 < (expected.estimate.low or 0.0)

"""Estimates as the dictionaries of schema 2, for the sections and readers that are not typed yet."""

from typing import Any

from mil.stats.estimate import Estimate
from mil.stats.site_signature import SitePredictability


def as_dict(estimate: Estimate) -> dict[str, Any]:
    """Return value, interval and counts under their keys of schema 2."""
    if estimate.method is None:
        entry: dict[str, Any] = {"value": estimate.value}
    else:
        entry = estimate.model_dump(include={"value", "low", "high", "level", "method"})
    if estimate.resamples is not None:
        entry |= {"resamples": estimate.resamples, "folds": list(estimate.folds)}
    entry |= estimate.counts
    if estimate.p is not None:
        entry["p"] = estimate.p
    if estimate.second is not None:
        entry["exact" if "successes" in estimate.counts else "plain"] = estimate.second.model_dump()
    return entry if estimate.reason is None else entry | {"reason": estimate.reason}


def site_as_dict(site: SitePredictability) -> dict[str, Any]:
    """Return the counts and metrics under their keys of schema 2."""
    counts = {"n": site.n, "sites": site.sites, "left_out": site.left_out}
    if site.reason is not None:
        return counts | {"value": None, "reason": site.reason}
    metrics = {"balanced_accuracy": site.balanced_accuracy, "macro_auroc": site.macro_auroc}
    return counts | {
        name: {key: value for key, value in as_dict(estimate).items() if key != "folds"}
        | ({"chance": site.chance[name]} if site.chance else {})
        for name, estimate in metrics.items()
        if estimate is not None
    }

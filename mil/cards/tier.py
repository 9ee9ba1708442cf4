"""The tier of a release's evidence: one rule, used by its gates, its card and its tags.

A tool's yaml states the best tier that published work could support for its question. A release reaches that tier only
if its own main metric is better than chance at sites that it was not trained on.
"""

from mil.manifest import Manifest
from mil.report.page.words import named
from mil.report.schema import Report
from mil.report.shortfalls import CHANCE

BY_SITE = ("SitePreserved", "LeaveOneSiteOut")
LOWEST = 3


def by_site(manifest: Manifest) -> bool:
    """Return whether all patients of a site were held back together."""
    return manifest.data.split.name in BY_SITE


def new_site_performance(manifest: Manifest, all_folds: Report, metric: str | None) -> tuple[bool, str]:
    """Return whether the metric is better than chance at sites that were not trained on, and the reason.

    Args:
        manifest: Manifest of the checkpoint.
        all_folds: The report of all folds.
        metric: The endpoint's main metric.
    """
    estimate = None if metric is None else all_folds.metrics.get(metric)
    if metric is None or estimate is None or estimate.low is None or metric not in CHANCE:
        return False, f"no interval of {named(str(metric or 'a metric'))} could be compared with chance"
    text = f"lower bound of {named(metric)} {estimate.low:.3f}, chance {CHANCE[metric]:g}"
    if not by_site(manifest):
        return False, f"{text}, but sites were not kept apart"
    return estimate.low > CHANCE[metric], f"{text}, whole sites held back"


def tier(manifest: Manifest, all_folds: Report, metric: str | None) -> tuple[int | None, str]:
    """Return the tier of a release and why it is not the stated one; None if the tool states no tier."""
    stated = manifest.tool.evidence.tier
    if stated is None:
        return None, ""
    better, _ = new_site_performance(manifest, all_folds, metric)
    if better or stated == LOWEST:
        return int(stated), ""
    return LOWEST, "not shown to beat chance at new sites" if by_site(manifest) else "sites were not kept apart"

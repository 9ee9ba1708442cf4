"""The tier of a release's evidence: one rule, which its gates, its card and its tags all read.

A tool's yaml states the best tier that its question could reach by published work. A release reaches it only where its
own main metric is better than chance at sites that it was not trained on.
"""

from collections.abc import Mapping
from typing import Any

from mil.manifest import Manifest
from mil.report.page.words import named

CHANCE = {"auroc": 0.5, "macro_auroc": 0.5, "c_index": 0.5, "qwk": 0.0, "r2": 0.0}
"""What each endpoint's metric is worth without any knowledge."""
BY_SITE = ("SitePreserved", "LeaveOneSiteOut")
LOWEST = 3


def by_site(manifest: Manifest) -> bool:
    """Whether whole sites were held back."""
    strategy = str(manifest.data["split"]["strategy"].get("_target_"))
    return strategy.rpartition(".")[2] in BY_SITE


def at_new_sites(manifest: Manifest, whole: Mapping[str, Any], metric: str | None) -> tuple[bool, str]:
    """Whether the metric is better than chance at sites that were not trained on, and why or why not.

    Args:
        manifest: Of the checkpoint.
        whole: The report of all folds.
        metric: The endpoint's main one.
    """
    found = whole["metrics"].get(metric)
    if metric is None or found is None or found["low"] is None or metric not in CHANCE:
        return False, f"no interval of {named(str(metric or 'a metric'))} could be compared with chance"
    said = f"lower bound of {named(metric)} {found['low']:.3f}, chance {CHANCE[metric]:g}"
    if not by_site(manifest):
        return False, f"{said}, but sites were not kept apart"
    return found["low"] > CHANCE[metric], f"{said}, whole sites held back"


def tier(manifest: Manifest, whole: Mapping[str, Any], metric: str | None) -> tuple[int | None, str]:
    """The release's tier, and in words why it is not the one that the question could reach; none if none is stated."""
    stated = (manifest.tool.get("evidence") or {}).get("tier")
    if stated is None:
        return None, ""
    holds, _ = at_new_sites(manifest, whole, metric)
    if holds or stated == LOWEST:
        return int(stated), ""
    return LOWEST, "not shown to beat chance at new sites" if by_site(manifest) else "sites were not kept apart"

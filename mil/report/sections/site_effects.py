"""Whether a result is the tissue's or the site's: the metric within sites, and how well scores tell the site."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from mil.report.as_dict import as_dict, site_as_dict
from mil.report.evaluation import Evaluation
from mil.report.schema import Estimate, Model, Section
from mil.report.sections.subgroup_metrics import main_measure
from mil.stats.bootstrap_intervals import Sampled
from mil.stats.site_signature import site_predictability
from mil.tables import MISSING

WITHIN = "percentile, patients resampled within sites; mean over the sites"


class SiteMetric(Model):
    """The metric among the reported patients of one site."""

    site: str
    counts: dict[str, int]
    """all reported patients of the site: `n`, and the positives, classes or events among them"""
    estimate: Estimate = Field(title="Metric")


class WithinSites(Model):
    """The mean of the metric over the sites where it can be estimated."""

    sites: int
    estimate: Estimate


class AgainstChance(Model):
    """An estimate, and the value that guessing gives."""

    chance: float
    estimate: Estimate


class SitePrediction(Model):
    """How well the site is predicted by a linear model, in cross-validation."""

    n: int
    sites: int
    left_out: int
    """patients whose site is unknown or has too few patients"""
    balanced_accuracy: AgainstChance | None = None
    macro_auroc: AgainstChance | None = None
    reason: str | None = None
    """why there is no estimate"""


class Sites(Section):
    """The metric within each site, and how well the site can be predicted from score and label."""

    key: ClassVar[str] = "site"
    title: ClassVar[str] = "Sites"
    explanation: ClassVar[str] = "The metric within each site, and how well the site can be predicted from the score."
    not_applicable: ClassVar[str] = "There is no clinical table with two or more sites."
    position: ClassVar[int] = 100

    metric: str
    sites: tuple[SiteMetric, ...]
    missing: int
    """reported patients whose site is unknown"""
    within_sites: WithinSites
    told_by: dict[str, SitePrediction] = Field(title="How well the site can be predicted from")


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """The metric in each site, its mean over the sites, and how well scores and labels tell the site.

    None where the clinical table has no `site` of two or more names among the reported patients. A site with too few
    patients of a kind keeps its row (see `subgroup_metrics`). A score may tell the site by the label alone, where sites
    differ in their patients: what it adds to the label is the site's signature.
    """
    site = _sites(evaluation)
    if site is None:
        return None
    rows, drawn = [], list[Sampled]()
    measure = main_measure(evaluation)
    for at, (name, own) in enumerate(evaluation.reported.groupby(site)):
        # a seed of its own: sites of one size would else draw alike
        found, shown = measure.of(list(own.index), evaluation.resamples, evaluation.seed + at)
        counts = evaluation.endpoint.counts(evaluation.endpoint.encode(own))
        rows.append({"site": str(name), "n": len(own), "counts": counts, **shown})
        drawn += [] if found is None else [found]
    return {
        "metric": evaluation.endpoint.metric,
        "sites": rows,
        "missing": int(site.isna().sum()),
        "within_sites": _mean(drawn) | {"n": sum(row["n"] for row in rows if row["value"] is not None)},
        "told_by": _told(evaluation, site),
    }


def _sites(evaluation: Evaluation) -> "pd.Series[str] | None":
    """Each reported patient's site, NaN where not known; none where there are not two."""
    known = evaluation.patients
    if known is None or "site" not in known:
        return None
    site = known["site"].reindex(evaluation.reported.index).fillna("").astype(str).str.strip()
    site = site.mask(site.str.casefold().isin(MISSING))
    return site if site.nunique() > 1 else None


def _mean(drawn: list[Sampled]) -> dict[str, Any]:
    """Over the sites where the metric is estimated: patients are compared with those of their own site only."""
    if len(drawn) < 2:
        return {
            "value": None,
            "sites": len(drawn),
            "reason": f"sites where it is estimable: {len(drawn)}, expected two or more",
        }
    value = float(np.mean([one.value for one in drawn]))
    mean = Sampled(value, np.mean([one.samples for one in drawn], axis=0))
    return as_dict(mean.interval(WITHIN)) | {"sites": len(drawn)}


def _told(evaluation: Evaluation, site: "pd.Series[str]") -> dict[str, Any]:
    """How well the site is told by the score, ranked within folds, by the label, and by both."""
    reported, endpoint = evaluation.reported, evaluation.endpoint
    columns = [name for name in endpoint.decode(torch.zeros(1, endpoint.out_dim)) if name in reported]
    score = reported.groupby("fold")[columns].rank(pct=True).to_numpy(np.float64)
    strata = endpoint.strata(endpoint.encode(reported))
    label = (strata[:, None] == np.unique(strata)).astype(np.float64)
    inputs = {"score": score, "label": label, "score_and_label": np.concatenate([score, label], 1)}
    names = site.fillna("").tolist()
    return {
        name: site_as_dict(site_predictability(values, names, evaluation.resamples, evaluation.seed))
        for name, values in inputs.items()
    }

"""The metric within each site, and how well the site can be predicted from the score: batch effects between sites."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from mil.report.evaluation import Evaluation
from mil.report.schema import Estimate, Model, Section
from mil.report.sections.subgroup_metrics import main_measure
from mil.stats.bootstrap import Floats
from mil.stats.bootstrap_intervals import Sampled
from mil.stats.site_signature import SitePredictability, beyond, site_predictability
from mil.tables import names_no_site

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
    told_by: dict[str, SitePredictability] = Field(title="How well the site can be predicted from")
    beyond_label: SitePredictability | None = Field(
        default=None, title="What the score adds to the label in predicting the site"
    )
    """differences; None in reports of earlier versions"""

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the metric in each site, its mean over the sites, and how well the site can be predicted.

        None where the clinical table has fewer than two sites of reported patients. A site with too few patients keeps
        its row. A score may predict the site through the label alone, where sites differ in their patients: what it
        adds to the label is the site's signature, which the p value of score and label together is about.
        """
        site = site_of(evaluation)
        if site is None:
            return None
        endpoint, measure = evaluation.endpoint, main_measure(evaluation)
        rows, samples = list[SiteMetric](), list[Sampled]()
        for at, (name, patients) in enumerate(evaluation.reported.groupby(site)):
            # each site has its own seed: sites of one size would draw alike otherwise
            measured = measure.of(list(patients.index), evaluation.resamples, evaluation.seed + at)
            counts = endpoint.counts(endpoint.encode(patients))
            rows.append(SiteMetric(site=str(name), counts=counts, estimate=measured.estimate))
            samples += [] if measured.samples is None else [measured.samples]
        inputs, resampling = _inputs(evaluation), (evaluation.resamples, evaluation.seed)
        n = sum(row.counts["n"] for row in rows if row.estimate.value is not None)
        return cls(
            metric=endpoint.metric,
            sites=tuple(rows),
            missing=int(site.isna().sum()),
            within_sites=WithinSites(sites=len(samples), estimate=_mean(samples).with_counts({"n": n})),
            told_by=_predictability(inputs, site, evaluation),
            beyond_label=beyond(inputs["score_and_label"], inputs["label"], _names(site), *resampling),
        )


def site_of(evaluation: Evaluation) -> "pd.Series[str] | None":
    """Return the site of each reported patient, NaN where unknown; None where there are fewer than two sites."""
    patients = evaluation.patients
    if patients is None or "site" not in patients:
        return None
    site = patients["site"].reindex(evaluation.reported.index).fillna("").astype(str).str.strip()
    site = site.mask(np.array([names_no_site(str(patient), name) for patient, name in site.items()], dtype=bool))
    return site if site.nunique() > 1 else None


def _mean(samples: list[Sampled]) -> Estimate:
    """Return the mean over the sites: patients are compared with those of their own site only."""
    if len(samples) < 2:
        return Estimate.missing(f"sites where it is estimable: {len(samples)}, expected two or more")
    value = float(np.mean([each.value for each in samples]))
    return Sampled(value, np.mean([each.samples for each in samples], axis=0)).interval(WITHIN)


def _inputs(evaluation: Evaluation) -> dict[str, Floats]:
    """Return what the site is predicted from, `(p, k)` each: the score, ranked within folds, the label, and both."""
    reported, endpoint = evaluation.reported, evaluation.endpoint
    columns = [name for name in endpoint.decode(torch.zeros(1, endpoint.out_dim)) if name in reported]
    score = reported.groupby("fold")[columns].rank(pct=True).to_numpy(np.float64)
    strata = endpoint.strata(endpoint.encode(reported))
    label = (strata[:, None] == np.unique(strata)).astype(np.float64)
    return {"score": score, "label": label, "score_and_label": np.concatenate([score, label], 1)}


def _names(site: "pd.Series[str]") -> list[str]:
    return site.fillna("").tolist()


def _predictability(
    inputs: Mapping[str, Floats], site: "pd.Series[str]", evaluation: Evaluation
) -> dict[str, SitePredictability]:
    """Return how well the site is predicted from each of these inputs."""
    strata = evaluation.endpoint.strata(evaluation.endpoint.encode(evaluation.reported))
    beyond_label = {"score_and_label": strata}  # sites are permuted among patients with one label
    return {
        name: site_predictability(values, _names(site), evaluation.resamples, evaluation.seed, beyond_label.get(name))
        for name, values in inputs.items()
    }

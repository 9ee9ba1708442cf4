"""Subgroups and sites."""

from functools import cache

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from coverage_studies.simulated import RESAMPLES, SHIFT, Truths, holds, predictions
from mil.endpoints.classification import Binary
from mil.report.evaluation import Evaluation
from mil.report.sections.gaps import proportion_gap
from mil.report.sections.site_synthesis import SiteSynthesis
from mil.report.sections.subgroup_metrics import LEAST
from mil.report.sections.subgroups import Subgroups
from mil.stats.proportions import proportion
from mil.stats.site_signature import site_predictability
from mil.study.tool import Tool


def gaps(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Largest gaps among groups that do not differ: six where there are enough patients, else two or none."""
    label = np.arange(n) % 2
    levels = 6 if n >= 300 else 2
    group = rng.permutation(np.arange(n) // 2 % levels)
    shifts = rng.normal(0, SHIFT, folds)
    table = predictions(rng, folds, {"label": label}, label.astype(np.int64))
    logits = 1.2 * label + rng.normal(size=n) + shifts[table["fold"]]
    patients = pd.DataFrame({"site": [f"site {at}" for at in group]}, index=table["patient"])
    evaluation = Evaluation.of(table.assign(p_1=expit(logits)), Binary(), Tool(), patients, RESAMPLES)
    section = Subgroups.compute(evaluation)
    assert section is not None
    variable, per_level = section.variables[0], n // 6
    rates = {str(at): proportion(int(rng.binomial(per_level, 0.9)), per_level) for at in range(6)}
    of_calls = proportion_gap(rates, 5, 0)
    assert of_calls is not None
    gap = section.largest_gap
    test = variable.heterogeneity
    return {
        "groups: AUROC gap wrongly above zero": None if gap is None else (gap.estimate.low or 0) > 0,
        "groups: sensitivity gap wrongly above zero": (of_calls.gap().estimate.low or 0) > 0,
        "groups: wrongly called heterogeneous": None if test is None else test.p < 0.05,
    }


def sites(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """A score that does not tell its site: five sites, ten numbers."""
    site = rng.permutation([f"site {at % 5}" for at in range(n)]).tolist()
    result = site_predictability(rng.normal(size=(n, 10)), site, 2)
    area = result.macro_auroc
    return {"score: wrongly told from its site": None if area is None or area.p is None else area.p <= 0.05}


def synthesis(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Six sites whose areas differ: their mean, and what is said of a further site. Fewer patients are not pooled."""
    sites = 6
    gap_of = rng.normal(1.3, 0.3, sites + 1)
    if n // (2 * sites) < LEAST:
        return {}
    site, label = np.arange(n) % sites, np.arange(n) // sites % 2
    logits = gap_of[site] * label + rng.normal(size=n)
    table = predictions(rng, folds, {"label": label, "p_1": expit(logits)}, label.astype(np.int64))
    patients = pd.DataFrame({"site": [f"site {at}" for at in site]}, index=table["patient"])
    section = SiteSynthesis.compute(Evaluation.of(table, Binary(), Tool(), patients, 10))
    area = None if section is None else section.measures[0]
    further = float(norm.cdf(gap_of[-1] / 2**0.5))
    return {
        "sites together: mean AUROC": None if area is None else holds(area.mean, true_of_sites()),
        "sites together: interval of a further site": None if area is None else holds(area.further_site, further),
    }


@cache
def true_of_sites() -> float:
    """Return the AUROC whose logit is the mean over sites."""
    areas = norm.cdf(np.random.default_rng(0).normal(1.3, 0.3, 1_000_000) / 2**0.5)
    return float(expit(np.mean(np.log(areas / (1 - areas)))))

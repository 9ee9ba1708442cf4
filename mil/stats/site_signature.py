"""How well the site of a patient can be predicted from numbers about the slides.

F. M. Howard, J. Dolezal, S. Kochanny et al.: The impact of site-specific digital histology signatures on deep learning
model accuracy and bias. Nature Communications 12:4423, 2021.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mil.stats import balanced_accuracy, macro_auroc
from mil.stats.bootstrap import Floats, Fold
from mil.stats.bootstrap_intervals import difference, intervals
from mil.stats.estimate import Estimate

PARTS = 5
"""Folds of the cross-validation, and so the fewest patients of a site that takes part."""
NAMES = {"label": "label", "score": "score", "encoder": "encoder's mean tile", "embedding": "bag embedding"}
"""What the site is predicted from, in the words of sentences, tables and figures."""
COMPONENTS = 64
"""Principal components: more would be as many as patients, and predict the site no better."""


class SitePredictability(BaseModel):
    """How well the site can be predicted, and from how many patients."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    """patients of sites that take part"""
    sites: int
    left_out: int
    """patients whose site is not known or too small"""
    reason: str | None = None
    """why there are no metrics"""
    balanced_accuracy: Estimate | None = None
    macro_auroc: Estimate | None = None
    chance: dict[str, float] = {}
    """what each metric is without any signature; empty for differences"""


def site_predictability(
    embeddings: Floats, site: Sequence[str], resamples: int = 2000, seed: int = 0
) -> SitePredictability:
    """Return how well a linear model predicts the site of patients that it was not fitted to.

    Logistic regression with balanced weights on at most 64 principal components, all fitted within the training part of
    a stratified five-fold cross-validation. Metrics are computed within folds and averaged; resamples keep the sites'
    sizes. A result whose interval contains `chance` does not show a signature.

    Args:
        embeddings: `(p, e)`, one row a patient.
        site: Of each; empty where not known. Sites of fewer than five patients are left out, and counted.
        resamples: Of the bootstrap.
        seed: Of folds and bootstrap.
    """
    sites = _sites(site)
    if sites.result.reason is not None:
        return sites.result
    folds = _cross_validated(embeddings, sites, seed)
    metrics = intervals(_metrics, folds, resamples, seed, counts={"n": sites.result.n})
    chance = {"balanced_accuracy": 1 / sites.result.sites, "macro_auroc": 0.5}
    return sites.result.model_copy(update={**metrics, "chance": chance})


def beyond(
    embeddings: Floats, others: Floats, site: Sequence[str], resamples: int = 2000, seed: int = 0
) -> SitePredictability:
    """Return how much better `embeddings (p, e)` predict the site than `others (p, k)` of the same patients do.

    Each as `site_predictability` has it, in the same folds; both are scored on the same resamples. The metrics are
    differences and have no `chance`.
    """
    sites = _sites(site)
    if sites.result.reason is not None:
        return sites.result
    ours, theirs = (_cross_validated(values, sites, seed) for values in (embeddings, others))
    metrics = difference(_metrics, ours, theirs, resamples, seed, counts={"n": sites.result.n})
    return sites.result.model_copy(update=metrics)


class _Sites(NamedTuple):
    """The patients of sites that are large enough."""

    large: NDArray[np.bool_]
    """whether a patient's site is large enough, `(p,)`"""
    code: NDArray[np.intp]
    """the site of each of these patients"""
    result: SitePredictability
    """with counts, and the reason why nothing can be predicted"""


def _sites(site: Sequence[str]) -> _Sites:
    names = np.asarray(site, dtype=np.str_)
    _, code, amount = np.unique(names, return_inverse=True, return_counts=True)
    large = (amount[code] >= PARTS) & (names != "")
    sites, code = np.unique(names[large], return_inverse=True)
    reason = f"sites of {PARTS} patients or more: {len(sites)}, expected two" if len(sites) < 2 else None
    result = SitePredictability(n=int(large.sum()), sites=len(sites), left_out=int((~large).sum()), reason=reason)
    return _Sites(large, code, result)


def _cross_validated(values: Floats, sites: _Sites, seed: int) -> list[Fold]:
    """Return the logarithm of each site's probability for the patients of each fold, by a model of the others."""
    features, code = np.asarray(values, dtype=np.float64)[sites.large], sites.code
    folds = []
    for train, test in StratifiedKFold(PARTS, shuffle=True, random_state=seed).split(features, code):
        components = min(COMPONENTS, len(train) - 1)
        reduction = [PCA(components, svd_solver="full")] if features.shape[1] > components else []
        classifier = LogisticRegression(class_weight="balanced", max_iter=10_000)
        model = make_pipeline(StandardScaler(), *reduction, classifier).fit(features[train], code[train])
        logits = torch.from_numpy(model.predict_log_proba(features[test]))
        folds.append(Fold(logits, torch.from_numpy(code[test]), code[test].astype(np.int64), test.astype(np.str_)))
    return folds


def _metrics(logits: Tensor, target: Tensor, weight: Floats | None) -> Mapping[str, Floats]:
    scores, code = logits.numpy(), target.numpy()
    return {
        "balanced_accuracy": balanced_accuracy(scores.argmax(1), code, scores.shape[1], weight),
        "macro_auroc": macro_auroc(scores, code, weight),
    }

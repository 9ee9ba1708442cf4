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
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mil.stats import balanced_accuracy, macro_auroc
from mil.stats.bootstrap import Floats, Fold
from mil.stats.bootstrap_intervals import difference, intervals
from mil.stats.corrected_resampled import FOR_METHOD, fold_mean
from mil.stats.estimate import Estimate
from mil.stats.label_permutation import permutations

PARTS = 5
"""Folds of the cross-validation, and so the fewest patients of a site that takes part."""
NAMES = {"label": "label", "score": "score", "encoder": "encoder's mean tile", "embedding": "bag embedding"}
"""What the site is predicted from, in the words of sentences, tables and figures."""
COMPONENTS = 64
"""Principal components: more would be as many as patients, and predict the site no better."""
PERMUTATIONS = 199
"""Of the sites: the smallest p value is 0.005."""
BEYOND = f"corrected resampled t test over {PARTS} folds, {FOR_METHOD}"


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
    """what each metric is without any signature: the mean over permuted sites; empty for differences"""


def site_predictability(
    embeddings: Floats,
    site: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
    strata: NDArray[np.int64] | None = None,
) -> SitePredictability:
    """Return how well a linear model predicts the site of patients that it was not fitted to.

    Linear discriminant analysis with equal priors on at most 64 principal components, all fitted within the training
    part of a stratified five-fold cross-validation. Metrics are computed within folds and averaged; resamples keep the
    sites' sizes. Their p value is one-sided, that of permuting the sites within folds, as far as strata say who is
    alike: a bootstrap of shuffled sites calls the macro AUROC above chance in 8 to 17% of cohorts.

    Args:
        embeddings: `(p, e)`, one row a patient.
        site: Of each; empty where not known. Sites of fewer than five patients are left out, and counted.
        resamples: Of the bootstrap.
        seed: Of folds, bootstrap and permutations.
        strata: Patients among whom sites are permuted, `(p,)`, such as the label: p then says whether the site can be
            told beyond it. None: all are alike.
    """
    sites = _sites(site)
    if sites.result.reason is not None:
        return sites.result
    parts = _parts(embeddings, sites, seed)
    metrics = intervals(_metrics, _folds(parts, sites), resamples, seed, counts={"n": sites.result.n})
    part_of = np.zeros(len(sites.code), np.int64)
    for number, part in enumerate(parts):
        part_of[part.test] = number
    alike = part_of if strata is None else part_of + PARTS * np.unique(strata[sites.large], return_inverse=True)[1]
    places = permutations(alike.astype(np.int64), PERMUTATIONS, np.random.default_rng(seed))
    permuted = _means(parts, sites.code[places], sites.result.sites)
    chance = {name: float(values.mean()) for name, values in permuted.items()}
    judged = {name: metric.model_copy(update={"p": _p(metric, permuted[name])}) for name, metric in metrics.items()}
    return sites.result.model_copy(update={**judged, "chance": chance})


def beyond(
    embeddings: Floats, others: Floats, site: Sequence[str], resamples: int = 2000, seed: int = 0
) -> SitePredictability:
    """Return how much better `embeddings (p, e)` predict the site than `others (p, k)` of the same patients do.

    Each as `site_predictability` has it, in the same folds. The metrics are differences and have no `chance`; their
    interval and p value are Nadeau and Bengio's over the folds.
    """
    sites = _sites(site)
    if sites.result.reason is not None:
        return sites.result
    ours, theirs = (_folds(_parts(values, sites, seed), sites) for values in (embeddings, others))
    metrics = difference(_metrics, ours, theirs, resamples, seed, counts={"n": sites.result.n})
    return sites.result.model_copy(update={name: _corrected(metric) for name, metric in metrics.items()})


def _corrected(metric: Estimate) -> Estimate:
    mean = fold_mean([np.nan if value is None else value for value in metric.folds], 1 / (PARTS - 1))
    low, high = mean.bounds(metric.level)
    return metric.model_copy(
        update={
            "low": low if np.isfinite(low) else None,
            "high": high if np.isfinite(high) else None,
            "p": mean.p if np.isfinite(mean.p) else None,
            "method": BEYOND,
            "reason": None if np.isfinite(low) else "the folds do not vary",
            "resamples": None,
        }
    )


def _p(metric: Estimate, permuted: Floats) -> float | None:
    if metric.value is None:
        return None
    return float(((permuted >= metric.value - 1e-12).sum() + 1) / (len(permuted) + 1))


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


class _Part(NamedTuple):
    """One fold of the cross-validation: reduced features, and who is tested."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    fitted: Floats
    """of training patients, `(m, q)`"""
    tested: Floats
    """`(t, q)`"""


def _parts(values: Floats, sites: _Sites, seed: int) -> list[_Part]:
    """Return the folds with features as principal components of their training patients."""
    features, parts = np.asarray(values, dtype=np.float64)[sites.large], []
    for train, test in StratifiedKFold(PARTS, shuffle=True, random_state=seed).split(features, sites.code):
        components = min(COMPONENTS, len(train) - 1)
        reduction = [PCA(components, svd_solver="full")] if features.shape[1] > components else []
        reduce = make_pipeline(StandardScaler(), *reduction).fit(features[train])
        parts.append(_Part(train, test, reduce.transform(features[train]), reduce.transform(features[test])))
    return parts


def _folds(parts: Sequence[_Part], sites: _Sites) -> list[Fold]:
    """Return the logarithm of each site's probability for the patients of each fold, by a model of the others."""
    folds = []
    for part in parts:
        [scores] = _discriminants(part, sites.code[None], sites.result.sites)
        logits = torch.from_numpy(scores).log_softmax(1)
        code = sites.code[part.test]
        folds.append(Fold(logits, torch.from_numpy(code), code.astype(np.int64), part.test.astype(np.str_)))
    return folds


def _discriminants(part: _Part, code: NDArray[np.intp], sites: int) -> Floats:
    """Return the linear discriminants of tested patients with equal priors, for each row of sites, `(r, t, s)`.

    The covariance within sites is shrunk to a multiple of the identity, by `q / (q + m)` of m patients and q features.

    Args:
        part: The fold.
        code: Sites of all patients, `(r, p)`.
        sites: Their number.
    """
    fitted, (patients, width) = part.fitted, part.fitted.shape
    members = np.eye(sites)[code[:, part.train]]  # (r, m, s)
    size = members.sum(1)  # (r, s)
    means = np.einsum("rms,mq->rsq", members, fitted) / size[:, :, None]
    within = fitted.T @ fitted - np.einsum("rs,rsq,rsk->rqk", size, means, means)
    shrinkage = width / (width + patients)
    scale = np.trace(within, axis1=1, axis2=2) / width + 1e-9
    shrunk = (1 - shrinkage) * within + (shrinkage * scale)[:, None, None] * np.eye(width)
    weights = np.linalg.solve(shrunk / max(1, patients - sites), means.transpose(0, 2, 1))  # (r, q, s)
    offset = np.einsum("rsq,rqs->rs", means, weights) / 2
    return np.asarray(part.tested @ weights - offset[:, None, :])


def _means(parts: Sequence[_Part], code: NDArray[np.intp], sites: int) -> dict[str, Floats]:
    """Return the metrics, averaged over folds, of models of permuted sites `(r, p)`, `(r,)` each."""
    accuracy, area = [], []
    for part in parts:
        scores, members = _discriminants(part, code, sites), np.eye(sites)[code[:, part.test]]  # (r, t, s)
        size, tested = members.sum(1), len(part.test)
        right = (np.eye(sites)[scores.argmax(2)] * members).sum(1) / size
        ranks = (rankdata(scores, axis=1) * members).sum(1)
        accuracy.append(right.mean(1))
        area.append(((ranks - size * (size + 1) / 2) / (size * (tested - size))).mean(1))
    return {"balanced_accuracy": np.mean(accuracy, axis=0), "macro_auroc": np.mean(area, axis=0)}


def _metrics(logits: Tensor, target: Tensor, weight: Floats | None) -> Mapping[str, Floats]:
    scores, code = logits.numpy(), target.numpy()
    return {
        "balanced_accuracy": balanced_accuracy(scores.argmax(1), code, scores.shape[1], weight),
        "macro_auroc": macro_auroc(scores, code, weight),
    }

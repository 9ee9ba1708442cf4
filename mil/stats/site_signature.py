"""How well the site of a patient can be told from numbers about the slides.

F. M. Howard, J. Dolezal, S. Kochanny et al.: The impact of site-specific digital histology signatures on deep learning
model accuracy and bias. Nature Communications 12:4423, 2021.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mil.stats import balanced_accuracy, macro_auroc
from mil.stats.bootstrap import Floats, Fold
from mil.stats.bootstrap_intervals import Interval, difference, intervals

PARTS = 5
"""Of the cross-validation, and so the fewest patients of a site that takes part."""
NAMES = {"label": "label", "score": "score", "encoder": "encoder's mean tile", "embedding": "bag embedding"}
"""What may tell the site, in the words of sentences, tables and figures."""
COMPONENTS = 64
"""Principal components kept: more would be as many as patients, and no more telling."""


def site_predictability(
    embeddings: Floats, site: Sequence[str], resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """How well a linear model tells the site of patients that it was not fitted to.

    Logistic regression with balanced weights on at most 64 principal components, all fitted within the training part of
    a stratified five-fold cross-validation. Metrics are computed within folds and averaged; resamples keep the sites'
    sizes. A result whose interval holds `chance` does not show a signature.

    Args:
        embeddings: `(p, e)`, one row a patient.
        site: Of each; empty where not known. Sites of fewer than five patients are left out, and counted.
        resamples: Of the bootstrap.
        seed: Of folds and bootstrap.

    Returns:
        `n`, `sites`, `left_out`, and `balanced_accuracy` and `macro_auroc` with interval, n and `chance`; in their
        place `value` None and `reason` where fewer than two sites are left.
    """
    known = _known(site)
    if known.reason is not None:
        return known.counts | {"value": None, "reason": known.reason}
    found = intervals(_told_apart, _told(embeddings, known, seed), resamples, seed)
    chance = {"balanced_accuracy": 1 / known.counts["sites"], "macro_auroc": 0.5}
    return known.counts | {name: one | {"chance": chance[name]} for name, one in _shown(found, known).items()}


def beyond(
    embeddings: Floats, others: Floats, site: Sequence[str], resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """How much better `embeddings (p, e)` tell the site than `others (p, k)` of the same patients do.

    Each as `site_predictability` has it, in the same folds; both are scored on the same resamples.

    Returns:
        As `site_predictability`, of the differences and without `chance`.
    """
    known = _known(site)
    if known.reason is not None:
        return known.counts | {"value": None, "reason": known.reason}
    ours, theirs = (_told(values, known, seed) for values in (embeddings, others))
    return known.counts | _shown(difference(_told_apart, ours, theirs, resamples, seed), known)


class _Known(NamedTuple):
    """The patients of sites that are large enough."""

    kept: NDArray[np.bool_]
    """`(p,)`"""
    code: NDArray[np.intp]
    """Site of each that is kept."""
    counts: dict[str, int]
    reason: str | None
    """Why there is nothing to tell."""


def _known(site: Sequence[str]) -> _Known:
    names = np.asarray(site, dtype=np.str_)
    _, code, amount = np.unique(names, return_inverse=True, return_counts=True)
    kept = (amount[code] >= PARTS) & (names != "")
    sites, code = np.unique(names[kept], return_inverse=True)
    counts = {"n": int(kept.sum()), "sites": len(sites), "left_out": int((~kept).sum())}
    reason = f"sites of {PARTS} patients or more: {len(sites)}, expected two" if len(sites) < 2 else None
    return _Known(kept, code, counts, reason)


def _shown(found: Mapping[str, Interval], known: _Known) -> dict[str, dict[str, Any]]:
    return {
        name: {key: value for key, value in asdict(one).items() if key != "folds"} | {"n": known.counts["n"]}
        for name, one in found.items()
    }


def _told(values: Floats, known: _Known, seed: int) -> list[Fold]:
    """Logarithms of each site's probability for the patients of each fold, by a model of the others."""
    features, code = np.asarray(values, dtype=np.float64)[known.kept], known.code
    folds = []
    for train, test in StratifiedKFold(PARTS, shuffle=True, random_state=seed).split(features, code):
        amount = min(COMPONENTS, len(train) - 1)
        fewer = [PCA(amount, svd_solver="full")] if features.shape[1] > amount else []
        last = LogisticRegression(class_weight="balanced", max_iter=10_000)
        model = make_pipeline(StandardScaler(), *fewer, last).fit(features[train], code[train])
        logits = torch.from_numpy(model.predict_log_proba(features[test]))
        folds.append(Fold(logits, torch.from_numpy(code[test]), code[test].astype(np.int64), test.astype(np.str_)))
    return folds


def _told_apart(logits: Tensor, target: Tensor, weight: Floats | None) -> Mapping[str, Floats]:
    scores, code = logits.numpy(), target.numpy()
    return {
        "balanced_accuracy": balanced_accuracy(scores.argmax(1), code, scores.shape[1], weight),
        "macro_auroc": macro_auroc(scores, code, weight),
    }

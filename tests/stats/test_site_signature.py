"""How much better one set of numbers tells the site than another."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mil.stats import macro_auroc
from mil.stats.corrected_resampled import fold_mean
from mil.stats.site_signature import PERMUTATIONS, _discriminants, _means, _Part, beyond, site_predictability
from tests.estimates import triple

SITE = np.repeat(["A", "B", "C", "few", ""], [40, 40, 30, 4, 2]).tolist()


def test_the_difference_is_of_the_two_values_and_paired() -> None:
    rng = np.random.default_rng(0)
    code = np.unique(SITE, return_inverse=True)[1]
    label = rng.normal(size=(len(SITE), 2)) + np.eye(6)[code][:, :2]
    signed = rng.normal(size=(len(SITE), 20)) + 3 * rng.normal(size=(6, 20))[code]
    computed = beyond(signed, label, SITE, 200)
    assert (computed.n, computed.sites, computed.left_out, computed.chance) == (110, 3, 6, {})
    of_signed, of_label = (site_predictability(values, SITE, 200) for values in (signed, label))
    assert of_signed.chance == pytest.approx({"balanced_accuracy": 1 / 3, "macro_auroc": 0.5}, abs=0.03)
    for metric in ("balanced_accuracy", "macro_auroc"):
        gained, first, second = (getattr(result, metric) for result in (computed, of_signed, of_label))
        assert gained.value == pytest.approx(first.value - second.value)
        assert 0 < gained.low < gained.value < gained.high
        assert gained.p == pytest.approx(fold_mean(gained.folds, 1 / 4).p)
        assert first.p == second.p == 1 / (PERMUTATIONS + 1)
    again = beyond(signed, signed, SITE, 50).balanced_accuracy
    assert triple(again) == (0, 0, 0)


def test_without_two_sites_there_is_a_reason() -> None:
    numbers = np.zeros((6, 2))
    assert beyond(numbers, numbers, ["A"] * 6).reason == "sites of 5 patients or more: 1, expected two"


def test_discriminants_are_those_of_scikit_learn_without_shrinkage() -> None:
    rng = np.random.default_rng(0)
    code = np.repeat([0, 1, 2], 4000)
    values = rng.normal(size=(12_000, 3)) * [1, 1.5, 2] + rng.normal(size=(3, 3))[code]
    part = _Part(np.arange(12_000), np.arange(50), values, values[:50])
    [scores] = _discriminants(part, code[None], 3)
    theirs = LinearDiscriminantAnalysis(priors=[1 / 3] * 3).fit(values, code).decision_function(values[:50])
    assert scores - scores.mean(1, keepdims=True) == pytest.approx(
        theirs - theirs.mean(1, keepdims=True), rel=0.02, abs=0.02
    )


def test_metrics_of_many_rows_are_those_of_one_at_a_time() -> None:
    rng = np.random.default_rng(0)
    code, values = rng.integers(0, 3, (4, 60)), rng.normal(size=(60, 2)).round(1)
    part = _Part(np.arange(40), np.arange(40, 60), values[:40], values[40:])
    together = _means([part], code, 3)["macro_auroc"]
    scores = _discriminants(part, code, 3)
    alone = [float(macro_auroc(row, sites[40:])) for row, sites in zip(scores, code, strict=True)]
    assert together == pytest.approx(alone)


def test_a_signature_through_the_label_is_no_signature_beyond_it() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 300)
    site = np.where(rng.random(300) < 0.2 + 0.6 * label, "A", "B").tolist()
    score = label + 0.3 * rng.normal(size=300)
    both = np.column_stack([score, label, 1 - label])
    through = site_predictability(both, site, 50).macro_auroc
    beyond_label = site_predictability(both, site, 50, strata=label.astype(np.int64)).macro_auroc
    assert through is not None
    assert beyond_label is not None
    assert through.p == 1 / (PERMUTATIONS + 1)
    assert (beyond_label.p or 0) > 0.05
    tinted = np.column_stack([score + 0.5 * (np.array(site) == "A"), label, 1 - label])
    told = site_predictability(tinted, site, 50, strata=label.astype(np.int64)).macro_auroc
    assert told is not None
    assert told.p == 1 / (PERMUTATIONS + 1)


@pytest.mark.slow
def test_shuffled_sites_show_a_signature_in_five_percent() -> None:
    """300 cohorts of 120 patients, one-sided: standard error 0.013."""
    rng, shown = np.random.default_rng(0), 0
    for _ in range(300):
        site = rng.permutation(np.repeat(["A", "B", "C", "D"], 30)).tolist()
        area = site_predictability(rng.normal(size=(120, 20)), site, 2).macro_auroc
        assert area is not None
        shown += (area.p or 1) <= 0.05
    assert 0.01 < shown / 300 < 0.09

"""Labels associated with sites, and classes too small for the folds."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import contingency

from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.study.label_findings import STRENGTH, association, beyond_follow_up, codes_as_words, confounded, too_few


def columns(counts: list[list[int]]) -> tuple["pd.Series[str]", "pd.Series[str]"]:
    pairs = [
        (f"r{row}", f"c{at}")
        for row, row_counts in enumerate(counts)
        for at, n in enumerate(row_counts)
        for _ in range(n)
    ]
    table = pd.DataFrame(pairs, columns=["row", "column"])
    return table["row"], table["column"]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(1, 60), min_size=3, max_size=3), min_size=2, max_size=5))
def test_bias_corrected_cramers_v_is_at_most_the_uncorrected(counts: list[list[int]]) -> None:
    strength, p = association(*columns(counts))
    plain = contingency.association(np.array(counts), method="cramer")
    assert 0 <= p <= 1
    assert 0 <= strength <= 1
    # Bergsma's smaller denominator lets V exceed the plain one slightly if the association is complete
    assert strength <= plain * 1.2 + 1e-9


def test_cramers_v_has_bergsmas_correction() -> None:
    # n = 100 and chi2 = 36, so phi2 = 0.36; with two levels each: (0.36 - 1/99) / (2 - 1/99 - 1)
    strength, p = association(*columns([[40, 10], [10, 40]]))
    assert strength == pytest.approx(((0.36 - 1 / 99) / (1 - 1 / 99)) ** 0.5)
    assert p == pytest.approx(1.97e-9, rel=0.01)


def test_many_small_sites_give_no_association() -> None:
    rng = np.random.default_rng(0)
    label = pd.Series(rng.integers(0, 2, 200).astype(str))
    sites = pd.Series(rng.integers(0, 60, 200).astype(str))
    plain = contingency.association(pd.crosstab(label, sites).to_numpy(), method="cramer")
    assert plain > STRENGTH
    assert association(label, sites)[0] < STRENGTH
    assert confounded("MSI", label, sites) == []


def test_only_a_strong_association_with_site_gives_a_warning() -> None:
    (finding,) = confounded("MSI", *columns([[45, 5], [5, 45]]))
    assert (finding.severity, finding.code, finding.count) == ("warning", "site", 100)
    assert "Cramér's V 0.8" in finding.message
    strength, p = association(*columns([[5400, 4600], [4600, 5400]]))
    assert p < 1e-6
    assert strength < STRENGTH
    assert confounded("MSI", *columns([[5400, 4600], [4600, 5400]])) == []


def test_single_site_or_class_and_unknown_sites_are_ignored() -> None:
    assert association(*columns([[5, 5]])) == (0.0, 1.0)
    classes, sites = columns([[45, 5], [5, 45]])
    assert confounded("MSI", classes, sites.where(sites == "c0", "")) == []


def test_class_smaller_than_the_folds_is_named() -> None:
    patients = pd.Index([f"p{number}" for number in range(9)])
    strata = pd.Series([0] * 6 + [1] * 3, patients)
    names = pd.DataFrame({"MSI": ["MSS"] * 6 + ["MSI-H"] * 3, "age": range(9)}, patients)
    assert too_few(strata, names, 3) == []
    (finding,) = too_few(strata, names, 5)
    assert finding.message == "class 'MSI-H' of MSI has 3 patients, expected at least 5 for 5 folds"
    assert finding.first == ("p6", "p7", "p8")
    (finding,) = too_few(strata, names[["age"]], 5)
    assert finding.message.startswith("class stratum 1 has 3")


def test_codes_become_strings_and_nan_stays_missing() -> None:
    words = codes_as_words(np.array([0.0, 1.0, np.nan]), pd.Index(["a", "b", "c"]))
    assert words.tolist()[:2] == ["0", "1"]
    assert words.isna().tolist() == [False, False, True]


def test_a_horizon_beyond_the_follow_up_is_a_warning() -> None:
    endpoint = Cox(horizons={"5y": 60, "20y": 240})
    target = torch.tensor([[60.0, 1.0], [12.0, 0.0]], dtype=torch.float64)
    [finding] = beyond_follow_up(endpoint, target)
    assert finding.severity == "warning"
    assert "horizon 20y: 240 months lie beyond the follow-up" in finding.message
    assert beyond_follow_up(Binary(), torch.tensor([1.0])) == []

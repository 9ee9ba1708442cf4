"""What cuts promise for further patients, in simulations whose true sensitivity and specificity are known.

Scores are normal, with unit variance and means 0 of negatives and `SHIFT` of positives (AUROC 0.90), so that the rates
of a cut are known without further patients.
"""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import norm

from mil.errors import PredictionsError
from mil.fitted.cutoffs import choose, two_cuts
from mil.fitted.rules import SensitivityRule, SpecificityRule
from mil.stats.proportions import proportion

SHIFT = 1.8
DRAWS = 4000


class Truth(NamedTuple):
    """Rates of a cut among all patients there could be."""

    sensitivity: float
    specificity: float
    npv: float
    ppv: float


def truth(cut: float, prevalence: float = 0.5) -> Truth:
    sensitivity, specificity = norm.sf(cut - SHIFT), norm.cdf(cut)
    hits, cleared = prevalence * sensitivity, (1 - prevalence) * specificity
    missed, alarms = prevalence - hits, 1 - prevalence - cleared
    return Truth(sensitivity, specificity, cleared / (cleared + missed), hits / (hits + alarms))


def drawn(rng: np.random.Generator, positives: int, negatives: int) -> tuple[np.ndarray, np.ndarray]:
    positive = np.arange(positives + negatives) < positives
    return rng.normal(size=len(positive)) + SHIFT * positive, positive


def within_error(values: list[float], least: float, most: float) -> bool:
    """Whether the mean lies in a range, within three Monte-Carlo standard errors."""
    error = 3 * np.std(values) / np.sqrt(len(values))
    return bool(least - error <= np.mean(values) <= most + error)


def test_a_cut_for_a_sensitivity_keeps_it_on_average() -> None:
    """A plain 95% of 20 positives, the 2nd lowest score, gives 0.905 on average."""
    rng, rule = np.random.default_rng(0), SensitivityRule(rule="sensitivity", at_least=0.95)
    reached, plain = [], []
    for _ in range(1000):
        score, positive = drawn(rng, 20, 30)
        reached.append(truth(choose(rule, score, positive)).sensitivity)
        plain.append(truth(float(np.sort(score[positive])[1])).sensitivity)
    assert within_error(reached, 20 / 21, 20 / 21)
    assert within_error(plain, 19 / 21, 19 / 21)


@pytest.mark.slow
@pytest.mark.parametrize("patients", [19, 20, 40, 100, 300])
@pytest.mark.parametrize("share", [0.8, 0.9, 0.95])
def test_sensitivity_and_specificity_are_kept_on_average(patients: int, share: float) -> None:
    rng = np.random.default_rng(patients)
    sensitivities, specificities, pairs = [], [], []
    for _ in range(DRAWS):
        score, positive = drawn(rng, patients, patients)
        low = choose(SensitivityRule(rule="sensitivity", at_least=share), score, positive)
        high = choose(SpecificityRule(rule="specificity", at_least=share), score, positive)
        sensitivities.append(truth(low).sensitivity)
        specificities.append(truth(high).specificity)
        pairs.append(two_cuts({"sensitivity": share}, {"specificity": share}, score, positive))
    # a cut above a negative is the next score of anybody, so that a specificity is a little more than its rank says
    assert within_error(sensitivities, share, share + 1 / (patients + 1))
    assert within_error(specificities, share, share + 2 / (patients + 1))
    assert within_error([truth(cuts[0]).sensitivity for cuts in pairs], share, 1)
    assert within_error([truth(cuts[-1]).specificity for cuts in pairs], share, 1)


@pytest.mark.slow
@pytest.mark.parametrize("patients", [40, 100, 300])
def test_an_npv_or_a_ppv_is_not_kept_by_further_patients(patients: int) -> None:
    """Why no promise is printed for them: the cut is chosen by the rate that it is to have."""
    npv, ppv = npv_and_ppv(patients, prevalence=0.3, share=0.95)
    assert np.mean(npv) < 0.95
    assert np.mean(ppv) < 0.95
    assert np.mean(npv) > 0.85
    assert np.mean(ppv) > 0.80


def npv_and_ppv(patients: int, prevalence: float, share: float, draws: int = DRAWS) -> tuple[list[float], list[float]]:
    """Return true NPV and PPV of cuts that reach them among the patients who set them."""
    rng = np.random.default_rng(patients)
    npv, ppv = [], []
    for _ in range(draws):
        positives = int(np.clip(rng.binomial(patients, prevalence), 1, patients - 1))
        score, positive = drawn(rng, positives, patients - positives)
        try:
            cuts = two_cuts({"npv": share}, {"ppv": share}, score, positive)
        except PredictionsError:
            continue
        npv.append(truth(cuts[0], prevalence).npv)
        ppv.append(truth(cuts[-1], prevalence).ppv)
    return npv, ppv


@pytest.mark.slow
@pytest.mark.parametrize("patients", [40, 100, 300])
def test_the_undecided_share_of_stated_cuts_is_covered(patients: int) -> None:
    """1,000 cohorts: Monte-Carlo error 0.007. Scores lie between two stated cuts with a known probability."""
    rng = np.random.default_rng(patients)
    low, high = 0.4, 1.6
    shares = [norm.cdf(high - shift) - norm.cdf(low - shift) for shift in (0, SHIFT)]
    truth_of_all, held = float(np.mean(shares)), []
    for _ in range(1000):
        score, _ = drawn(rng, patients // 2, patients // 2)
        estimate = proportion(int(((score >= low) & (score < high)).sum()), len(score))
        assert estimate.low is not None
        assert estimate.high is not None
        held.append(estimate.low <= truth_of_all <= estimate.high)
    assert abs(np.mean(held) - 0.95) < 0.03

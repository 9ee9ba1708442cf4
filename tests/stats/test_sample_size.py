"""Sample sizes against the worked examples of pmsampsize, pmvalsampsize and their papers."""

import math

import numpy as np
import pytest
from scipy import stats

from mil.errors import ConfigError
from mil.stats import sample_size
from mil.stats.sample_size import Plan


def sizes(plan: Plan) -> dict[str, int]:
    return {criterion.name.split(",")[0]: criterion.patients for criterion in plan.criteria}


def test_binary_development_is_pmsampsizes_example() -> None:
    """`pmsampsize(type = "b", csrsquared = 0.288, parameters = 24, prevalence = 0.174)`: 623, 662 and 221."""
    plan = sizes(sample_size.develop_binary(0.174, 24, 0.288))
    assert plan["shrinkage 0.9"] == 623
    assert plan["optimism of R² at most 0.05"] == 662
    assert plan["overall risk within 0.05"] == 221


def test_binary_development_is_the_bmjs_example_of_pre_eclampsia() -> None:
    """Riley et al., BMJ 2020: 30 parameters, prevalence 0.05, Cox-Snell R² 0.05 need 5,249 patients."""
    plan = sample_size.develop_binary(0.05, 30, 0.05)
    assert plan.patients == sizes(plan)["shrinkage 0.9"] == 5249
    assert sizes(plan)["overall risk within 0.05"] == 73
    assert sizes(plan)["mean absolute error of risks 0.05"] == 544
    assert plan.events == 263


@pytest.mark.parametrize(
    ("arguments", "patients", "optimism"),
    [((0.065, 2, 2.07, 30, 0.051), 5143, 1039), ((0.08, 5, 4.2, 30, 0.05), 5249, 760)],
)
def test_survival_development_is_pmsampsizes_example(
    arguments: tuple[float, float, float, int, float], patients: int, optimism: int
) -> None:
    plan = sample_size.develop_survival(*arguments)
    assert plan.patients == sizes(plan)["shrinkage 0.9"] == patients
    assert sizes(plan)["optimism of R² at most 0.05"] == optimism
    assert plan.events == math.ceil(patients * arguments[0] * arguments[2])


def test_continuous_development_is_pmsampsizes_example() -> None:
    """`pmsampsize(type = "c", rsquared = 0.2, parameters = 25, intercept = 1.9, sd = 0.6)`: 918, 401 and 259."""
    plan = sample_size.develop_continuous(1.9, 0.6, 25, 0.2)
    assert plan.patients == sizes(plan)["shrinkage 0.9"] == 918
    assert sizes(plan)["optimism of R² at most 0.05"] == 401
    assert sizes(plan)["residual sd within a factor 1.1"] == 259
    assert plan.events is None


def test_the_residual_sd_has_its_margin_from_234_degrees_of_freedom_on() -> None:
    """Harrell, Regression Modeling Strategies, 2015, section 4.4."""

    def factor(freedom: int) -> float:
        low, high = stats.chi2.ppf([0.025, 0.975], freedom)
        return float(max((high / freedom) ** 0.5, (freedom / low) ** 0.5))

    assert factor(sample_size._RESIDUAL) <= 1.1 < factor(sample_size._RESIDUAL - 2)


def test_r2_of_an_auroc_is_that_of_a_logistic_regression_of_simulated_scores() -> None:
    """`pmsampsize(type = "b", cstatistic = 0.78, parameters = 30, prevalence = 0.2)` simulates 0.158: 1,556."""
    rng = np.random.default_rng(0)
    label = np.arange(400_000) < 80_000
    gap = 2**0.5 * stats.norm.ppf(0.78)
    logits = gap * (rng.normal(size=len(label)) + gap * label) - gap**2 / 2 + np.log(0.25)
    gained = np.where(label, -np.log1p(np.exp(-logits)), -np.log1p(np.exp(logits))).mean()
    null = 0.2 * np.log(0.2) + 0.8 * np.log(0.8)
    r2 = sample_size.r2_from_auroc(0.78, 0.2)
    assert r2 == pytest.approx(1 - np.exp(2 * (null - gained)), abs=0.002)
    assert sample_size.develop_binary(0.2, 30, r2).patients == pytest.approx(1556, rel=0.01)


def test_validation_is_pmvalsampsizes_example() -> None:
    """Prevalence 0.2, C 0.78, logits N(-1.75, 1.22): slope 2,958 (simulated there), O/E 1,538 (in steps), C 511."""
    plan = sample_size.validate_binary(0.2, 0.78, (-1.75, 1.22))
    assert sizes(plan) == {
        "AUROC": 511,
        "calibration slope": pytest.approx(2958, rel=0.005),
        "observed/expected": pytest.approx(1538, rel=0.005),
    }
    valve = sizes(sample_size.validate_binary(0.018, 0.8, (-5, 2.5), ratio_width=1.0))
    assert valve["AUROC"] == 4252
    assert valve["calibration slope"] == pytest.approx(4544, rel=0.005)
    assert valve["observed/expected"] == pytest.approx(905, rel=0.005)


def test_logits_that_give_prevalence_and_auroc_are_those_that_were_simulated() -> None:
    mean, sd = sample_size.normal_logits(0.2, 0.78)
    assert mean == pytest.approx(-1.75, abs=0.02)
    assert sd == pytest.approx(1.22, abs=0.02)


def test_planned_widths_are_reached_by_simulated_validations() -> None:
    """Standard errors over 400 studies of the planned size, for net benefit, observed/expected and AUROC."""
    rng = np.random.default_rng(1)
    plan = sample_size.validate_binary(0.3, 0.8, benefit=(0.72, 0.74, 0.3), benefit_width=0.2, ratio_width=0.3)
    by_name = sizes(plan)
    n = by_name["standardised net benefit"]
    hits, alarms = rng.multinomial(n, [0.3 * 0.72, 0.7 * 0.26, 1 - 0.3 * 0.72 - 0.7 * 0.26], 4000).T[:2]
    positives = hits + rng.binomial(n - hits - alarms, 0.3 * 0.28 / (0.3 * 0.28 + 0.7 * 0.74))
    benefit = (hits / n - alarms / n * 0.3 / 0.7) / (positives / n)
    assert 2 * 1.96 * benefit.std() == pytest.approx(0.2, rel=0.12)
    n = by_name["observed/expected"]
    low, high = np.exp(np.quantile(np.log(rng.binomial(n, 0.3, 20_000) / (0.3 * n)), [0.025, 0.975]))
    assert high - low == pytest.approx(0.3, rel=0.05)


def test_assumptions_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"R²: 0.9, expected between 0 and 0\.6"):
        sample_size.develop_binary(0.174, 24, 0.9)
    with pytest.raises(ConfigError, match=r"prevalence: 1\.2"):
        sample_size.validate_binary(1.2, 0.8)
    with pytest.raises(ConfigError, match=r"AUROC: 0\.4, expected between 0\.5 and 1"):
        sample_size.r2_from_auroc(0.4, 0.2)
    with pytest.raises(ConfigError, match="rate: 0"):
        sample_size.develop_survival(0, 2, 2, 3, 0.05)

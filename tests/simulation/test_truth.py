from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from sklearn.metrics import roc_auc_score

from mil.errors import ConfigError
from mil.simulation.draws import stratified
from mil.simulation.effect_sizes import event_rate, harrell_c, macro_auroc, proportional_hazard, sample_c
from mil.simulation.patients import Patients
from mil.simulation.simulated_cohort import Simulation, draw_patients
from mil.simulation.targets.class_targets import Binary, Multiclass
from mil.simulation.targets.event_targets import Survival
from mil.simulation.targets.simulated_target import Target

CLASSES = ("POLE", "MSI-H", "NSMP", "p53abn")


def patients(target: Target, seed: int = 0, **options: float) -> Patients:
    return draw_patients(Simulation(target, seed=seed, **options))  # type: ignore[arg-type]  # options are of many types


@pytest.mark.parametrize(("prevalence", "attainable"), [(0.15, 0.92), (0.4, 0.99), (0.37, 0.65), (0.5, 0.5)])
def test_a_perfect_reader_of_a_binary_cohort_has_the_attainable_auroc(prevalence: float, attainable: float) -> None:
    target = Binary("label", ("no", "yes"), prevalence, attainable)
    for seed in range(10):
        cohort = patients(target, seed)
        positive = cohort.clinic["label"] == "yes"
        assert positive.mean() == pytest.approx(prevalence, abs=0.0051)
        assert roc_auc_score(positive, cohort.oracle["oracle"]) == pytest.approx(attainable, abs=0.02)


@pytest.mark.parametrize(
    ("rate", "attainable", "shape"), [(0.28, 0.68, 1.2), (0.9, 0.65, 1.2), (0.3, 0.71, 0.8), (0.1, 0.76, 1.2)]
)
def test_a_perfect_reader_of_a_survival_cohort_has_the_attainable_c_index(
    rate: float, attainable: float, shape: float
) -> None:
    target = Survival("time", "event", rate, attainable, shape=shape)
    rates = []
    for seed in range(4):
        cohort = patients(target, seed)
        time, event = cohort.clinic["time"], cohort.clinic["event"]
        assert concordance_index(time, -cohort.oracle["oracle"], event) == pytest.approx(attainable, abs=0.03)
        assert time.between(0.01, 60).all()
        rates.append(event.mean())
    assert np.mean(rates) == pytest.approx(rate, abs=0.03)


def test_the_macro_auroc_of_the_shares_is_the_attainable_one() -> None:
    target = Multiclass("type", CLASSES, (0.08, 0.28, 0.42, 0.22), 0.87)
    for seed in range(5):
        cohort = patients(target, seed)
        scores = cohort.oracle[[f"oracle_{name}" for name in sorted(CLASSES)]]
        area = roc_auc_score(cohort.clinic["type"], scores, multi_class="ovr", labels=sorted(CLASSES))
        assert area == pytest.approx(0.87, abs=0.02)
        assert Counter(cohort.clinic["type"]) == {"POLE": 16, "MSI-H": 56, "NSMP": 84, "p53abn": 44}


def test_the_population_c_index_agrees_with_lifelines_on_patients_drawn_without_strata() -> None:
    hazard = proportional_hazard(0.72, 0.35, horizon=60.0, shape=1.3)
    rng = np.random.default_rng(1)
    severity = rng.standard_normal(20_000)
    died = hazard.scale * (rng.exponential(size=20_000) * np.exp(-hazard.slope * severity)) ** (1 / hazard.shape)
    left = np.minimum(60.0, rng.exponential(1 / hazard.loss, 20_000))
    shown = severity + 0.3 * rng.standard_normal(20_000)
    c_index = concordance_index(np.minimum(died, left), -shown, died <= left)
    assert c_index == pytest.approx(harrell_c(hazard), abs=0.01)
    assert (died <= left).mean() == pytest.approx(event_rate(hazard), abs=0.01)
    assert (harrell_c(hazard), event_rate(hazard)) == pytest.approx((0.72, 0.35), abs=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(5, 60))
def test_own_discrimination_equals_the_libraries(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    time, score = rng.integers(1, 10, count) + rng.random(count), rng.integers(0, 5, count).astype(float)
    event = np.r_[1, rng.integers(0, 2, count - 1)]
    event[np.argmin(time)] = 1
    assert sample_c(time, event, score) == pytest.approx(concordance_index(time, -score, event))
    label = np.r_[0, 1, 2, rng.integers(0, 3, count - 3)]
    shares = rng.dirichlet(np.ones(3), count)
    assert macro_auroc(shares, label) == pytest.approx(roc_auc_score(label, shares, multi_class="ovr"))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 300), st.integers(1, 8), st.integers(0, 2**32))
def test_stratified_numbers_have_one_in_each_stratum(rows: int, columns: int, seed: int) -> None:
    numbers = stratified(rows, columns, np.random.default_rng(seed))
    strata = np.sort(np.floor(numbers * rows).astype(int), axis=0)
    assert np.array_equal(strata, np.repeat(np.arange(rows)[:, None], columns, axis=1))


def test_label_noise_flips_as_many_labels_as_asked_and_truth_keeps_both() -> None:
    for target in (Binary("label", "01", 0.3, 0.9), Multiclass("label", "abc", (0.3, 0.3, 0.4), 0.9)):
        truth = patients(target, label_noise=0.1).truth
        assert (truth["label"] != truth["clean_label"]).sum() == 20
        assert set(truth["label"]) == set(truth["clean_label"])


def test_label_noise_in_survival_exchanges_times_with_their_events() -> None:
    truth = patients(Survival("time", "event", 0.5, 0.7), label_noise=0.2).truth
    noisy, clean = truth[["time", "event"]], truth[["clean_time", "clean_event"]].set_axis(["time", "event"], axis=1)
    assert 35 <= (noisy != clean).any(axis=1).sum() <= 40
    assert noisy["event"].dtype == np.int64
    pd.testing.assert_frame_equal(in_order(noisy), in_order(clean))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["time", "event"], ignore_index=True)


def test_an_uncensored_time_is_the_followed_one_where_there_is_an_event_and_later_elsewhere() -> None:
    truth = patients(Survival("time", "event", 0.4, 0.7)).truth
    died = truth["event"] == 1
    assert truth.loc[died, "time"].to_numpy() == pytest.approx(truth.loc[died, "uncensored_time"].clip(0.01).to_numpy())
    assert (truth.loc[~died, "uncensored_time"] >= truth.loc[~died, "time"]).all()
    assert 0 < (truth.loc[~died, "time"] < 60).mean() < 1  # some are lost before the horizon, some reach it


def test_sites_differ_in_prevalence() -> None:
    cohort = patients(Binary("label", ("no", "yes"), 0.3, 0.9), patients=3000)
    by_site = (cohort.clinic["label"] == "yes").groupby(cohort.clinic["site"]).mean()
    assert len(by_site) == 4
    assert by_site.max() > 1.4 * by_site.min()


def test_the_mean_number_of_slides_is_the_one_asked_for() -> None:
    assert patients(Binary("label", "01", 0.3, 0.9), slides=1.7).slides.mean() == pytest.approx(1.7, abs=0.05)
    assert (patients(Binary("label", "01", 0.3, 0.9), slides=1.0).slides == 1).all()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Binary("y", ("a", "b"), 0.0, 0.9), "prevalence"),
        (lambda: Binary("y", ("a", "b"), float("nan"), 0.9), "prevalence"),
        (lambda: Binary("y", ("a", "a"), 0.5, 0.9), "classes"),
        (lambda: Binary("y", ("a", "b", "c"), 0.5, 0.9), "classes"),
        (lambda: Binary("y", ("a", "b"), 0.5, 1.0), "attainable"),
        (lambda: Binary("y", ("a", "b"), 0.5, 0.4), "attainable"),
        (lambda: Multiclass("y", "abc", (0.5, 0.5), 0.9), "prevalence"),
        (lambda: Multiclass("y", "abc", (0.5, 0.3, 0.3), 0.9), "prevalence"),
        (lambda: Survival("t", "e", 1.0, 0.7), "event_rate"),
        (lambda: Survival("t", "e", 0.3, 0.7, horizon=0.0), "horizon"),
        (lambda: Survival("t", "e", 0.3, 0.7, shape=-1.0), "shape"),
        (lambda: patients(Survival("t", "e", 0.3, 0.99)), "attainable"),
        (lambda: patients(Multiclass("y", "abc", (0.3, 0.3, 0.4), 0.9), patients=5), "patients"),
    ],
)
def test_a_target_that_cannot_be_is_refused_by_the_parameter_s_name(make, named: str) -> None:  # type: ignore[no-untyped-def]  # lambdas of every target
    with pytest.raises(ConfigError, match=f"^{named}: .* (expected|at most .*)$"):
        make()

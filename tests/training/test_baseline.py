"""The linear baseline against scikit-learn, and learning rate schedules against their formulas."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.training.baseline import PENALTIES, _fit, linear_logits
from mil.training.schedule import Constant, Cosine


def random_data(patients: int = 120, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(patients, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(patients, generator=generator, dtype=torch.float64)
    return features, (features[:, 0] + noise > 0).double()


@pytest.mark.parametrize("penalty", [1e-3, 1e-2, 1e-1])
def test_linear_fit_matches_scikit_learn(penalty: float) -> None:
    features, target = random_data()
    weight, bias = _fit(features, target, Binary(), penalty)
    oracle = LogisticRegression(C=1 / (2 * penalty * len(target)), tol=1e-10, max_iter=1000).fit(features, target)
    np.testing.assert_allclose(weight.squeeze(1), oracle.coef_[0], atol=1e-3)
    np.testing.assert_allclose(bias, oracle.intercept_, atol=1e-3)


def test_report_patients_do_not_influence_the_fit() -> None:
    features, target = random_data()
    train, select = torch.arange(60), torch.arange(60, 90)
    logits = linear_logits(features, target, train, select, Binary())
    features[90:], target[90:] = 1e3, 1 - target[90:]
    again = linear_logits(features, target, train, select, Binary())
    assert torch.equal(logits[:90], again[:90])


def test_penalty_with_the_lowest_select_loss_is_chosen() -> None:
    features, target = random_data(width=40)
    train, select = torch.arange(60), torch.arange(60, 120)
    spread, middle = torch.std_mean(features[train], 0)
    inputs = (features - middle) / spread
    losses = []
    for penalty in PENALTIES:
        weight, bias = _fit(inputs[train], target[train], Binary(), penalty)
        losses.append(float(Binary().loss(inputs[select] @ weight + bias, target[select])))
    chosen = linear_logits(features, target, train, select, Binary())
    assert float(Binary().loss(chosen[select], target[select])) == pytest.approx(min(losses))
    assert losses.index(min(losses)) > 0, "with 40 features and 60 patients the weakest penalty is not the best one"


def test_linear_baseline_fits_survival() -> None:
    features, _ = random_data()
    time = torch.exp(-features[:, 0])
    target = torch.stack([time, torch.ones_like(time)], 1)
    logits = linear_logits(features, target, torch.arange(80), torch.arange(80, 120), Cox())
    assert float(Cox().score(logits[80:], target[80:])["c_index"]) > 0.9


def test_constant_feature_gives_finite_logits() -> None:
    features, target = random_data()
    features[:, 1] = 3.0
    assert linear_logits(features, target, torch.arange(60), torch.arange(60, 120), Binary()).isfinite().all()


def test_cosine_schedule_rises_then_falls_to_its_floor() -> None:
    schedule = Cosine(warmup=0.1, floor=0.02)
    factors = [schedule(step, 1000) for step in range(1000)]
    assert factors[:100] == sorted(factors[:100])
    assert factors[100:] == sorted(factors[100:], reverse=True)
    assert max(factors) == pytest.approx(1)
    assert factors[550] == pytest.approx(0.02 + 0.98 / 2)
    assert schedule(1000, 1000) == pytest.approx(0.02)
    assert schedule(2000, 1000) == pytest.approx(0.02), "a run that is longer than planned stays at the floor"
    assert 0 < factors[0] < 0.02


def test_constant_schedule_is_one() -> None:
    assert {Constant()(step, 10) for step in range(10)} == {1.0}

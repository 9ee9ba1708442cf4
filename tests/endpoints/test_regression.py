"""Regression losses and scores against scipy and scikit-learn."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import huber
from scipy.stats import norm
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, r2_score
from torch import Tensor

from mil.endpoints.regression import LOSSES, Regression
from mil.errors import CohortError, ConfigError, PredictionsError

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
every = pytest.mark.parametrize("loss", LOSSES)
COLUMNS = {
    "squared": ["value"],
    "gaussian": ["value", "value_sd"],
    "huber": ["value"],
    "quantile": ["value_q10", "value", "value_q90"],
}


def random_case(loss: str, seed: int, count: int = 40, scale: float = 1.0) -> tuple[Regression, Tensor, Tensor]:
    """Return an endpoint fitted to targets `(p,)` around 300, and logits `(p, c)`."""
    rng = np.random.default_rng(seed)
    target = torch.tensor(300 + 20 * rng.normal(size=count))
    judge = Regression("ki67", "percent", loss)
    judge.fit(target)
    return judge, torch.tensor(scale * rng.normal(size=(count, judge.out_dim))), target


def decoded_table(judge: Regression, logits: Tensor) -> pd.DataFrame:
    return pd.DataFrame({name: values.numpy() for name, values in judge.decode(logits).items()})


@every
@few
@given(seed=seeds)
def test_loss_in_standard_deviations_matches_scipy_and_scikit_learn(loss: str, seed: int) -> None:
    judge, logits, target = random_case(loss, seed)
    values, y, sd = decoded_table(judge, logits), target.numpy(), target.numpy().std()
    expected = {
        "squared": lambda: np.mean((values["value"] - y) ** 2) / 2 / sd**2,
        "gaussian": lambda: -norm.logpdf(y / sd, values["value"] / sd, values["value_sd"] / sd).mean(),
        "huber": lambda: huber(1.0, (values["value"] - y) / sd).mean(),
        "quantile": lambda: np.mean(
            [mean_pinball_loss(y, values[name], alpha=a) / sd for name, a in zip(values, (0.1, 0.5, 0.9), strict=True)]
        ),
    }
    assert judge.loss(logits, target).item() == pytest.approx(expected[loss](), rel=1e-9)


@every
def test_gradients_match_finite_differences(loss: str) -> None:
    judge, logits, target = random_case(loss, 0, 8)
    assert torch.autograd.gradcheck(lambda values: judge.loss(values, target), (logits.requires_grad_(),))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_loss_and_gradient_are_finite_in_any_precision(loss: str, dtype: torch.dtype) -> None:
    judge, logits, target = random_case(loss, 0, scale=80)
    extreme = logits.to(dtype).requires_grad_()
    loss_value = judge.loss(extreme, target)
    (gradient,) = torch.autograd.grad(loss_value, extreme)
    assert loss_value.dtype == gradient.dtype == dtype
    assert loss_value.isfinite()
    assert gradient.isfinite().all()


@every
@few
@given(seed=seeds, shift=st.floats(-1e3, 1e3), scale=st.floats(1e-3, 1e3))
def test_change_of_unit_changes_the_output_but_not_the_loss(loss: str, seed: int, shift: float, scale: float) -> None:
    judge, logits, target = random_case(loss, seed)
    permille = Regression("ki67", "permille", loss)
    permille.fit(shift + scale * target)
    torch.testing.assert_close(permille.loss(logits, shift + scale * target), judge.loss(logits, target))
    before, after = decoded_table(judge, logits), decoded_table(permille, logits)
    for name in before:
        moved = scale * before[name] + (0 if name == "value_sd" else shift)
        np.testing.assert_allclose(after[name], moved, rtol=1e-9, atol=1e-9)


@every
@few
@given(seed=seeds, scale=st.sampled_from([1.0, 30.0]))
def test_scores_match_scikit_learn_in_the_original_unit(loss: str, seed: int, scale: float) -> None:
    judge, logits, target = random_case(loss, seed, scale=scale)
    value, scores = decoded_table(judge, logits)["value"], judge.score(logits, target)
    assert scores["r2"] == pytest.approx(r2_score(target, value))
    assert scores["mae"] == pytest.approx(mean_absolute_error(target, value))


@every
@few
@given(seed=seeds)
def test_unfitted_endpoint_scores_a_table_like_a_fitted_one(loss: str, seed: int) -> None:
    judge, logits, target = random_case(loss, seed)
    table, bare = decoded_table(judge, logits), Regression("ki67", loss=loss)
    assert list(table) == COLUMNS[loss] == list(bare.decode(logits))
    torch.testing.assert_close(judge.recode(table), logits, rtol=1e-6, atol=1e-6)
    weight = np.random.default_rng(seed).integers(1, 3, (3, 40)).astype(float)
    for name, values in judge.score(logits, target, weight).items():
        assert values.shape == (3,)
        np.testing.assert_allclose(bare.score(bare.recode(table), target, weight)[name], values, rtol=1e-9, atol=1e-10)


@few
@given(seeds)
def test_quantiles_never_cross(seed: int) -> None:
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    judge = Regression(loss="quantile", quantiles=levels)
    columns = judge.decode(torch.tensor(100 * np.random.default_rng(seed).normal(size=(30, 5))))
    assert list(columns) == ["value_q5", "value_q25", "value", "value_q75", "value_q95"]
    assert (torch.stack(list(columns.values()), 1).diff(dim=1) >= 0).all()


def test_quantiles_without_features_are_those_of_the_targets() -> None:
    rng = np.random.default_rng(0)
    target = torch.tensor(50 + 8 * rng.normal(size=2000))
    judge = Regression(loss="quantile")
    judge.fit(target)
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = judge.loss(logits.expand(2000, 3), target)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships this method without types
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]  # likewise
    predicted = torch.cat(list(judge.decode(logits.detach()).values()))
    np.testing.assert_allclose(predicted, np.quantile(target, [0.1, 0.5, 0.9]), atol=0.3)


@every
def test_oracle_scores_are_read_as_values(loss: str) -> None:
    judge, _, target = random_case(loss, 0)
    scores = judge.score(judge.from_oracle(target.unsqueeze(1) + 1), target)
    assert scores["mae"] == pytest.approx(1)
    assert scores["pearson"] == pytest.approx(1)


def test_mean_and_standard_deviation_survive_json() -> None:
    judge, logits, target = random_case("gaussian", 0)
    restored = Regression("ki67", loss="gaussian")
    restored.load_state(json.loads(json.dumps(judge.state(), allow_nan=False)))
    assert judge.state() == {"mean": pytest.approx(target.mean()), "sd": pytest.approx(target.numpy().std())}
    pd.testing.assert_frame_equal(decoded_table(restored, logits), decoded_table(judge, logits))


@pytest.mark.parametrize("value", ["", "high", None, float("inf")])
def test_nonnumeric_value_error_names_the_row(value: Any) -> None:
    table = pd.DataFrame({"ki67": pd.Series([1, value, "3.5", value], index=["p0", "p1", "p2", "p3"], dtype=object)})
    with pytest.raises(CohortError) as error:
        Regression("ki67").encode(table)
    message = f"column ki67, row of p1 (and 1 more): found {str(value)!r}, expected a number"
    assert str(error.value) == message
    assert Regression("ki67").encode(table.iloc[[0, 2]]).tolist() == [1, 3.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l2"}, "endpoint ki67: loss 'l2', expected one of squared, gaussian, huber, quantile"),
        ({"delta": 0.0}, "endpoint ki67: delta 0.0, expected a positive number"),
        ({"quantiles": [0.1, 0.9]}, "endpoint ki67: quantiles [0.1, 0.9], expected numbers that rise, 0.5 among them"),
        ({"quantiles": [0.5, 0.1]}, "endpoint ki67: quantiles [0.5, 0.1], expected numbers that rise, 0.5 among them"),
        ({"quantiles": [0, 0.5]}, "endpoint ki67: quantiles [0.0, 0.5], expected numbers that rise, 0.5 among them"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Regression("ki67", **options)
    assert str(error.value) == message


def test_target_named_like_a_prediction_column_is_refused() -> None:
    """Otherwise the prediction would overwrite the target in the table and look perfect."""
    with pytest.raises(ConfigError, match="endpoint value: the predictions have a column of that name"):
        Regression("value")
    with pytest.raises(ConfigError, match="endpoint value_q10: "):
        Regression("value_q10", loss="quantile")


def test_constant_target_and_class_balance_are_refused() -> None:
    with pytest.raises(CohortError, match="column ki67: all 3 training patients are 2, expected different numbers"):
        Regression("ki67").fit(torch.full((3,), 2.0))
    with pytest.raises(ConfigError, match=r"data\.balance"):
        Regression("ki67").fit(torch.arange(3.0), balance=True)


def test_invalid_predictions_are_refused() -> None:
    with pytest.raises(PredictionsError, match="no column 'value_sd', found value"):
        Regression(loss="gaussian").recode(pd.DataFrame({"value": [1.0]}))
    with pytest.raises(PredictionsError, match="1 rows of value are not finite numbers"):
        Regression().recode(pd.DataFrame({"value": [1.0, np.nan]}))
    with pytest.raises(PredictionsError, match="1 rows of value_q10, value, value_q90 fall, expected to rise"):
        Regression(loss="quantile").recode(pd.DataFrame([[1, 2, 3], [1, 0, 3]], columns=COLUMNS["quantile"]))


@pytest.mark.parametrize(("count", "amount"), [(5, 1), (25, 2), (100, 4)])
def test_strata_divide_patients_by_rank(count: int, amount: int) -> None:
    target = torch.randperm(count).double()
    strata = Regression().strata(target)
    assert len(set(strata)) == amount
    assert (np.diff(strata[target.argsort()]) >= 0).all()
    assert np.bincount(strata).min() >= min(10, count)


def test_gaussian_loss_is_minimal_at_the_true_spread() -> None:
    judge, _, target = random_case("gaussian", 0, 2000)
    spreads = [0.5, 1.0, 2.0]
    logits = [torch.tensor([[0.0, np.log(np.expm1(spread))]]).double().expand(2000, 2) for spread in spreads]
    losses = [judge.loss(row, target).item() for row in logits]
    assert losses[1] == min(losses)

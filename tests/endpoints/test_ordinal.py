"""Grades: valid class probabilities for any logits; losses and kappa against scikit-learn and the papers."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from torch import Tensor
from torch.nn import functional

from mil.endpoints.ordinal import METHODS, Ordinal, boundaries
from mil.errors import ConfigError, PredictionsError

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
GRADES = ("benign", "1", "2", "3", "4")
every = pytest.mark.parametrize("method", list(METHODS))


def random_case(method: str, seed: int, count: int = 60, scale: float = 2.0) -> tuple[Ordinal, Tensor, Tensor]:
    """Return an endpoint of five grades, logits `(p, c)` and grades `(p,)`; every grade occurs."""
    judge, rng = Ordinal(classes=GRADES, method=method), np.random.default_rng(seed)
    grade = np.concatenate([np.arange(5), rng.integers(0, 5, count - 5)])
    return judge, torch.tensor(scale * rng.normal(size=(count, judge.out_dim))), torch.tensor(grade)


def class_probabilities(judge: Ordinal, logits: Tensor) -> Tensor:
    """Return class probabilities, `(p, 5)`."""
    columns = judge.decode(logits)
    return torch.stack([columns[f"p_{name}"] for name in GRADES], 1)


@every
@few
@given(seed=seeds, scale=st.sampled_from([0.1, 3.0, 100.0]))
def test_class_probabilities_are_nonnegative_and_sum_to_one(method: str, seed: int, scale: float) -> None:
    judge, logits, _ = random_case(method, seed, scale=scale)
    share = class_probabilities(judge, logits)
    assert (share >= 0).all()
    torch.testing.assert_close(share.sum(1), torch.ones(60, dtype=torch.float64), rtol=0, atol=1e-14)
    above, below = judge.method.above(logits, judge.steps)
    assert (above.diff(dim=1) <= 0).all()
    torch.testing.assert_close(above.exp(), 1 - share.cumsum(1)[:, :-1], rtol=0, atol=1e-14)
    torch.testing.assert_close(below.exp(), share.cumsum(1)[:, :-1], rtol=0, atol=1e-14)


@few
@given(st.floats(-30, 30))
def test_binomial_matches_scipy_and_has_one_mode(value: float) -> None:
    judge, logits = Ordinal(classes=GRADES, method="binomial"), torch.tensor([[value]], dtype=torch.float64)
    share = class_probabilities(judge, logits)[0]
    np.testing.assert_allclose(share, binom.pmf(np.arange(5), 4, 1 / (1 + np.exp(-value))), rtol=1e-9, atol=1e-14)
    turns = np.sign(np.diff(share[share > 1e-14]))
    assert (np.diff(turns) <= 0).all()


@few
@given(seeds)
def test_cumulative_loss_is_coral_loss_of_falling_thresholds(seed: int) -> None:
    judge, logits, grade = random_case("cumulative", seed)
    expected = []
    for row, label in zip(logits.tolist(), grade.tolist(), strict=True):
        at = np.cumsum([row[0], *(-np.log1p(np.exp(value)) for value in row[1:])])
        p = 1 / (1 + np.exp(-at))
        expected.append(-np.mean([np.log(p[k]) if label > k else np.log(1 - p[k]) for k in range(4)]))
    assert judge.loss(logits, grade).item() == pytest.approx(np.mean(expected), rel=1e-10)


def test_shared_distances_give_proportional_odds() -> None:
    """CORAL's model: one score per patient, and thresholds shared by all patients."""
    score, distances = torch.randn(20, 1), torch.randn(1, 3)
    at = boundaries(torch.cat([score, distances.expand(20, 3)], 1))
    torch.testing.assert_close(at - score, (at - score)[:1].expand(20, 4), rtol=1e-5, atol=1e-5)


@few
@given(seeds)
def test_corn_multiplies_conditional_probabilities(seed: int) -> None:
    judge, logits, _ = random_case("corn", seed)
    above = logits.sigmoid().cumprod(1)
    full = functional.pad(functional.pad(above, (1, 0), value=1.0), (0, 1))
    torch.testing.assert_close(class_probabilities(judge, logits), -full.diff(dim=1), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("method", ["corn", "binomial"])
@few
@given(seed=seeds)
def test_loss_is_the_negative_log_likelihood(method: str, seed: int) -> None:
    judge, logits, grade = random_case(method, seed)
    likelihood = class_probabilities(judge, logits).gather(1, grade[:, None])
    assert judge.loss(logits, grade).item() == pytest.approx(-likelihood.log().mean().item(), rel=1e-9)


@every
@pytest.mark.parametrize("balance", [False, True])
def test_gradients_match_finite_differences(method: str, balance: bool) -> None:
    judge, logits, grade = random_case(method, 0, 8)
    judge.fit(grade, balance)
    assert torch.autograd.gradcheck(lambda values: judge.loss(values, grade), (logits.requires_grad_(),))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_loss_and_gradient_are_finite_in_any_precision(method: str, dtype: torch.dtype) -> None:
    judge, logits, grade = random_case(method, 0, scale=80)
    judge.fit(grade, balance=True)
    extreme = logits.to(dtype).requires_grad_()
    loss = judge.loss(extreme, grade)
    (gradient,) = torch.autograd.grad(loss, extreme)
    assert loss.dtype == gradient.dtype == dtype
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert judge.recode(pd.DataFrame(judge.decode(extreme.detach()))).isfinite().all()


@every
@few
@given(seed=seeds)
def test_scores_match_scikit_learn(method: str, seed: int) -> None:
    judge, logits, grade = random_case(method, seed)
    share, scores = class_probabilities(judge, logits).numpy(), judge.score(logits, grade)
    called = (share.cumsum(1)[:, :-1] < 0.5).sum(1)
    kappa = cohen_kappa_score(grade, called, labels=range(5), weights="quadratic")
    assert scores["qwk"] == pytest.approx(kappa, abs=1e-12)
    assert scores["macro_auroc"] == pytest.approx(roc_auc_score(grade, share, multi_class="ovr"), abs=1e-9)
    for k, name in enumerate(GRADES[1:]):
        area = roc_auc_score(grade > k, 1 - share.cumsum(1)[:, k])
        assert scores[f"auroc_from_{name}"] == pytest.approx(area, abs=1e-9)


@every
@few
@given(seed=seeds)
def test_decoded_predictions_score_like_the_logits(method: str, seed: int) -> None:
    judge, logits, grade = random_case(method, seed)
    weight = np.random.default_rng(seed).integers(1, 3, (3, 60)).astype(float)
    again = judge.recode(pd.DataFrame(judge.decode(logits)))
    torch.testing.assert_close(again, logits, rtol=1e-6, atol=1e-6)
    for name, values in judge.score(logits, grade, weight).items():
        assert values.shape == (3,)
        np.testing.assert_allclose(judge.score(again, grade, weight)[name], values, atol=1e-9)


@every
def test_expected_column_is_the_mean_grade(method: str) -> None:
    judge, logits, _ = random_case(method, 0)
    torch.testing.assert_close(
        judge.decode(logits)["expected"], class_probabilities(judge, logits) @ torch.arange(5).double()
    )


@pytest.mark.parametrize("method", ["cumulative", "corn"])
def test_foreign_probabilities_are_preserved_by_recode(method: str) -> None:
    judge, rng = Ordinal(classes=GRADES, method=method), np.random.default_rng(0)
    made = torch.tensor(rng.dirichlet(np.ones(5), 30))
    again = judge.recode(pd.DataFrame({f"p_{name}": made[:, k] for k, name in enumerate(GRADES)}))
    torch.testing.assert_close(class_probabilities(judge, again), made, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(judge.from_oracle(made), again)


def test_binomial_preserves_the_mean_of_foreign_probabilities() -> None:
    judge, made = Ordinal(classes=GRADES, method="binomial"), torch.tensor([[0.5, 0, 0, 0.3, 0.2]]).double()
    again = judge.decode(judge.recode(pd.DataFrame({f"p_{name}": made[:, k] for k, name in enumerate(GRADES)})))
    assert again["expected"].item() == pytest.approx(1.7)


@pytest.mark.parametrize(("method", "wide"), [("cumulative", 4), ("corn", 4), ("binomial", 1)])
def test_number_of_logits_depends_on_the_method(method: str, wide: int) -> None:
    assert Ordinal(classes=GRADES, method=method).out_dim == wide


def test_unknown_method_and_missing_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match="endpoint grade: method 'coral', expected one of cumulative, corn, binomial"):
        Ordinal(method="coral")
    with pytest.raises(PredictionsError, match=r"no column 'p_2', found p_0, p_1$"):
        Ordinal().recode(pd.DataFrame({"p_0": [0.5], "p_1": [0.5]}))


def test_grades_are_encoded_counted_and_weighted_like_classes() -> None:
    judge: Any = Ordinal("isup", GRADES)
    target = judge.encode(pd.DataFrame({"isup": ["1.0", "benign", "4", "1"]}))
    assert target.tolist() == [1, 0, 4, 1]
    assert judge.counts(target) == {"n": 4, "benign": 1, "1": 2, "2": 0, "3": 0, "4": 1}
    judge.fit(target, balance=True)
    restored = Ordinal("isup", GRADES)
    restored.load_state(json.loads(json.dumps(judge.state())))
    assert restored.class_weight == judge.class_weight == [4 / 3, 2 / 3, 0, 0, 4 / 3]


@pytest.mark.parametrize("method", ["cumulative", "corn"])
def test_ties_in_probabilities_are_ties_at_every_boundary(method: str) -> None:
    rng = np.random.default_rng(0)
    shares = rng.multinomial(10, [0.3, 0.3, 0.4], 300) / 10
    grade = np.array([rng.choice(3, p=row) for row in shares])
    table = pd.DataFrame(shares, columns=["p_0", "p_1", "p_2"]).assign(grade=grade)
    endpoint = Ordinal("grade", ["0", "1", "2"], method)
    scores = endpoint.score(endpoint.recode(table), endpoint.encode(table))
    above = shares[:, ::-1].cumsum(1)[:, ::-1].round(9)
    for at in (1, 2):
        expected = roc_auc_score(grade >= at, above[:, at])
        assert float(scores[f"auroc_from_{at}"]) == pytest.approx(expected, abs=1e-12)
    classes = np.mean([roc_auc_score(grade == at, shares[:, at]) for at in range(3)])
    assert float(scores["macro_auroc"]) == pytest.approx(classes, abs=1e-12)

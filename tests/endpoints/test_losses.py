"""Focal, asymmetric and smoothed losses against the papers' formulas, torch and finite differences."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.losses import ClassLoss
from mil.errors import ConfigError

few = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
gammas = st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0])
shares = st.sampled_from([0.0, 0.05, 0.3])


def random_batch(seed: int, classes: int = 1, count: int = 12) -> tuple[Tensor, Tensor]:
    """Return logits `(b, c)` and targets `(b,)`, 0 or 1 where there is one logit."""
    rng = np.random.default_rng(seed)
    return torch.tensor(3 * rng.normal(size=(count, classes))), torch.tensor(rng.integers(0, max(2, classes), count))


def asymmetric_loss(p: float, t: float, positive: float, negative: float, margin: float) -> float:
    """Return Ridnik's loss of one probability and one label, as printed in the paper."""
    shifted = max(p - margin, 0.0)
    return float(-t * (1 - p) ** positive * np.log(p) - (1 - t) * shifted**negative * np.log(1 - shifted))


@few
@given(seeds, gammas, gammas, shares, shares)
def test_asymmetric_loss_matches_the_paper(
    seed: int, positive: float, negative: float, margin: float, smoothing: float
) -> None:
    logits, target = random_batch(seed)
    loss = ClassLoss("y", "asymmetric", negative, positive, margin, smoothing)
    soft = target.double() * (1 - smoothing) + smoothing / 2
    expected = [
        asymmetric_loss(p, t, positive, negative, margin)
        for p, t in zip(logits[:, 0].sigmoid().tolist(), soft.tolist(), strict=True)
    ]
    np.testing.assert_allclose(loss.binary(logits[:, 0], target), expected, rtol=1e-10, atol=1e-14)


@few
@given(seeds, gammas, shares)
def test_focal_loss_matches_the_paper(seed: int, gamma: float, smoothing: float) -> None:
    logits, target = random_batch(seed)
    expected = ClassLoss("y", "asymmetric", gamma, gamma, 0.0, smoothing).binary(logits[:, 0], target)
    torch.testing.assert_close(
        ClassLoss("y", "focal", gamma, smoothing=smoothing).binary(logits[:, 0], target), expected
    )
    many, places = random_batch(seed, 4)
    label = np.eye(4)[places] * (1 - smoothing) + smoothing / 4
    p: NDArray[np.float64] = many.softmax(1).numpy()
    losses = ClassLoss("y", "focal", gamma, smoothing=smoothing).exclusive(many, places)
    np.testing.assert_allclose(losses, (label * (1 - p) ** gamma * -np.log(p)).sum(1), rtol=1e-9, atol=1e-14)


@few
@given(seeds, shares)
def test_gamma_zero_is_torch_cross_entropy(seed: int, smoothing: float) -> None:
    logits, target = random_batch(seed)
    soft = target.double() * (1 - smoothing) + smoothing / 2
    binary = functional.binary_cross_entropy_with_logits(logits[:, 0], soft, reduction="none")
    many, places = random_batch(seed, 3)
    exclusive = functional.cross_entropy(many, places, reduction="none", label_smoothing=smoothing)
    for kind, gamma in (("cross_entropy", None), ("focal", 0.0)):
        loss = ClassLoss("y", kind, gamma, smoothing=smoothing)
        torch.testing.assert_close(loss.binary(logits[:, 0], target), binary)
        torch.testing.assert_close(loss.exclusive(many, places), exclusive)


@few
@given(seeds, gammas)
def test_two_exclusive_classes_equal_one_binary_logit(seed: int, gamma: float) -> None:
    logits, target = random_batch(seed)
    loss = ClassLoss("y", "focal", gamma, smoothing=0.1)
    both = torch.cat([torch.zeros_like(logits), logits], 1)
    torch.testing.assert_close(loss.exclusive(both, target), loss.binary(logits[:, 0], target))


@few
@given(seeds, gammas)
def test_focal_loss_is_symmetric_in_the_two_classes(seed: int, gamma: float) -> None:
    logits, target = random_batch(seed)
    loss = ClassLoss("y", "focal", gamma)
    torch.testing.assert_close(loss.binary(-logits[:, 0], 1 - target), loss.binary(logits[:, 0], target))


@pytest.mark.parametrize(
    "options", [("focal", 0.5, 0), ("focal", 2.0, 0), ("asymmetric", 4.0, 1.0), ("asymmetric", 0.5, 0)]
)
def test_gradients_match_finite_differences(options: tuple[str, float, float]) -> None:
    logits, target = random_batch(3)
    loss = ClassLoss("y", *options, 0.05, 0.1)
    assert torch.autograd.gradcheck(lambda values: loss.binary(values[:, 0], target), (logits.requires_grad_(),))
    if options[0] == "focal":
        many, places = random_batch(3, 4)
        assert torch.autograd.gradcheck(lambda values: loss.exclusive(values, places), (many.requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["focal", "asymmetric"])
def test_certain_predictions_have_finite_loss_and_gradient(kind: str, gamma: float, dtype: torch.dtype) -> None:
    loss = ClassLoss("y", kind, gamma)
    logits = torch.tensor([[-400.0, 0, 400], [400, 0, -400], [-3, 0, 0]], dtype=dtype).requires_grad_()
    losses = [loss.binary(logits[:, at], torch.tensor([0, 1, 1])) for at in (0, 1, 2)]
    losses += [loss.exclusive(logits, torch.tensor([at, 1, 2])) for at in (0, 2)] if kind == "focal" else []
    total = torch.stack([loss.sum() for loss in losses]).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    assert total.dtype == gradient.dtype == dtype
    assert total.isfinite()
    assert gradient.isfinite().all()


def test_negatives_below_the_margin_have_no_loss_or_gradient() -> None:
    logits = torch.tensor([-4.0, -2.0], dtype=torch.float64, requires_grad=True)  # p = 0.018 and 0.119
    loss = ClassLoss("y", "asymmetric", margin=0.05).binary(logits, torch.zeros(2))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss[0] == gradient[0] == 0
    assert loss[1] > 0
    assert gradient[1] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "focals"}, "loss 'focals', expected one of cross_entropy, focal, asymmetric"),
        ({"gamma": 2.0}, "gamma 2.0, expected zero or more, with loss=focal or asymmetric"),
        ({"loss": "focal", "gamma": -1.0}, "gamma -1.0, expected zero or more, with loss=focal or asymmetric"),
        ({"loss": "asymmetric", "gamma_positive": -1.0}, "gamma_positive -1.0, expected zero or more"),
        ({"loss": "asymmetric", "margin": 1.0}, "margin 1.0, expected a number from 0 to below 1"),
        ({"smoothing": -0.1}, "smoothing -0.1, expected a number from 0 to below 1"),
    ],
)
def test_out_of_range_error_names_the_parameter(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Binary("msi", **options)
    assert str(error.value) == f"endpoint msi: {message}"


def test_multiclass_refuses_asymmetric_loss() -> None:
    with pytest.raises(ConfigError, match=r"loss 'asymmetric', expected one of cross_entropy, focal$"):
        Multiclass("type", loss="asymmetric")


@pytest.mark.parametrize("judge", [Binary(loss="focal"), Binary(loss="asymmetric"), Multiclass(loss="focal")])
def test_balanced_losses_are_weighted_by_class(judge: Binary | Multiclass) -> None:
    logits, target = random_batch(0, judge.out_dim if judge.out_dim > 1 else 1, 30)
    judge.fit(target, balance=True)
    assert judge.class_weight is not None
    each = torch.stack([judge.loss(logits[at : at + 1], target[at : at + 1]) for at in range(30)])
    judge.fit(target)
    alone = torch.stack([judge.loss(logits[at : at + 1], target[at : at + 1]) for at in range(30)])
    judge.fit(target, balance=True)
    torch.testing.assert_close(each, alone * torch.tensor(judge.class_weight, dtype=torch.float64)[target])
    torch.testing.assert_close(judge.loss(logits, target), each.mean())

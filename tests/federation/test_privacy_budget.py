"""Epsilon of clipping and noise: the accountant against published figures, and that its promise is kept."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue
from scipy.special import gammaln, logsumexp

from mil.endpoints.classification import Binary
from mil.errors import ConfigError
from mil.federation.federated_run import sentences
from mil.federation.messages import Message
from mil.federation.privacy_budget import LEDGER, NoisyGradient, budget, check_noise
from mil.federation.renyi_accountant import ORDERS, divergences, epsilon
from mil.study import build
from tests.federation.hospitals import config_of, federated, options_of

PLAIN = ("model=abmil", "model.dropout=0.0", "model.embed_dim=8", "model.attention_dim=4", "trainer.max_epochs=2")
EVERYWHERE = {site: {"train": 20, "select": 5} for site in "ab"}


def classical(sampled: float, noise: float, steps: int, delta: float) -> float:
    """Return epsilon by proposition 3 of Mironov 2017, with which the published figures were computed."""
    orders = np.array([1 + x / 10 for x in range(1, 100)] + list(range(12, 64)))
    return float(np.min(divergences(sampled, noise, steps, orders) - np.log(delta) / (orders - 1)))


@pytest.mark.parametrize(
    ("noise", "epochs", "published"),
    [(1.12, 60, 2.92), (0.6, 30, 9.74), (1.2, 10, 1.20), (1.12, 1, 1.00), (1.12, 2, 1.04)],
)
def test_figures_of_tensorflow_privacy(noise: float, epochs: int, published: float) -> None:
    """The tutorial on MNIST: 60,000 images, batches of 256, delta 1e-5 (tutorials/README.md, commit 047e1ee)."""
    steps = epochs * (60_000 // 256)
    assert classical(256 / 60_000, noise, steps, 1e-5) == pytest.approx(published, abs=0.01)
    assert epsilon(256 / 60_000, noise, steps, 1e-5) < published  # the later conversion is tighter


def test_figure_of_the_moments_accountant() -> None:
    """Abadi et al., CCS 2016, section 3.2: q 0.01, noise 4, 10,000 steps, delta 1e-5 give epsilon 1.26."""
    assert classical(0.01, 4.0, 10_000, 1e-5) == pytest.approx(1.26, abs=0.005)


@pytest.mark.parametrize("order", [2, 5, 32])
@pytest.mark.parametrize(("sampled", "noise"), [(0.01, 1.0), (0.3, 0.7), (0.9, 3.0)])
def test_whole_orders_are_the_binomial_sum(order: int, sampled: float, noise: float) -> None:
    """Mironov, Talwar, Zhang 2019, section 3.3."""
    k = np.arange(order + 1)
    choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    terms = choose + (order - k) * np.log1p(-sampled) + k * np.log(sampled) + (k**2 - k) / (2 * noise**2)
    expected = logsumexp(terms) / (order - 1)
    assert divergences(sampled, noise, 1, np.array([float(order)]))[0] == pytest.approx(expected, rel=1e-9)


def test_all_patients_in_every_step_are_the_gaussian_mechanism() -> None:
    np.testing.assert_allclose(divergences(1.0, 2.0, 3), 3 * ORDERS / 8)
    assert divergences(1 - 1e-12, 2.0, 1, np.array([7.5]))[0] == pytest.approx(7.5 / 8, rel=1e-6)
    # Balle and Wang, ICML 2018: the exact epsilon of one Gaussian mechanism with noise 1 at delta 1e-5 is 4.38
    assert 4.377 < epsilon(1.0, 1.0, 1, 1e-5) < 4.8


def test_epsilon_grows_with_steps_and_falls_with_noise() -> None:
    assert epsilon(0.1, 1.0, 50, 1e-5) < epsilon(0.1, 1.0, 100, 1e-5) < epsilon(0.2, 1.0, 100, 1e-5)
    assert epsilon(0.1, 2.0, 100, 1e-5) < epsilon(0.1, 1.0, 100, 1e-5)
    assert epsilon(0.0, 1.0, 100, 1e-5) == 0


def test_clipping_bounds_what_one_patient_adds() -> None:
    federation = federated(config_of("binary", *PLAIN, "data.whole_cohort=true"), options_of(clip=1e-3))
    weights = federation.training().progress.weights
    facts = {"fold": 0, "epoch": 0, "step": 0, "steps": 1}
    sums = federation.coordinator.total("loss sums", {}, facts).arrays
    arrays = {"weights": weights, "call 0": sums["call 0"]}
    clipped = federation.coordinator.total("gradient", arrays, {**facts, "bags": float(sums["bags"][0])})
    assert 0 < np.linalg.norm(clipped.arrays["gradient"]) <= 1e-3


@pytest.mark.parametrize("tool", ["binary", "multilabel"])
def test_without_noise_one_patient_more_changes_the_sum_by_the_clipped_norm_at_most(tool: str) -> None:
    """The mechanism itself with its noise switched off: its sums of neighbouring cohorts differ by clip / amount."""
    clip, amount = 1e-3, 10.0
    federation = federated(config_of(tool, *PLAIN, "data.whole_cohort=true"), options_of(clip=clip, noise=1.0))
    weights, hospital = federation.training().progress.weights, federation.hospitals["a"]
    noise = hospital.noise
    assert noise is not None
    noise.noise = 0.0
    facts: dict[str, JsonValue] = {"fold": 0, "epoch": 0, "step": 0, "steps": 1, "bags": amount}
    facts |= {"session": federation.coordinator.session, "round": "1", "sites": ["a", "b", "c"]}
    question = Message("gradient", {"weights": weights}, facts)
    all_bags = noise.drawn(len(hospital.folds[0].fold.data["train"]), 1)
    together = hospital.answer(question)
    assert "loss" not in together.arrays  # it would be of the patients that were drawn
    for without in all_bags:
        noise.drawn = lambda bags, steps, without=without: [bag for bag in all_bags if bag != without]  # type: ignore[method-assign, misc]
        fewer = hospital.answer(question)
        assert fewer.patients == together.patients  # how many were drawn is not told
        difference = np.linalg.norm(together.array("gradient") - fewer.array("gradient"))
        assert 0 < difference <= clip / amount * (1 + 1e-9)


@pytest.mark.parametrize("secure", [True, False])
def test_noise_of_the_total_or_of_each_site_has_the_stated_width(secure: bool) -> None:
    noise = NoisyGradient(clip=0.5, noise=2.0, secure=secure, rng=np.random.default_rng(0))
    parts = np.array([noise.added(np.zeros(20_000), 10.0, 4) for _ in range(4)])
    stated = 0.5 * 2.0 / 10.0
    assert np.std(parts.sum(0) if secure else parts[0]) == pytest.approx(stated, rel=0.03)


def test_patients_are_drawn_independently_with_the_stated_probability() -> None:
    noise = NoisyGradient(1.0, 1.0, True, rng=np.random.default_rng(0))
    drawn = np.zeros((4000, 12))
    for step in drawn:
        step[noise.drawn(12, 3)] = 1
    np.testing.assert_allclose(drawn.mean(0), 1 / 3, atol=0.04)
    assert drawn.sum(1).std() == pytest.approx(np.sqrt(12 * (1 / 3) * (2 / 3)), rel=0.05)  # no fixed number a step
    assert noise.drawn(12, 1) == list(range(12))


def test_a_training_with_noise_counts_what_left_also_over_a_restart(tmp_path: Path) -> None:
    config, options = config_of("binary", *PLAIN), options_of(clip=1.0, noise=1.0, secure=True)
    federation = federated(config, options, folder=tmp_path)
    training = federation.training()
    progress = training.run()
    assert training.steps == 3
    assert progress.released == 2 * 3
    assert np.isfinite(progress.weights).all()
    assert budget(options, training.steps, progress.released) == epsilon(1 / 3, 1.0, 6, 1e-5)
    again = federated(config, options, folder=tmp_path)  # sites that were started anew know what has left them
    assert (tmp_path / "a" / LEDGER).is_file()
    assert again.training().run().released == 2 * 6


def test_report_and_card_state_epsilon_with_what_it_covers() -> None:
    options = options_of(clip=0.5, noise=1.5, delta=1e-4)
    record: dict[str, JsonValue] = {"epsilon": 3.456, "released": 60, "steps_per_epoch": 6, "notes": []}
    text = " ".join(sentences(options, 3, record))
    for part in ("epsilon 3.46 at delta 0.0001", "norm 0.5", "noise of 1.5 times", "60 times", "probability 1/6"):
        assert part in text
    assert "Class weights, cuts, calibration, novelty and metrics are outside this promise" in text


def test_noise_is_refused_where_one_patient_is_not_bounded() -> None:
    options = options_of(clip=1.0, noise=1.0)
    config = config_of("survival", *PLAIN)
    with pytest.raises(ConfigError, match="compares patients"):
        check_noise(config, options, build.endpoint(config), EVERYWHERE)
    with pytest.raises(ConfigError, match=r"expected data\.bag=patient"):
        check_noise(config_of("binary", *PLAIN, "data.bag=slide"), options, Binary(), EVERYWHERE)
    with pytest.raises(ConfigError, match="site b has no patients of model selection"):
        check_noise(config_of("binary", *PLAIN), options, Binary(), {**EVERYWHERE, "b": {"train": 20, "select": 0}})

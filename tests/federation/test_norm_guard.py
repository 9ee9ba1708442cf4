"""A scaled update under masks: no step is larger than it may be, though nobody sees whose part is too large."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mil.errors import ConfigError
from mil.federation.coordinator import RoundError
from mil.federation.messages import Message
from mil.federation.norm_guard import NormGuard, clipped
from tests.federation.hospitals import Federated, config_of, federated, options_of

PLAIN = ("model=abmil", "model.dropout=0.0", "model.embed_dim=8", "model.attention_dim=4", "trainer.max_epochs=2")
Floats = NDArray[np.float64]
KINDS = {"exact": "gradient", "fedavg": "update"}
BOUNDS = {"exact": 50.0, "fedavg": 50.0}
"""Far beyond what honest sites send."""


class Scaling:
    """Site b, which multiplies some of its gradients or changes of weights before they are masked."""

    def __init__(self, factor: float, rounds: Callable[[int], bool]) -> None:
        self.factor, self.rounds, self.count = factor, rounds, 0

    def __call__(self, answer: Message) -> Message:
        self.count += 1
        factor = self.factor if self.rounds(self.count) else 1.0
        scaled = {name: factor * answer.array(name) for name in ("gradient", "change") if name in answer.arrays}
        return Message(answer.kind, {**answer.arrays, **scaled}, answer.facts, answer.patients)


def trained(algorithm: str, hostile: Scaling | None = None, **options: Any) -> Federated:
    federation = federated(config_of("binary", *PLAIN), options_of(algorithm=algorithm, secure=True, **options))
    if hostile is not None:
        answers = federation.hospitals["b"].answers
        honest = answers[KINDS[algorithm]]
        answers[KINDS[algorithm]] = lambda question: hostile(honest(question))
    federation.weights = federation.training().run().weights
    return federation


def weights_of(federation: Federated) -> Floats:
    assert federation.weights is not None
    return federation.weights


@pytest.fixture(scope="module")
def honest() -> dict[str, Floats]:
    return {algorithm: weights_of(trained(algorithm)) for algorithm in KINDS}


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_scaled_update_under_masks_repeats_the_round_and_leaves_no_trace(
    algorithm: str, honest: dict[str, Floats]
) -> None:
    federation = trained(algorithm, Scaling(-1000, lambda count: count == 2))
    np.testing.assert_allclose(weights_of(federation), honest[algorithm], rtol=0, atol=1e-12)
    [incident] = federation.coordinator.incidents
    assert incident.startswith(f"round {KINDS[algorithm]}: the mean over all sites is ")
    assert "times as large as the largest before, expected 20 times or less" in incident
    assert "masks hide whose part it is" in incident
    assert federation.coordinator.traffic.repeated == 1


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_site_that_scales_from_the_first_step_on_is_stopped_by_the_declared_bound(algorithm: str) -> None:
    with pytest.raises(RoundError, match=r"beyond that of sites that clip their parts to 50 \(federation.norm_bound"):
        trained(algorithm, Scaling(1e6, lambda count: True), norm_bound=BOUNDS[algorithm])


def test_without_a_bound_the_first_step_is_not_compared_with_anything_and_one_within_it_is_not_recognised(
    honest: dict[str, Floats],
) -> None:
    """As docs/federation.md says: the step is bounded, its direction is not."""
    first = trained("exact", Scaling(1000, lambda count: count == 1))
    within = trained("exact", Scaling(-5, lambda count: count == 2), norm_bound=50.0)
    for federation in (first, within):
        assert not federation.coordinator.incidents
        assert abs(weights_of(federation) - honest["exact"]).max() > 1e-4


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_bound_beyond_what_sites_send_changes_no_bit(algorithm: str, honest: dict[str, Floats]) -> None:
    federation = trained(algorithm, norm_bound=BOUNDS[algorithm])
    np.testing.assert_array_equal(weights_of(federation), honest[algorithm])


@pytest.mark.parametrize("algorithm", KINDS)
def test_each_site_clips_its_part_before_it_is_masked(algorithm: str, honest: dict[str, Floats]) -> None:
    norms = []

    class Watching(Scaling):
        def __call__(self, answer: Message) -> Message:
            name = "gradient" if algorithm == "exact" else "change"
            norms.append(float(np.linalg.norm(answer.array(name))))
            return answer

    federation = trained(algorithm, Watching(1.0, lambda count: True), norm_bound=1e-4)
    assert max(norms) <= 1e-4 * (9 if algorithm == "fedavg" else 1)
    assert federation.coordinator.guard.largest <= 1e-4 * (1 + 1e-6)
    assert not federation.coordinator.incidents
    assert abs(weights_of(federation) - honest[algorithm]).max() > 1e-6


def test_clipping_keeps_the_direction() -> None:
    values = np.array([3.0, -4.0])
    np.testing.assert_allclose(clipped(values, 1.0), [0.6, -0.8])
    np.testing.assert_array_equal(clipped(values, 5.0), values)
    np.testing.assert_array_equal(clipped(values, None), values)


def test_the_largest_step_is_remembered_and_other_sums_are_not_compared() -> None:
    guard = NormGuard(options_of(norm_factor=3.0))
    assert guard.refusal("gradient", {"gradient": np.array([2.0])}) is None
    assert guard.refusal("gradient", {"gradient": np.array([0.001])}) is None
    assert guard.refusal("gradient", {"gradient": np.array([6.0])}) is None  # three times the largest, not the last
    assert guard.refusal("gradient", {"gradient": np.array([18.1])}) is not None
    assert guard.refusal("gradient", {"gradient": np.array([np.nan])}) is not None
    assert guard.largest == 6.0
    assert guard.refusal("select sums", {"sums": np.array([1e9])}) is None


def test_a_loss_that_rises_far_is_reported_once() -> None:
    """What sites say of their own loss: here site b sends its gradients the other way round, within the bound."""
    words = (*PLAIN[:-1], "trainer.max_epochs=8", "optimizer=sgd", "optimizer.lr=2.0", "optimizer.momentum=0")
    federation = federated(config_of("binary", *words), options_of(secure=True))
    answers = federation.hospitals["b"].answers
    honest, hostile = answers["gradient"], Scaling(-15, lambda count: True)
    answers["gradient"] = lambda question: hostile(honest(question))
    federation.training().run()
    [sentence] = [each for each in federation.coordinator.incidents if "model selection rose" in each]
    assert "or what some site sends works against the others" in sentence


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"algorithm": "scaffold"}, "control variates are sent too"),
        ({"clip": 1.0, "noise": 1.0}, "noise is not bounded"),
        ({"norm_bound": 0.0}, "federation.norm_bound=0.0"),
    ],
)
def test_a_bound_is_refused_where_it_would_bound_nothing(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        options_of(**{"norm_bound": 1.0, **options})

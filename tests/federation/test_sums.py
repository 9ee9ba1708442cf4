"""Secure sums, the gate, and the sums of Cox's partial likelihood."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.endpoints.cox import baseline_hazard, cox_loss
from mil.federation.exact_cox import RiskSets
from mil.federation.messages import FederationError, Message
from mil.federation.privacy import Gate
from mil.federation.secure_sums import Keys, from_words, to_words, total


def agreed(*sites: str) -> dict[str, Keys]:
    keys = {site: Keys(site) for site in sites}
    for each in keys.values():
        each.agree({site: other.public for site, other in keys.items()})
    return keys


def test_masks_cancel_and_the_total_is_exact() -> None:
    keys, rng = agreed("a", "b", "c", "d"), np.random.default_rng(0)
    values = {site: rng.normal(size=500) * 10.0 ** rng.integers(-8, 6, 500) for site in keys}
    sent = {site: each.masked(values[site], "round 1", list(keys)) for site, each in keys.items()}
    expected = np.sum([values[site] for site in sorted(keys)], axis=0)
    np.testing.assert_allclose(total(sent), expected, rtol=1e-14, atol=4 * 2.0**-60)


def test_any_order_of_answers_gives_the_same_bits() -> None:
    keys, rng = agreed("a", "b", "c"), np.random.default_rng(1)
    sent = {site: each.masked(rng.normal(size=50), "round", list(keys)) for site, each in keys.items()}
    assert total(sent).tobytes() == total(dict(reversed(list(sent.items())))).tobytes()


def test_one_message_is_uniform_and_differs_from_round_to_round() -> None:
    """The bytes of a message of zeros pass a chi-squared test of uniformity, and do not correlate between rounds."""
    keys = agreed("a", "b", "c")
    first, second = (keys["a"].masked(np.zeros(20_000), name, list(keys)) for name in ("round 1", "round 2"))
    for words in (first, second, first - second):
        amounts = np.bincount(words.view(np.uint8), minlength=256)
        expected = amounts.sum() / 256
        assert ((amounts - expected) ** 2 / expected).sum() < 255 + 6 * np.sqrt(2 * 255)
    assert np.abs(from_words(first)).min() > 0


def test_a_message_without_its_partners_tells_nothing_of_its_numbers() -> None:
    keys = agreed("a", "b")
    ones, zeros = (keys["a"].masked(np.full(4, value), "round", ["a", "b"]) for value in (1.0, 0.0))
    np.testing.assert_array_equal(ones - zeros, to_words(np.ones(4)))  # the same mask: a round is never asked twice
    other = keys["a"].masked(np.ones(4), "round, again", ["a", "b"])
    assert not np.isin(other, ones).any()


def test_a_sum_of_one_site_and_keys_that_are_missing_are_refused() -> None:
    keys = agreed("a", "b")
    with pytest.raises(FederationError, match="a secure sum of 1 sites"):
        keys["a"].masked(np.ones(1), "round", ["a"])
    with pytest.raises(FederationError, match="no key is shared with c"):
        keys["a"].masked(np.ones(1), "round", ["a", "c"])
    with pytest.raises(FederationError, match="expected finite numbers"):
        keys["a"].masked(np.array([np.nan]), "round", ["a", "b"])
    with pytest.raises(FederationError, match="out of range"):
        keys["a"].agree({"b": "1"})


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_numbers_survive_fixed_point(values: list[float]) -> None:
    np.testing.assert_allclose(from_words(to_words(np.array(values))), values, rtol=2e-16, atol=2.0**-60)


def test_messages_survive_their_bytes_and_broken_ones_are_refused() -> None:
    message = Message(
        "gradient", {"a": np.arange(6.0).reshape(2, 3), "b": np.array([1], np.uint64)}, {"x": "y"}, 7, True
    )
    again = Message.from_bytes(message.to_bytes())
    assert again.digest() == message.digest()
    assert again.shape == {"a": (2, 3), "b": (1,)}
    for content in (b"", b"{}\n", message.to_bytes()[:-1], message.to_bytes().replace(b"float64", b"object_")):
        with pytest.raises(FederationError, match="not a message"):
            Message.from_bytes(content)


def test_the_gate_withholds_few_patients_and_writes_what_left(tmp_path: Path) -> None:
    gate = Gate("north", 10, tmp_path / "audit.jsonl")
    gate.release(Message("gradient", {"gradient": np.ones(3)}, patients=10), "gradient")
    refusals = {
        "9 patients stand behind it": Message("gradient", {"gradient": np.ones(3)}, patients=9),
        "counts 4 patients": Message("target sums", {"counts classes": np.array([20.0, 4])}, patients=24),
        "not finite": Message("gradient", {"gradient": np.array([np.nan])}, patients=12),
    }
    for reason, message in refusals.items():
        with pytest.raises(FederationError, match=f"site north.*{reason}"):
            gate.release(message, message.kind)
    gate.release(
        Message("target sums", {"masked": np.array([20, 4], np.uint64)}, patients=24, masked=True), "target sums"
    )
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["withheld"] is None for line in lines] == [True, False, False, False, True]
    assert lines[0] | {"sha256": "", "facts": []} == {
        "question": "gradient",
        "kind": "gradient",
        "shape": {"gradient": [3]},
        "facts": [],
        "patients": 10,
        "masked": False,
        "sha256": "",
        "withheld": None,
    }


def followed(seed: int, strata: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    time = torch.randint(1, 12, (40,), generator=generator).double()
    event = (torch.rand(40, generator=generator) < 0.5).double()
    stratum = torch.randint(0, strata, (40,), generator=generator).double()
    target = torch.stack([time, event, stratum], 1)
    return torch.randn(40, generator=generator, dtype=torch.float64) * 2, target if strata > 1 else target[:, :2]


@pytest.mark.parametrize("strata", [1, 3])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sums_over_sites_have_loss_and_gradient_of_the_partial_likelihood(seed: int, ties: str, strata: int) -> None:
    hazard, target = followed(seed, strata)
    codes = torch.unique(target[:, 2]) if strata > 1 else torch.zeros(1, dtype=torch.float64)
    sets = RiskSets(torch.unique(target[:, 0]), codes, ties)
    sites = torch.arange(40) % 4
    totals = sum(sets.sums(hazard[sites == site], target[sites == site]) for site in range(4))
    assert isinstance(totals, torch.Tensor)
    pull = torch.cat([sets.pull(hazard[sites == site], target[sites == site], totals) for site in range(4)])
    order = torch.cat([(sites == site).nonzero().squeeze(1) for site in range(4)])
    leaf = hazard.clone().requires_grad_()
    stratum = target[:, 2] if strata > 1 else None
    loss = cox_loss(leaf, target[:, 0], target[:, 1], ties, stratum)
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(pull, gradient[order], rtol=1e-10, atol=1e-12)
    assert sets.value(totals) == pytest.approx(float(loss.detach()), rel=1e-10)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_the_baseline_hazard_is_that_of_all_patients(ties: str) -> None:
    hazard, target = followed(4, 1)
    sets = RiskSets(torch.unique(target[:, 0]), torch.zeros(1, dtype=torch.float64), ties)
    times, cumulative = sets.baseline(sets.sums(hazard, target))
    expected_times, expected = baseline_hazard(hazard, target[:, 0], target[:, 1], ties)
    np.testing.assert_allclose(times, expected_times)
    np.testing.assert_allclose(cumulative, expected, rtol=1e-12)

"""Bags unlike those of training are withheld, others hardly ever."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import stats

from mil.errors import ConfigError
from mil.fitted import novelty
from mil.fitted.novelty import Novelty
from mil.fitted.options import NoveltyOptions, parse_novelty
from mil.simulation.simulated_encoder import Encoder, encode, encoder, patient_shift, shift_of
from mil.simulation.tissue import grow, infiltrate

Floats = NDArray[np.float64]
WIDTH = 64
ENCODER = encoder(WIDTH, 1)


def bags(amount: int, seed: int, sees: Encoder = ENCODER, sites: int = 0) -> Floats:
    """Mean features of simulated slides of five sites; `sites` other than 0 are other hospitals."""
    rng, own = np.random.default_rng(seed), np.random.default_rng((sites, 99))
    known = [shift_of(sees, "site", own) for _ in range(5)]
    means = []
    for _ in range(amount):
        tissue = grow(int(np.exp(rng.uniform(4.5, 6))), rng.uniform(0.15, 0.65), "regional", rng)
        (phenotype,) = infiltrate([tissue], np.array([rng.beta(1, 3)]), "regional")
        shifts = [known[rng.integers(5)], shift_of(sees, "slide", rng)]
        means.append(encode(sees, phenotype, patient_shift(sees, rng), shifts, rng).mean(0, dtype=np.float64))
    return np.array(means)


@pytest.fixture(scope="module")
def fitted() -> Novelty:
    return novelty.fit(NoveltyOptions(quantile=0.97), np.arange(100, 220), bags(120, 0), bags(60, 1))


def share(known: Novelty, means: Floats) -> float:
    return float(np.mean([known.judge(one, 1000) is not None for one in means]))


def test_slides_like_those_of_training_are_flagged_about_as_often_as_stated(fitted: Novelty) -> None:
    assert fitted.features is not None
    assert (fitted.features.n, fitted.features.on) == (60, "select")
    assert fitted.features.expected == pytest.approx(1 / 61)
    # given 60 select bags and the second largest as limit, the rate itself is a Beta
    assert share(fitted, bags(150, 2)) <= stats.betabinom.ppf(0.999, 150, 1, 60) / 150


@pytest.mark.parametrize(
    "change",
    [
        lambda means: means + 0.5,
        lambda means: 2.5 * means,
        lambda means: means[:, np.random.default_rng(0).permutation(WIDTH)],
        lambda means: np.full_like(means, 0.3),
        np.zeros_like,
        lambda means: np.full_like(means, np.nan),
    ],
    ids=["shifted", "scaled", "permuted", "constant", "zeros", "nan"],
)
def test_features_that_no_slide_has_are_flagged(fitted: Novelty, change: object) -> None:
    assert share(fitted, change(bags(20, 3))) == 1  # type: ignore[operator]  # one of the functions above


def test_tissue_of_another_organ_is_mostly_flagged(fitted: Novelty) -> None:
    found = []
    for seed in (1, 2, 3):
        draw = np.random.default_rng(seed).normal(size=ENCODER.centres.shape)
        centres = 2.8 * draw / np.linalg.norm(draw, axis=1, keepdims=True)
        other = dataclasses.replace(ENCODER, centres=centres.astype(np.float32))
        found.append(share(fitted, bags(40, seed, other)))
    assert min(found) > 0.7
    assert np.mean(found) > 0.85


def test_another_hospital_is_flagged_more_often_than_the_known_ones_and_this_is_no_error(fitted: Novelty) -> None:
    assert share(fitted, bags(60, 4, sites=1)) > 5 * share(fitted, bags(60, 4)) + 0.1


def test_a_reason_is_one_sentence_with_its_numbers(fitted: Novelty) -> None:
    few = fitted.judge(bags(1, 0)[0], 12)
    assert few == f"It has 12 tiles, and the tool needs {fitted.min_tiles} or more."
    far = fitted.judge(9 * bags(1, 0)[0], 1000)
    assert far is not None
    assert fitted.features is not None
    assert f"120 training bags: {fitted.features.distance(9 * bags(1, 0))[0]:.2f} standard" in far
    assert "\n" not in far


def test_the_least_tiles_are_what_training_showed_unless_stated() -> None:
    tiles = np.arange(100, 300)
    assert novelty.fit(NoveltyOptions(), tiles).min_tiles == 101
    shown, said = novelty.fit(NoveltyOptions(quantile=0.9), tiles), novelty.fit(NoveltyOptions(min_tiles=50), tiles)
    assert (shown.min_tiles, shown.min_tiles_on) == (119, "train")
    assert (said.min_tiles, said.min_tiles_on) == (50, "stated beforehand")
    assert said.features is None
    assert said.judge(None, 50) is None
    assert said.judge(np.full(7, 1e9), 50) is None, "features are not judged without any to compare with"


@pytest.mark.parametrize(
    ("select", "quantile", "on", "amount", "expected"),
    [
        (40, 0.9, "select", 40, 4 / 41),
        (40, 0.99, "select and left-out train", 100, 1 / 101),
        (0, 0.9, "left-out train", 60, 6 / 61),
        (0, 0.99, "left-out train", 60, 1 / 61),
    ],
)
def test_too_few_select_bags_are_joined_and_what_is_then_expected_is_said(
    select: int, quantile: float, on: str, amount: int, expected: float
) -> None:
    draw = np.random.default_rng(0).normal(size=(100, 12))
    known = novelty.fit(
        NoveltyOptions(quantile=quantile), np.full(60, 5), draw[:60], draw[60 : 60 + select] if select else None
    )
    assert known.features is not None
    assert (known.features.on, known.features.n) == (on, amount)
    assert known.features.expected == pytest.approx(expected)


def test_few_training_bags_are_not_enough_to_judge_features() -> None:
    draw = np.random.default_rng(0).normal(size=(novelty.LEAST_BAGS, 12))
    tiles = np.full(len(draw), 9)
    assert novelty.fit(NoveltyOptions(), tiles, draw).features is not None
    assert novelty.fit(NoveltyOptions(), tiles[1:], draw[1:]).features is None


def test_what_is_frozen_judges_the_same_and_is_small() -> None:
    draw = np.random.default_rng(0).normal(size=(200, 1536))
    known = novelty.fit(NoveltyOptions(), np.full(100, 9), draw[:100], draw[100:])
    said = known.model_dump_json()
    again = Novelty.model_validate_json(said)
    assert len(said) < 200_000
    assert again.features is not None
    assert known.features is not None
    assert (again.features.distance(draw) == known.features.distance(draw)).all()


def test_a_channel_that_training_never_moved_may_be_constant() -> None:
    draw = np.random.default_rng(0).normal(size=(120, 20))
    draw[:, 0] = 1.0
    known = novelty.fit(NoveltyOptions(), np.full(60, 9), draw[:60], draw[60:])
    moved = draw[60:].copy()
    moved[:, 0] = 2.0
    assert share(known, draw[60:]) < 0.1
    assert share(known, moved) == 1


@pytest.mark.parametrize(
    "asked", [{"tiles": 3}, {"min_tiles": 0}, {"min_tiles": 1.5}, {"quantile": 1}, {"quantile": 0}]
)
def test_what_cannot_be_asked_is_refused_in_one_line(asked: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^novelty: .*expected [^\n]*$"):
        parse_novelty(asked)


@pytest.mark.parametrize(
    "change", [{"dim": 13}, {"mean": "####"}, {"basis": "AAAA"}, {"scale": ""}, {"cut": "far"}, {"spread": [0, 1]}]
)
def test_a_state_that_is_none_is_refused(change: dict[str, object]) -> None:
    draw = np.random.default_rng(0).normal(size=(60, 12))
    state = novelty.fit(NoveltyOptions(), np.full(60, 9), draw).model_dump()
    with pytest.raises(ValidationError):
        Novelty.model_validate(state | {"features": state["features"] | change})


@pytest.mark.slow
def test_over_many_cohorts_the_next_slide_is_flagged_as_often_as_stated() -> None:
    flagged = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        draw = rng.normal(size=(80, 30)) @ rng.normal(size=(30, 30)) * (1 + rng.gamma(1, size=(80, 1)))
        known = novelty.fit(NoveltyOptions(quantile=0.9), np.full(50, 9), draw[:50], draw[50:79])
        flagged += known.judge(draw[79], 9) is not None
    low, high = stats.binom.interval(0.999, 1000, 0.1)
    assert low <= flagged <= high

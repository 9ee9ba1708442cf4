"""How much better one set of numbers tells the site than another."""

import numpy as np
import pytest

from mil.stats.site_signature import beyond, site_predictability
from tests.estimates import triple

SITE = np.repeat(["A", "B", "C", "few", ""], [40, 40, 30, 4, 2]).tolist()


def test_the_difference_is_of_the_two_values_and_paired() -> None:
    rng = np.random.default_rng(0)
    code = np.unique(SITE, return_inverse=True)[1]
    label = rng.normal(size=(len(SITE), 2)) + np.eye(6)[code][:, :2]
    signed = rng.normal(size=(len(SITE), 20)) + 3 * rng.normal(size=(6, 20))[code]
    computed = beyond(signed, label, SITE, 200)
    assert (computed.n, computed.sites, computed.left_out, computed.chance) == (110, 3, 6, {})
    of_signed, of_label = (site_predictability(values, SITE, 200) for values in (signed, label))
    assert of_signed.chance == {"balanced_accuracy": 1 / 3, "macro_auroc": 0.5}
    for metric in ("balanced_accuracy", "macro_auroc"):
        gained, first, second = (triple(getattr(result, metric)) for result in (computed, of_signed, of_label))
        assert gained[0] == pytest.approx(first[0] - second[0])
        assert 0 < gained[1] < gained[0] < gained[2]
    again = beyond(signed, signed, SITE, 50).balanced_accuracy
    assert triple(again) == (0, 0, 0)


def test_without_two_sites_there_is_a_reason() -> None:
    numbers = np.zeros((6, 2))
    assert beyond(numbers, numbers, ["A"] * 6).reason == "sites of 5 patients or more: 1, expected two"

"""What an endpoint asks of a patient, and which column answers."""

import numpy as np
import pandas as pd
import pytest

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import ConfigError

GRADES = ("low", "middle", "high")
TABLE = pd.DataFrame(
    {
        "grade": [*GRADES, "low"],
        "p_low": [0.6, 0.2, 0.1, 0.5],
        "p_middle": [0.3, 0.5, 0.2, 0.1],
        "p_high": [0.1, 0.3, 0.7, 0.4],
    }
)


def test_a_binary_endpoint_asks_for_its_positive_class() -> None:
    (one,) = Binary("label", ["neg", "pos"]).questions()
    table = pd.DataFrame({"label": ["pos", "neg"], "p_pos": [0.9, 0.2]})
    assert (one.name, one.columns) == ("pos", ("p_pos",))
    assert one.probability(table).tolist() == [0.9, 0.2]
    assert one.truth(table).tolist() == [1, 0]


def test_several_classes_ask_for_each_and_their_answers_exclude_each_other() -> None:
    asked = Multiclass("grade", GRADES).questions()
    assert [one.name for one in asked] == list(GRADES)
    assert np.sum([one.truth(TABLE) for one in asked], 0).tolist() == [1] * 4
    assert np.sum([one.probability(TABLE) for one in asked], 0) == pytest.approx(1)


def test_grades_ask_once_a_boundary_and_the_answers_are_nested() -> None:
    asked = Ordinal("grade", GRADES).questions()
    assert [one.name for one in asked] == [">= middle", ">= high"]
    assert asked[0].columns == ("p_middle", "p_high")
    lower, upper = asked
    assert (lower.probability(TABLE) >= upper.probability(TABLE)).all()
    assert lower.truth(TABLE).tolist() == [0, 1, 1, 0]
    assert upper.truth(TABLE).tolist() == [0, 0, 1, 0]


def test_a_label_that_is_not_known_has_no_answer() -> None:
    first, second = Multilabel(["ER", "PR"], ["neg", "pos"]).questions()
    table = pd.DataFrame({"ER": ["pos", "", "neg"], "PR": ["neg", "pos", "pos"], "p_ER": 0.5, "p_PR": 0.5})
    np.testing.assert_array_equal(first.truth(table), [1, np.nan, 0])
    np.testing.assert_array_equal(second.truth(table), [0, 1, 1])


def test_classes_can_be_yes_together() -> None:
    (one,) = [Multiclass("grade", GRADES).joint_question(["high", "middle"])]
    assert (one.name, one.columns) == ("middle or high", ("p_middle", "p_high"))
    assert one.truth(TABLE).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("positive", [[], ["huge"], GRADES])
def test_classes_that_do_not_divide_the_patients_are_refused(positive: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected some of the classes low, middle, high"):
        Multiclass("grade", GRADES).joint_question(positive)


def test_numbers_and_times_ask_nothing() -> None:
    assert Regression("share").questions() == Cox().questions() == []
    with pytest.raises(ConfigError, match="expected an endpoint of several classes"):
        Cox().joint_question(["event"])


def test_sums_that_differ_by_rounding_alone_are_one_probability_and_small_ones_keep_their_order() -> None:
    first = [0.1, 0.0, 1e-15, 2e-15, 0.6, 0.0]
    second = [0.2, 0.3, 1e-16, 1e-16, 0.4, 0.0]
    table = pd.DataFrame({"p_a": 0.0, "p_b": first, "p_c": second})
    found = next(one for one in Ordinal("grade", ["a", "b", "c"]).questions() if one.name == ">= b").probability(table)
    assert found[0] == found[1]
    assert 0 == found[5] < found[2] < found[3]
    assert found[4] == 1
    assert found == pytest.approx(np.add(first, second), rel=1e-13)

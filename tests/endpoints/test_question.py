"""The yes-or-no questions of each endpoint and the columns that answer them."""

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


def test_binary_asks_about_its_positive_class() -> None:
    (question,) = Binary("label", ["neg", "pos"]).questions()
    table = pd.DataFrame({"label": ["pos", "neg"], "p_pos": [0.9, 0.2]})
    assert (question.name, question.columns) == ("pos", ("p_pos",))
    assert question.probability(table).tolist() == [0.9, 0.2]
    assert question.truth(table).tolist() == [1, 0]


def test_multiclass_asks_about_each_class_and_one_answer_is_yes() -> None:
    questions = Multiclass("grade", GRADES).questions()
    assert [question.name for question in questions] == list(GRADES)
    assert np.sum([question.truth(TABLE) for question in questions], 0).tolist() == [1] * 4
    assert np.sum([question.probability(TABLE) for question in questions], 0) == pytest.approx(1)


def test_ordinal_asks_about_each_boundary_and_answers_are_nested() -> None:
    questions = Ordinal("grade", GRADES).questions()
    assert [question.name for question in questions] == [">= middle", ">= high"]
    assert questions[0].columns == ("p_middle", "p_high")
    lower, upper = questions
    assert (lower.probability(TABLE) >= upper.probability(TABLE)).all()
    assert lower.truth(TABLE).tolist() == [0, 1, 1, 0]
    assert upper.truth(TABLE).tolist() == [0, 0, 1, 0]


def test_unknown_label_has_no_answer() -> None:
    first, second = Multilabel(["ER", "PR"], ["neg", "pos"]).questions()
    table = pd.DataFrame({"ER": ["pos", "", "neg"], "PR": ["neg", "pos", "pos"], "p_ER": 0.5, "p_PR": 0.5})
    np.testing.assert_array_equal(first.truth(table), [1, np.nan, 0])
    np.testing.assert_array_equal(second.truth(table), [0, 1, 1])


def test_joint_question_counts_several_classes_as_yes() -> None:
    question = Multiclass("grade", GRADES).joint_question(["high", "middle"])
    assert (question.name, question.columns) == ("middle or high", ("p_middle", "p_high"))
    assert question.truth(TABLE).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("positive", [[], ["huge"], GRADES])
def test_joint_question_refuses_none_all_and_unknown_classes(positive: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected some of the classes low, middle, high"):
        Multiclass("grade", GRADES).joint_question(positive)


def test_regression_and_survival_have_no_questions() -> None:
    assert Regression("share").questions() == Cox().questions() == []
    with pytest.raises(ConfigError, match="expected an endpoint of several classes"):
        Cox().joint_question(["event"])


def test_rounding_breaks_no_ties_and_small_sums_keep_their_order() -> None:
    first = [0.1, 0.0, 1e-15, 2e-15, 0.6, 0.0]
    second = [0.2, 0.3, 1e-16, 1e-16, 0.4, 0.0]
    table = pd.DataFrame({"p_a": 0.0, "p_b": first, "p_c": second})
    above_a = Ordinal("grade", ["a", "b", "c"]).questions()[0]
    assert above_a.name == ">= b"
    probability = above_a.probability(table)
    assert probability[0] == probability[1]
    assert 0 == probability[5] < probability[2] < probability[3]
    assert probability[4] == 1
    assert probability == pytest.approx(np.add(first, second), rel=1e-13)

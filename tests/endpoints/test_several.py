"""Several endpoints are what each of them is on the patients it knows, and nothing else."""

import numpy as np
import pandas as pd
import pytest
import torch

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.regression import Regression
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox
from mil.errors import CohortError, ConfigError
from tests.models.endpoints import ENDPOINTS

TABLE = pd.DataFrame(
    {
        "label": ["0", "1", None, "1", "0", ""],
        "time": ["3", "5", "4", "9", None, "2.5"],
        "event": ["1", "0", "1", "1", "1", "0"],
        "score": ["1.5", None, "-2", "0.25", "3", "1"],
    },
    index=[f"p{number}" for number in range(6)],
    dtype=object,
)
KNOWN = {"class": [0, 1, 3, 4], "outcome": [0, 1, 2, 3, 5], "amount": [0, 2, 3, 4, 5]}


def alone() -> dict[str, Endpoint]:
    return {"class": Binary(), "outcome": Cox(horizons={"3m": 3}), "amount": Regression()}


def drawn(patients: int = 6, width: int = 3) -> torch.Tensor:
    return torch.randn(patients, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENDPOINTS)
def test_no_patients_have_targets_of_the_same_width_and_kind(name: str) -> None:
    """By this an endpoint's place among the others is known before any patient is."""
    endpoint, target = ENDPOINTS[name]
    empty = endpoint.encode(pd.DataFrame({column: pd.Series(dtype=object) for column in endpoint.columns}))
    assert empty.shape == (0, *target.shape[1:])
    assert empty.dtype == target.dtype


def test_targets_lie_side_by_side_and_missing_ones_are_nan() -> None:
    target = Several(alone()).encode(TABLE)
    assert target.shape == (6, 4)
    assert target.dtype == torch.float64
    assert target.isnan().nonzero().tolist() == [[1, 3], [2, 0], [4, 1], [4, 2], [5, 0]]
    for name, _, known, own in Several(alone()).part_targets(target):
        one = alone()[name]
        assert known.nonzero()[0].tolist() == KNOWN[name]
        assert torch.equal(own, one.encode(TABLE.iloc[KNOWN[name]]))
        assert own.dtype == one.encode(TABLE.iloc[KNOWN[name]]).dtype


def test_the_loss_is_the_weighted_sum_over_those_who_have_it() -> None:
    several, logits = Several(alone(), {"outcome": 0.25}), drawn().requires_grad_()
    target = several.encode(TABLE)
    several.fit(target)
    expected = torch.zeros(())
    for at, (name, one) in enumerate(alone().items()):
        rows = KNOWN[name]
        own = one.encode(TABLE.iloc[rows])
        one.fit(own)
        expected = expected + (0.25 if name == "outcome" else 1) * one.loss(logits[rows, at : at + 1], own)
    torch.testing.assert_close(several.loss(logits, target), expected.double())
    (gradient,) = torch.autograd.grad(several.loss(logits, target), logits)
    assert gradient.isfinite().all()
    assert gradient[[2, 5], 0].tolist() == [0, 0]
    assert gradient[4, 1] == gradient[1, 2] == 0


def test_an_endpoint_nobody_has_adds_nothing_and_keeps_the_path_of_the_gradient() -> None:
    several, logits = Several(alone()), drawn(2).requires_grad_()
    target = torch.full((2, 4), torch.nan, dtype=torch.float64)
    loss = several.loss(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (float(loss.detach()), gradient.abs().sum().item()) == (0, 0)


def test_scores_are_each_endpoints_own_and_their_mean() -> None:
    several, logits = Several(alone()), drawn()
    target = several.encode(TABLE)
    weight = np.random.default_rng(0).integers(0, 3, (5, 6)).astype(float)
    for rows in (None, weight):
        found, own = several.score(logits, target, rows), []
        for at, (name, one) in enumerate(alone().items()):
            kept = KNOWN[name]
            values = one.encode(TABLE.iloc[kept])
            expected = one.score(logits[kept, at : at + 1], values, None if rows is None else rows[:, kept])
            own.append(expected[one.metric])
            for key, value in expected.items():
                np.testing.assert_array_equal(found[f"{name}_{key}"], value)
        np.testing.assert_array_equal(found[several.metric], np.mean(own, axis=0))


def test_predictions_are_all_columns_and_come_back() -> None:
    several, logits = Several(alone()), drawn()
    target = several.encode(TABLE)
    several.fit(target)
    several.finish(logits, target)
    columns = several.decode(logits)
    assert list(columns) == ["p_1", "log_hazard", "risk_3m", "value"]
    within = several.parts()
    assert set(columns) == within["class"].prediction_columns | within["outcome"].prediction_columns | {"value"}
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    torch.testing.assert_close(several.recode(table), logits)


def test_what_was_fitted_travels_by_name() -> None:
    several, other, logits = Several(alone()), Several(alone()), drawn()
    target = several.encode(TABLE)
    several.fit(target)
    several.finish(logits, target)
    assert set(several.state()) == set(alone())
    other.load_state(several.state())
    for name, values in several.decode(logits).items():
        assert torch.equal(other.decode(logits)[name], values)


def test_counts_strata_and_membership_are_of_those_who_are_known() -> None:
    several = Several(alone() | {"labels": Multilabel(("label", "event"))})
    target = several.encode(TABLE)
    counts = several.counts(target)
    assert (counts["n"], counts["class known"], counts["class 1"], counts["outcome events"]) == (6, 4, 2, 3)
    assert several.strata(target).tolist() == [0, 1, 0, 1, 0, 0]
    membership = several.membership(target)
    assert membership is not None
    assert membership[:, 1:3].isnan().all()
    assert membership[2, 0].isnan()
    assert membership[3].tolist()[0] == 1
    assert Several({"outcome": Cox()}).membership(target[:, 1:3]) is None


def test_who_has_one_target_is_a_patient_and_who_has_none_is_not() -> None:
    bare = TABLE.copy()
    bare.loc["p1"] = None
    several = Several(alone())
    assert several.known(bare).tolist() == [True, False, True, True, True, True]
    with pytest.raises(CohortError, match="row of p1: no target"):
        several.encode(bare)
    with pytest.raises(CohortError, match="endpoint class: none of 1 training patients has a value in label"):
        several.fit(several.encode(TABLE.iloc[[2]]))


def test_a_patient_alone_will_do_unless_one_endpoint_compares() -> None:
    assert not Several(alone()).alone
    assert Several({"a": Binary(), "b": Regression()}).alone


def test_classes_are_balanced_and_other_endpoints_left_alone() -> None:
    several = Several(alone())
    several.fit(several.encode(TABLE.iloc[:4]), balance=True)
    assert several.state()["class"]["class_weight"] == [1.5, 0.75]
    with pytest.raises(ConfigError, match="no endpoint has classes to balance"):
        Several({"b": Regression()}).fit(torch.tensor([[1.0], [2.0]]), balance=True)


@pytest.mark.parametrize(
    ("endpoints", "weights", "said"),
    [
        ({}, None, "none, expected one or more"),
        ({"a": Binary(), "b": Binary("other")}, None, "endpoints a and b: both predict a column 'p_1'"),
        ({"a": Cox(horizons={"5y": 60}), "b": Multiclass("c", ["x", "y"])}, {"c": 1.0}, "no endpoint 'c'"),
        ({"a": Binary()}, {"a": 0}, "weights: a 0, expected a positive number"),
        ({"a": Several({"b": Binary()})}, None, "endpoint a: a Several, expected an endpoint of one question"),
        ({"a": "Binary"}, None, "endpoint a: a str, expected"),
    ],
)
def test_endpoints_that_cannot_stand_together_are_refused(
    endpoints: dict[str, Endpoint], weights: dict[str, float] | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Several(endpoints, weights)

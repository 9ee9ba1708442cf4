"""Several endpoints in one: each behaves as it would alone on the patients who have its target."""

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


def single_endpoints() -> dict[str, Endpoint]:
    return {"class": Binary(), "outcome": Cox(horizons={"3m": 3}), "amount": Regression()}


def random_logits(patients: int = 6, width: int = 3) -> torch.Tensor:
    return torch.randn(patients, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENDPOINTS)
def test_empty_target_has_the_width_and_dtype_of_a_full_one(name: str) -> None:
    """The layout of the joint target is derived from an empty target."""
    endpoint, target = ENDPOINTS[name]
    empty = endpoint.encode(pd.DataFrame({column: pd.Series(dtype=object) for column in endpoint.columns}))
    assert empty.shape == (0, *target.shape[1:])
    assert empty.dtype == target.dtype


def test_joint_target_concatenates_targets_with_nan_where_missing() -> None:
    target = Several(single_endpoints()).encode(TABLE)
    assert target.shape == (6, 4)
    assert target.dtype == torch.float64
    assert target.isnan().nonzero().tolist() == [[1, 3], [2, 0], [4, 1], [4, 2], [5, 0]]
    for part in Several(single_endpoints()).part_targets(target):
        expected = single_endpoints()[part.name].encode(TABLE.iloc[KNOWN[part.name]])
        assert part.mask.nonzero()[0].tolist() == KNOWN[part.name]
        assert torch.equal(part.target, expected)
        assert part.target.dtype == expected.dtype


def test_loss_is_the_weighted_sum_of_the_endpoint_losses() -> None:
    several, logits = Several(single_endpoints(), {"outcome": 0.25}), random_logits().requires_grad_()
    target = several.encode(TABLE)
    several.fit(target)
    expected = torch.zeros(())
    for index, (name, endpoint) in enumerate(single_endpoints().items()):
        rows = KNOWN[name]
        part_target = endpoint.encode(TABLE.iloc[rows])
        endpoint.fit(part_target)
        loss = endpoint.loss(logits[rows, index : index + 1], part_target)
        expected = expected + (0.25 if name == "outcome" else 1) * loss
    torch.testing.assert_close(several.loss(logits, target), expected.double())
    (gradient,) = torch.autograd.grad(several.loss(logits, target), logits)
    assert gradient.isfinite().all()
    assert gradient[[2, 5], 0].tolist() == [0, 0]
    assert gradient[4, 1] == gradient[1, 2] == 0


def test_batch_without_targets_has_zero_loss_and_gradient() -> None:
    several, logits = Several(single_endpoints()), random_logits(2).requires_grad_()
    target = torch.full((2, 4), torch.nan, dtype=torch.float64)
    loss = several.loss(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (float(loss.detach()), gradient.abs().sum().item()) == (0, 0)


def test_scores_are_those_of_each_endpoint_and_their_mean() -> None:
    several, logits = Several(single_endpoints()), random_logits()
    target = several.encode(TABLE)
    weight = np.random.default_rng(0).integers(0, 3, (5, 6)).astype(float)
    for rows in (None, weight):
        scores, ranking = several.score(logits, target, rows), []
        for index, (name, endpoint) in enumerate(single_endpoints().items()):
            patients = KNOWN[name]
            values = endpoint.encode(TABLE.iloc[patients])
            part_weight = None if rows is None else rows[:, patients]
            expected = endpoint.score(logits[patients, index : index + 1], values, part_weight)
            ranking.append(expected[endpoint.metric])
            for key, value in expected.items():
                np.testing.assert_array_equal(scores[f"{name}_{key}"], value)
        np.testing.assert_array_equal(scores[several.metric], np.mean(ranking, axis=0))


def test_predictions_hold_all_columns_and_recode_to_the_logits() -> None:
    several, logits = Several(single_endpoints()), random_logits()
    target = several.encode(TABLE)
    several.fit(target)
    several.finish(logits, target)
    columns = several.decode(logits)
    assert list(columns) == ["p_1", "log_hazard", "risk_3m", "value"]
    within = several.parts()
    assert set(columns) == within["class"].prediction_columns | within["outcome"].prediction_columns | {"value"}
    table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    torch.testing.assert_close(several.recode(table), logits)


def test_fitted_state_is_restored_by_endpoint_name() -> None:
    several, restored, logits = Several(single_endpoints()), Several(single_endpoints()), random_logits()
    target = several.encode(TABLE)
    several.fit(target)
    several.finish(logits, target)
    assert set(several.state()) == set(single_endpoints())
    restored.load_state(several.state())
    for name, values in several.decode(logits).items():
        assert torch.equal(restored.decode(logits)[name], values)


def test_counts_strata_and_membership_skip_missing_targets() -> None:
    several = Several(single_endpoints() | {"labels": Multilabel(("label", "event"))})
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


def test_every_patient_needs_at_least_one_target() -> None:
    bare = TABLE.copy()
    bare.loc["p1"] = None
    several = Several(single_endpoints())
    assert several.has_target(bare).tolist() == [True, False, True, True, True, True]
    with pytest.raises(CohortError, match="row of p1: no target"):
        several.encode(bare)
    with pytest.raises(CohortError, match="endpoint class: none of 1 training patients has a value in label"):
        several.fit(several.encode(TABLE.iloc[[2]]))


def test_needs_several_patients_if_any_endpoint_does() -> None:
    assert not Several(single_endpoints()).alone
    assert Several({"a": Binary(), "b": Regression()}).alone


def test_class_weights_are_fitted_only_for_endpoints_with_classes() -> None:
    several = Several(single_endpoints())
    several.fit(several.encode(TABLE.iloc[:4]), balance=True)
    assert several.state()["class"]["class_weight"] == [1.5, 0.75]
    with pytest.raises(ConfigError, match="no endpoint has classes to balance"):
        Several({"b": Regression()}).fit(torch.tensor([[1.0], [2.0]]), balance=True)


@pytest.mark.parametrize(
    ("endpoints", "weights", "message"),
    [
        ({}, None, "none, expected one or more"),
        ({"a": Binary(), "b": Binary("other")}, None, "endpoints a and b: both predict a column 'p_1'"),
        ({"a": Cox(horizons={"5y": 60}), "b": Multiclass("c", ["x", "y"])}, {"c": 1.0}, "no endpoint 'c'"),
        ({"a": Binary()}, {"a": 0}, "weights: a 0, expected a positive number"),
        ({"a": Several({"b": Binary()})}, None, "endpoint a: a Several, expected an endpoint of one question"),
        ({"a": "Binary"}, None, "endpoint a: a str, expected"),
    ],
)
def test_endpoints_that_cannot_be_combined_are_refused(
    endpoints: dict[str, Endpoint], weights: dict[str, float] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Several(endpoints, weights)

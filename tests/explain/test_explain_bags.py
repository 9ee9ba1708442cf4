"""`mil.explain(model, bags)` in Python."""

import numpy as np
import pytest
import torch

import mil
from mil.bags import Bags
from mil.endpoints.classification import Binary
from mil.errors import FeatureError
from tests.models.zoo import simulated


def test_a_bare_model_is_explained_logit_by_logit() -> None:
    model = mil.create_model("abmil", in_dim=12, out_dim=2)
    bags = [np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32), np.ones((3, 12), np.float32)]
    explanation = mil.explain(model, bags, method=["single", "attention"])
    table = explanation.frame()
    assert table["bag"].tolist() == [0] * 5 + [1] * 3
    assert {"single:logit 1", "single:logit 2", "attention:logit 1"} <= set(table)
    assert table[table["bag"] == 1]["attention:logit 1"].sum() == pytest.approx(1)
    assert explanation[0].reference == "tiles of the given cohort"
    assert [method.signed for method in explanation[0].methods] == [True, False]


def test_an_endpoint_names_the_outputs_and_coordinates_come_along() -> None:
    model = mil.create_model("patchgcn", in_dim=12, out_dim=1)
    explanation = mil.explain(model, simulated([30]), endpoint=Binary("MSI", ["MSS", "MSI-H"]))
    table = explanation.frame()
    assert "single:MSI-H" in table
    assert table["x"].max() == 512 * 9
    assert explanation[0].slides[0].places is not None


def test_the_reference_can_be_given() -> None:
    model, bag = mil.create_model("abmil", in_dim=4, out_dim=1), torch.randn(6, 4)
    explanation = mil.explain(model, bag, reference=bag[2])
    assert explanation.frame()["single:logit 1"][2] == pytest.approx(0, abs=1e-6)


def test_wrong_shapes_are_named() -> None:
    model = mil.create_model("abmil", in_dim=4, out_dim=1)
    with pytest.raises(FeatureError, match="bag 1: features are"):
        mil.explain(model, [torch.randn(3, 4), torch.randn(3)])
    with pytest.raises(FeatureError, match="widths 4, 5"):
        mil.explain(model, [torch.randn(3, 4), torch.randn(3, 5)])
    assert len(mil.explain(model, Bags(torch.randn(5, 4), (2, 3)))) == 2

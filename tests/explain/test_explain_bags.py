"""`mil.explain(model, bags)` in Python."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mil
from mil.bags import Bags
from mil.endpoints.classification import Binary, Multiclass
from mil.errors import ConfigError, FeatureError, MilError
from mil.explain.methods import scorers
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel
from tests.models.zoo import IN_DIM, NAMES, build_model, simulated


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


def test_what_does_not_fit_the_model_is_named() -> None:
    model, bag = mil.create_model("abmil", in_dim=4, out_dim=1), torch.randn(6, 4)
    graph, fused = mil.create_model("patchgcn", in_dim=4, out_dim=1), Fused(model, 2, 1)
    broken = bag.clone()
    broken[0, 0] = float("nan")
    wrong: list[tuple[type[MilError], str, dict[str, Any]]] = [
        (FeatureError, "features are 5 wide, which ABMIL does not read", {"bags": torch.randn(6, 5)}),
        (FeatureError, "expected finite numbers", {"bags": Bags(broken, (6,))}),
        (FeatureError, "reference: 3 numbers, expected 4", {"reference": torch.ones(3)}),
        (FeatureError, "reference: 4 numbers, expected 4 finite", {"reference": broken[0]}),
        (FeatureError, "no coordinates, and PatchGCN reads where tiles lie", {"model": graph}),
        (FeatureError, "no coordinates, and Fused reads where tiles lie", {"model": Fused(graph, 2, 1)}),
        (FeatureError, "no covariates, and Fused reads them", {"model": fused}),
        (FeatureError, "str found, expected Bags, an array", {"bags": "abc"}),
        (FeatureError, "an array of <U1 found, expected numbers", {"bags": np.array([["a"]])}),
        (ConfigError, "the model has 1 logits, expected 3", {"endpoint": Multiclass("a", ["x", "y", "z"])}),
        (ConfigError, "model: str found", {"model": "abmil"}),
        (ConfigError, "method: none given", {"method": []}),
        (ConfigError, "group -1, permutations 64: expected 0 or more", {"group": -1}),
    ]
    for kind, message, given in wrong:
        with pytest.raises(kind, match=message):
            mil.explain(**{"model": model, "bags": bag, **given})


def test_a_model_that_is_being_trained_goes_on_being_trained() -> None:
    model = mil.create_model("abmil", in_dim=4, out_dim=1).train()
    bag = torch.randn(20, 4, requires_grad=True)
    scores = [mil.explain(model, bag, method=["single", "integrated_gradients", "lrp"]).frame() for _ in range(2)]
    assert model.training
    pd.testing.assert_frame_equal(scores[0], scores[1])  # without dropout
    assert bag.grad is None


@pytest.mark.slow  # 26 models by all methods on 4 bags
@pytest.mark.parametrize("name", NAMES)
def test_hostile_bags_have_finite_scores(name: str) -> None:
    """One tile, equal tiles, tiles at one place, two slides, huge features, more neighbours than tiles."""
    places = 256 * torch.stack([torch.arange(9) % 3, torch.arange(9) // 3], 1)
    tiles = torch.randn(9, IN_DIM, generator=torch.Generator().manual_seed(0))
    bags = (
        Bags(tiles[:1], (1,), places[:1]),
        Bags(tiles[:1].expand(9, -1), (9,), places),
        Bags(tiles, (9,), torch.zeros_like(places)),
        Bags(tiles * 1e4, (9,), places - 512, torch.arange(9) // 5),
    )
    model = build_model(name)
    methods = [method for method in scorers() if has_method(model, method)]
    for bag in bags:
        for group in (0, 20):
            table = mil.explain(model, bag, method=methods, group=group, permutations=2).frame()
            assert np.isfinite(table.filter(like=":")).all(axis=None)


def has_method(model: MILModel, method: str) -> bool:
    """Return whether a model has a method, by a bag of two tiles."""
    try:
        mil.explain(model, simulated([2]), method=method)
    except ConfigError:
        return False
    return True

"""What the methods promise: closed forms, sums, signs, for every model and every endpoint."""

from collections.abc import Sequence

import pytest
import torch

from mil.bags import Bags
from mil.endpoints.survival import Cox
from mil.errors import ConfigError
from mil.explain.coalitions import Coalitions
from mil.explain.explained_model import ExplainedModel, single_tiles, subset
from mil.explain.methods import (
    MethodOptions,
    contribution,
    integrated_gradients,
    leave_one_out,
    scorers,
    scorers_of,
    shapley,
    single_tile,
)
from mil.explain.tile_groups import neighbourhoods
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel, Output
from tests.explain.subjects import LINEAR, bag_of, endpoints, subject
from tests.models.endpoints import ENDPOINTS
from tests.models.zoo import IN_DIM, NAMES, build_model

OPTIONS = MethodOptions(permutations=4)
CONTEXT = {name for name in NAMES if name not in LINEAR}


def brute_force(model: ExplainedModel, bag: Bags) -> torch.Tensor:
    """Return what leaving out each tile changes, by reading each smaller bag by itself."""
    n = len(bag.features)
    rows = [[other for other in range(n) if other != tile] for tile in range(n)]
    return torch.cat([model(bag) - model(subset(bag, torch.tensor(others))) for others in rows])


ALL_ENDPOINTS = [name for name, _ in endpoints()]
COVERING = {
    name: [endpoint for each, endpoint in enumerate(ALL_ENDPOINTS) if each % len(NAMES) == at]
    or [ALL_ENDPOINTS[at % len(ALL_ENDPOINTS)]]
    for at, name in enumerate(NAMES)
}
"""A few endpoints for each model, so that every model and every endpoint is tested at least once."""


@pytest.mark.parametrize("name", NAMES)
def test_every_method_scores_each_model_on_some_endpoint_or_says_why_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {endpoint for listed in COVERING.values() for endpoint in listed} == set(ALL_ENDPOINTS)
    check_every_method(name, COVERING[name], monkeypatch)


@pytest.mark.slow  # 27 models by 17 endpoints
@pytest.mark.parametrize("name", NAMES)
def test_every_method_scores_every_model_and_endpoint_or_says_why_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_every_method(name, ALL_ENDPOINTS, monkeypatch)


def check_every_method(name: str, chosen: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Score a bag by every method for some endpoints; methods that the model lacks are refused by its name."""
    monkeypatch.setattr(integrated_gradients, "STEPS", (2,))
    bag, by_name = bag_of(3), dict(endpoints())
    models = {width: build_model(name, width) for width in {by_name[each].out_dim for each in chosen}}
    for endpoint_name in chosen:
        endpoint = by_name[endpoint_name]
        model = ExplainedModel(models[endpoint.out_dim], endpoint, torch.full((IN_DIM,), 0.1))
        refused = {"attention"} if model.read(bag).attention is None else set()
        refused |= {"contribution", "lrp"} if model.terms(bag) is None else set()
        for method, scorer in scorers().items():
            if method in refused:
                with pytest.raises(ConfigError, match=type(model.model).__name__):
                    scorer.score(model, bag, OPTIONS)
                continue
            scored = scorer.score(model, bag, OPTIONS)
            assert scored.scores.shape == (3, len(endpoint.explained())), (endpoint_name, method)
            assert scored.scores.isfinite().all(), (endpoint_name, method)


@pytest.mark.parametrize("name", NAMES)
def test_single_equals_the_bag_of_that_tile_read_by_itself(name: str) -> None:
    model, bag = subject(name, ENDPOINTS["multiclass"][0]), bag_of(70)
    reference = model(model.reference_bag(bag))
    alone = [model(subset(bag, torch.tensor([tile]))) - reference for tile in range(0, 70, 10)]
    scores = single_tile.score(model, bag, OPTIONS).scores[::10]
    torch.testing.assert_close(scores, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["abmil", "patchgcn"])
def test_single_with_neighbours_reads_the_tile_and_its_nearest(name: str) -> None:
    model, bag = subject(name), bag_of(30)
    scores = single_tile.score(model, bag, MethodOptions(group=3)).scores
    assert bag.coords is not None
    references = []
    for tile in (0, 14, 22):
        index = neighbourhoods(bag, 3)[tile]
        assert index[0] == tile
        distance = (bag.coords - bag.coords[tile]).double().norm(dim=1)
        assert distance[index].max() == distance.sort().values[3]
        references.append(model(subset(bag, index)) - scores[tile])
    torch.testing.assert_close(torch.cat(references), references[0].expand(3, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "endpoint", ["binary", "multiclass", "corn", "multilabel", "cox", "weibull", "competing_risks"]
)
@pytest.mark.parametrize("name", LINEAR)
def test_contributions_add_up_to_the_output_less_that_of_the_reference(name: str, endpoint: str) -> None:
    model, bag = subject(name, ENDPOINTS[endpoint][0]), bag_of(40)
    scores = contribution.score(model, bag, OPTIONS).scores
    difference = model(bag) - model(model.reference_bag(bag))
    torch.testing.assert_close(scores.sum(0, keepdim=True), difference, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", LINEAR)
def test_leave_one_out_in_closed_form_equals_brute_force(name: str) -> None:
    for endpoint in ("multiclass", "log_normal"):
        model, bag = subject(name, ENDPOINTS[endpoint][0]), bag_of(25)
        assert Coalitions(model, bag).terms is not None
        scores = leave_one_out.score(model, bag, OPTIONS).scores
        torch.testing.assert_close(scores, brute_force(model, bag), atol=1e-5, rtol=0)


def test_leave_one_out_holds_where_one_tile_has_nearly_all_the_attention() -> None:
    model, bag = subject("abmil"), bag_of(12)
    with torch.no_grad():
        model.model.get_parameter("score.score.weight").mul_(200)
    attention = model.read(bag).attention
    assert attention is not None
    assert attention.max() > 0.999
    scores = leave_one_out.score(model, bag, OPTIONS).scores
    torch.testing.assert_close(scores, brute_force(model, bag), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(CONTEXT))
def test_leave_one_out_of_other_models_reads_each_smaller_bag(name: str) -> None:
    model, bag = subject(name), bag_of(9)
    scores = leave_one_out.score(model, bag, OPTIONS).scores
    torch.testing.assert_close(scores, brute_force(model, bag), atol=1e-5, rtol=1e-4)


def test_leave_out_of_a_group_equals_brute_force() -> None:
    bag = bag_of(25)
    for name in ("abmil_multihead", "max"):
        model = subject(name)
        scores = leave_one_out.score(model, bag, MethodOptions(group=2)).scores
        group = neighbourhoods(bag, 2)[11]
        rest = torch.tensor([tile for tile in range(25) if tile not in group.tolist()])
        torch.testing.assert_close(scores[11], (model(bag) - model(subset(bag, rest)))[0], atol=1e-5, rtol=1e-4)


def test_large_bags_of_context_models_lose_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leave_one_out, "MOST", 8)
    model, bag = subject("max"), bag_of(40)
    scored = leave_one_out.score(model, bag, OPTIONS)
    assert "patches of up to" in scored.note
    assert len(set(scored.scores.flatten().tolist())) <= 8


@pytest.mark.parametrize("name", ["abmil", "max", "transformer"])
def test_shapley_values_of_small_bags_are_exact(name: str) -> None:
    """Equal tiles have equal values, the sum is the output, and two tiles have the known closed form."""
    model, bag = subject(name), bag_of(5)
    scores = shapley.score(model, bag, OPTIONS).scores
    difference = model(bag) - model(model.reference_bag(bag))
    torch.testing.assert_close(scores.sum(0, keepdim=True), difference, atol=1e-5, rtol=1e-4)
    pair = subset(bag, torch.tensor([0, 1]))
    first, second = (model(subset(bag, torch.tensor([tile]))) for tile in (0, 1))
    empty, both = model(model.reference_bag(bag)), model(pair)
    expected = torch.cat([(first - empty + both - second) / 2, (second - empty + both - first) / 2])
    torch.testing.assert_close(shapley.score(model, pair, OPTIONS).scores, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["abmil_multihead", "max"])
def test_sampled_shapley_values_agree_with_exact_ones_within_their_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, bag = subject(name), bag_of(8)
    exact = shapley.score(model, bag, OPTIONS).scores
    monkeypatch.setattr(shapley, "EXACT", 0)
    sampled = shapley.score(model, bag, MethodOptions(permutations=400))
    assert sampled.error is not None
    assert "400 random orders" in sampled.note
    torch.testing.assert_close(sampled.scores.sum(0), exact.sum(0), atol=1e-5, rtol=1e-4)
    off = (sampled.scores - exact).abs() / sampled.error.clamp(min=1e-12)
    assert (off < 4).all()
    assert (sampled.error < 0.5 * exact.abs().max()).all()


@pytest.mark.parametrize("name", NAMES)
def test_integrated_gradients_are_complete(name: str) -> None:
    model, bag = subject(name), bag_of(20)
    scored = integrated_gradients.score(model, bag, OPTIONS)
    start = integrated_gradients._moved(model, bag, 0.0)
    difference = (model(bag) - model(start))[0]
    missed = (scored.scores.sum(0) - difference).abs()
    assert (missed <= 0.01 * difference.abs().clamp(min=1e-3)).all() or "miss the result" in scored.note
    assert (missed <= 0.1 * difference.abs() + 1e-3).all()


def test_covariates_stay_those_of_the_patient() -> None:
    torch.manual_seed(0)
    model = Fused(build_model("abmil", 2), 3, 2)
    with torch.no_grad():
        model.shift.weight.normal_()
    explained = ExplainedModel(model.eval(), None, torch.zeros(IN_DIM))
    bag = Bags(bag_of(10).features, (10,), bag_of(10).coords, covariates=torch.tensor([[1.0, -2.0, 0.5]]))
    without = ExplainedModel(model.inner, None, torch.zeros(IN_DIM))
    for scorer in (single_tile, contribution, leave_one_out, integrated_gradients):
        scores, inner = (each.score(m, bag, OPTIONS).scores for each, m in ((scorer, explained), (scorer, without)))
        torch.testing.assert_close(scores, inner, atol=1e-5, rtol=1e-4)  # a shift of the logits cancels
    assert not torch.allclose(explained(bag), without(bag))


def test_a_tile_that_speaks_for_the_output_has_a_positive_score_and_its_opposite_a_negative_one() -> None:
    class First(MILModel):
        paper, cost = "none", "n"

        def forward(self, bags: Bags) -> Output:
            mean = bags.mean(bags.features[:, :1])
            return Output(mean, mean)

    model = ExplainedModel(First().eval(), Cox(), torch.zeros(3))
    bag = Bags(torch.tensor([[4.0, 0, 0], [-4.0, 0, 0], [1.0, 9, 9]]), (3,))
    for method in ("single", "shapley", "integrated_gradients"):
        scores = scorers()[method].score(model, bag, OPTIONS).scores[:, 0]
        assert scores[0] > scores[2] > 0 > scores[1], method


def test_blocks_of_single_tiles_are_bounded_and_complete() -> None:
    bag = bag_of(20_000)
    blocks = list(single_tiles(bag))
    assert max(len(block) for block in blocks) <= 8192
    assert sum(len(block) for block in blocks) == 20_000


def test_unknown_and_refused_methods_name_the_choices() -> None:
    with pytest.raises(ConfigError, match="expected one of single, attention"):
        scorers_of(["saliency"])
    with pytest.raises(ConfigError, match="gradient: not offered"):
        scorers_of(["gradient"])
    assert [scorer.METHOD.name for scorer in scorers_of(["shapley", "single", "shapley"])] == ["shapley", "single"]

"""DTFD-MIL against a tile-by-tile computation of its description, the authors' code, and torchmil."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mil.bags import Bags
from mil.endpoints.classification import Multiclass
from mil.endpoints.survival import Cox
from mil.models.dtfd import DISTILL, DTFD

from .reference import copy_gated, copy_linear, copy_parameters, golden
from .zoo import permuted

every_mode = pytest.mark.parametrize("distill", DISTILL)


def small_model(out_dim: int, distill: str, pseudo_bags: int = 3, per_pseudo_bag: int = 1, ranking: int = -1) -> DTFD:
    torch.manual_seed(0)
    model = DTFD(5, out_dim, distill, pseudo_bags, per_pseudo_bag, ranking, embed_dim=6, attention_dim=4)
    return model.double().eval()


def random_bags(sizes: tuple[int, ...], seed: int = 0) -> Bags:
    generator = torch.Generator().manual_seed(seed)
    return Bags(2 * torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64), sizes)


def pooled(score: nn.Module, tiles: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the attention-weighted mean of tiles, and the attention."""
    exponentials = [score(tile[None])[0, 0].exp() for tile in tiles]
    shares = [exponential / sum(exponentials) for exponential in exponentials]
    return torch.stack([share * tile for share, tile in zip(shares, tiles, strict=True)]).sum(0), shares


def distilled_features(model: DTFD, tiles: list[Tensor]) -> list[Tensor]:
    """Return the features that tier one distils from a pseudo-bag."""
    mean, shares = pooled(model.score, tiles)
    activations = [share * (model.pseudo_head.weight @ tile) for share, tile in zip(shares, tiles, strict=True)]
    strengths = [
        (activation[0] if len(activation) == 1 else activation.softmax(0)[model.ranking]).item()
        for activation in activations
    ]
    if model.distill == "MAS":
        strengths = [share.item() for share in shares]
    best = sorted(range(len(tiles)), key=lambda tile: -strengths[tile])
    chosen = best[: model.per_pseudo_bag]
    if model.distill == "MaxMinS":
        chosen = chosen + best[::-1][: model.per_pseudo_bag]
    return [mean] if model.distill == "AFS" else [tiles[tile] for tile in chosen]


def read(model: DTFD, bag: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of a bag and of its pseudo-bags."""
    tiles = sorted((model.embed(row[None])[0] for row in bag), key=lambda tile: -model.score(tile[None]).item())
    dealt = [tiles[turn :: model.pseudo_bags] for turn in range(min(model.pseudo_bags, len(tiles)))]
    distilled = [tile for part in dealt for tile in distilled_features(model, part)]
    pseudo_logits = torch.stack([model.pseudo_head(pooled(model.score, part)[0]) for part in dealt])
    return model.head(pooled(model.bag_score, distilled)[0]), pseudo_logits


@every_mode
@pytest.mark.parametrize(("out_dim", "ranking", "per_pseudo_bag"), [(1, -1, 1), (3, -1, 2), (3, 0, 1)])
def test_logits_match_the_description(distill: str, out_dim: int, ranking: int, per_pseudo_bag: int) -> None:
    model, bags = small_model(out_dim, distill, 3, per_pseudo_bag, ranking), random_bags((11, 1, 2, 7))
    output = model(bags)
    expected = [read(model, bag) for bag in bags.split()]
    torch.testing.assert_close(output.logits, torch.stack([logits for logits, _ in expected]))
    torch.testing.assert_close(output.extra["pseudo_logits"], torch.cat([logits for _, logits in expected]))


@pytest.mark.parametrize("distill", ["MaxMinS", "MaxS", "AFS"])
def test_logits_and_losses_match_the_authors_code(distill: str) -> None:
    """The authors' code has its shuffle replaced by the order of attention; it has no MAS."""
    arrays, weights = golden("dtfd")
    model = DTFD(7, 3, distill, 4, 2, embed_dim=6, attention_dim=5).double().eval()
    copy_linear(model.embed[0], weights, "reduction.fc1")
    gates = ("attention_V.0", "attention_U.0", "attention_weights")
    copy_gated(model.score, weights, *(f"attention.{gate}" for gate in gates))
    copy_gated(model.bag_score, weights, *(f"second.attention.{gate}" for gate in gates))
    copy_linear(model.pseudo_head, weights, "classifier.fc")
    copy_linear(model.head, weights, "second.classifier.fc")
    output = model(Bags(arrays["features"], (23,)))
    for name, computed in (("logits", output.logits), ("pseudo_logits", output.extra["pseudo_logits"])):
        torch.testing.assert_close(computed, arrays[f"{distill}.{name}"], rtol=1e-10, atol=1e-10)
    loss = model.loss(output, arrays["label"][None], Multiclass())
    assert loss.item() == pytest.approx(arrays[f"{distill}.loss"].sum().item(), rel=1e-10)


def test_logits_of_afs_match_torchmil() -> None:
    """The other two modes of torchmil pass on every tile instead of the highest and lowest."""
    from torchmil.models import DTFDMIL

    torch.manual_seed(0)
    reference = DTFDMIL(
        (5,), 4, n_groups=3, distill_mode="afs", feat_ext=nn.Sequential(nn.Linear(5, 6), nn.ReLU())
    ).double()
    model = DTFD(5, 1, "AFS", 3, embed_dim=6, attention_dim=4, gated=False).double().eval()
    model.embed[0].load_state_dict(reference.feat_ext[0].state_dict())
    for mine, theirs in ((model.score, reference.attention_pool), (model.bag_score, reference.u_attention_pool)):
        mine.branches.load_state_dict(theirs.fc1.module.state_dict())
        mine.score.load_state_dict(theirs.fc2.state_dict())
    copy_parameters(model.pseudo_head, **dict(reference.classifier.module.named_parameters()))
    copy_parameters(model.head, **dict(reference.u_classifier.module.named_parameters()))
    bags = random_bags((11,))
    ranks = model.score(model.embed(bags.features)).squeeze(1).argsort(descending=True).numpy()
    dealt = np.concatenate([ranks[turn::3] for turn in range(3)])
    with mock.patch("numpy.random.shuffle", lambda index: index.__setitem__(slice(None), dealt)):
        logits, pseudo_logits = reference(bags.features[None], return_pseudo_pred=True)
    output = model(bags)
    torch.testing.assert_close(output.logits[0], logits, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(output.extra["pseudo_logits"].T, pseudo_logits, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 17), min_size=1, max_size=4),
    pseudo_bags=st.integers(1, 6),
    per_pseudo_bag=st.integers(1, 3),
    distill=st.sampled_from(DISTILL),
    training=st.booleans(),
)
def test_embedding_is_the_attention_weighted_mean(
    sizes: list[int], pseudo_bags: int, per_pseudo_bag: int, distill: str, training: bool
) -> None:
    model, bags = small_model(2, distill, pseudo_bags, per_pseudo_bag), random_bags(tuple(sizes))
    model.training = training  # of the model only, not of its layers: no dropout
    output = model(bags)
    assert output.attention is not None
    mean = bags.sum(model.embed(bags.features), weight=output.attention.unsqueeze(1))
    torch.testing.assert_close(output.embedding, mean)
    for size, pseudo_bag in zip(sizes, bags.split(output.extra["pseudo_bag"]), strict=True):
        amounts = torch.unique(pseudo_bag, return_counts=True)[1]
        assert len(amounts) == min(size, pseudo_bags)
        assert amounts.max() - amounts.min() <= 1
    pseudo_bag, within = output.extra["pseudo_bag"], output.extra["pseudo_attention"]
    totals = within.new_zeros(len(output.extra["parent"])).index_add(0, pseudo_bag, within)
    torch.testing.assert_close(totals, torch.ones_like(totals))


@every_mode
def test_evaluation_ignores_the_batch_and_the_order_of_tiles(distill: str) -> None:
    model, bags = small_model(2, distill, 3, 2), random_bags((11, 1, 2, 7))
    spoilt = bags.with_features(torch.cat([bags.features[:11], bags.features[11:] * torch.nan]))
    expected, shuffled = model(bags), permuted(bags, seed=1)
    for bag, alone in enumerate(bags):
        torch.testing.assert_close(model(alone).logits[0], expected.logits[bag])
    torch.testing.assert_close(model(shuffled[0]).logits, expected.logits)
    torch.testing.assert_close(model(shuffled[0]).attention, expected.attention[shuffled[1]])
    torch.testing.assert_close(model(spoilt).logits[0], expected.logits[0])


def test_pseudo_bags_are_random_in_training_and_follow_the_seed() -> None:
    model, bags = small_model(1, "AFS"), random_bags((30, 9))
    assignments = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        assignments.append(model.train()(bags).extra["pseudo_bag"])
    assert torch.equal(assignments[0], assignments[1])
    assert not torch.equal(assignments[0], assignments[2])


def test_ties_are_assigned_regardless_of_the_order_of_tiles() -> None:
    model, bags = small_model(1, "AFS"), random_bags((12,))
    with torch.no_grad():
        model.score.score.weight.zero_()
    turned = bags.with_features(bags.features.flip(0))
    torch.testing.assert_close(model(turned).logits, model(bags).logits)


@every_mode
def test_no_gradient_flows_from_tier_two_to_tier_one(distill: str) -> None:
    model, bags = small_model(1, distill), random_bags((12, 7))
    torch.autograd.backward(model.train()(bags).logits.sum())
    taught = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
    assert taught == {"bag_score", "head"}


def test_cox_loss_ranks_all_pseudo_bags_and_all_bags() -> None:
    model, bags, cox = small_model(1, "MaxS", 2), random_bags((12, 1, 7)), Cox()
    target = torch.tensor([[3.0, 1], [5, 0], [2, 1]], dtype=torch.float64)
    output = model(bags)
    first = cox.loss(output.extra["pseudo_logits"], target[[0, 0, 1, 2, 2]])
    torch.testing.assert_close(model.loss(output, target, cox), first + cox.loss(output.logits, target))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distill": "Max"}, "distill is 'Max', expected one of MaxMinS, MaxS, MAS, AFS"),
        ({"pseudo_bags": 0}, "0 pseudo-bags of 1 distilled tiles"),
        ({"ranking": 2}, "ranking is 2, expected one of 2 logits"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DTFD(5, 2, **options)  # type: ignore[arg-type]  # wrong values on purpose

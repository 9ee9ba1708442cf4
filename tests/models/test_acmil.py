"""ACMIL against a direct computation of the paper's description, and the authors' code."""

from itertools import combinations

import pytest
import torch

from mil.bags import Bags
from mil.endpoints.classification import Multiclass
from mil.endpoints.survival import Cox
from mil.models.acmil import ACMIL

from .reference import copy_gated, copy_linear, golden


def small_model(out_dim: int = 2, masked: int = 4, mask_share: float = 0.5) -> ACMIL:
    torch.manual_seed(0)
    model = ACMIL(5, out_dim, 3, masked, mask_share, embed_dim=6, attention_dim=4, dropout=0)
    return model.double().eval()


def random_bags(sizes: tuple[int, ...]) -> Bags:
    generator = torch.Generator().manual_seed(0)
    return Bags(2 * torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64), sizes)


def test_outputs_match_the_description() -> None:
    model, bags = small_model(), random_bags((9, 1, 4))
    output = model(bags)
    for bag, rows in enumerate(bags.split()):
        tiles = [model.embed(row[None])[0] for row in rows]
        exponentials = torch.stack([model.score(tile[None])[0].exp() for tile in tiles])
        shares = exponentials / exponentials.sum(0)
        mean = sum(share * tile for share, tile in zip(shares.mean(1), tiles, strict=True))
        torch.testing.assert_close(output.logits[bag], model.head(mean))
        for branch, head in enumerate(model.branch_heads):
            pooled = sum(share * tile for share, tile in zip(shares[:, branch], tiles, strict=True))
            torch.testing.assert_close(output.extra["branch_logits"][bag, branch], head(pooled))
        cosines = [torch.cosine_similarity(first, second, dim=0) for first, second in combinations(shares.T, 2)]
        torch.testing.assert_close(output.extra["similarity"][bag], torch.stack(cosines).mean())
        torch.testing.assert_close(bags.split(output.attention)[bag], shares.mean(1))


def test_outputs_and_losses_match_the_authors_code() -> None:
    arrays, weights = golden("acmil")
    model = ACMIL(7, 3, 3, masked=0, embed_dim=6, attention_dim=5, dropout=0).double().train()
    copy_linear(model.embed[0], weights, "dimreduction.fc1")
    copy_gated(
        model.score, weights, "attention.attention_V.0", "attention.attention_U.0", "attention.attention_weights"
    )
    copy_linear(model.head, weights, "Slide_classifier.fc")
    for branch, head in enumerate(model.branch_heads):
        copy_linear(head, weights, f"classifier.{branch}.fc")
    output = model(Bags(arrays["features"], (23,)))
    computed = {"logits": output.logits, "branch_logits": output.extra["branch_logits"][0]}
    for name, value in (computed | {"attention": output.extra["heads"].T}).items():
        torch.testing.assert_close(value, arrays[name], rtol=1e-10, atol=1e-10)
    loss = sum(arrays[f"loss.{part}"].item() for part in ("sub_loss", "diff_loss", "slide_loss"))
    assert model.loss(output, arrays["label"][None], Multiclass()).item() == pytest.approx(loss, rel=1e-10)


def test_cox_loss_is_computed_per_branch() -> None:
    model, bags, cox = small_model(out_dim=1), random_bags((9, 1, 4)), Cox()
    target = torch.tensor([[3.0, 1], [5, 0], [2, 1]], dtype=torch.float64)
    output = model(bags)
    branches = [cox.loss(output.extra["branch_logits"][:, branch], target) for branch in range(3)]
    expected = cox.loss(output.logits, target) + sum(branches) / 3 + output.extra["similarity"].mean()
    torch.testing.assert_close(model.loss(output, target, cox), expected)


def test_training_masks_a_share_of_the_top_tiles_per_branch() -> None:
    model, bags = small_model(masked=4, mask_share=0.5), random_bags((20, 3, 1))
    scores = model.score(model.embed(bags.features))
    torch.manual_seed(0)
    masked = model.train()(bags).extra["heads"] == 0
    for size, amount, rows, tile_scores in zip(
        (20, 3, 1), (2, 1, 0), bags.split(masked), bags.split(scores), strict=True
    ):
        assert rows.sum(0).tolist() == [amount] * 3
        for branch in range(3):
            best = tile_scores[:, branch].topk(min(4, size)).indices.tolist()
            assert set(rows[:, branch].nonzero().flatten().tolist()) <= set(best)
    assert not (model.eval()(bags).extra["heads"] == 0).any()


def test_masked_tiles_are_uniform_among_the_top_and_follow_the_seed() -> None:
    model, bags = small_model(masked=4, mask_share=0.5).train(), random_bags((20,))
    torch.manual_seed(0)
    draws = torch.stack([model(bags).extra["heads"][:, 0] == 0 for _ in range(150)])
    torch.manual_seed(0)
    assert torch.equal(model(bags).extra["heads"][:, 0] == 0, draws[0])
    frequency = draws.double().mean(0)
    assert (frequency > 0).sum() == 4
    assert ((frequency[frequency > 0] - 0.5).abs() < 4 * (0.25 / 150) ** 0.5).all()


@pytest.mark.parametrize("options", [{"branches": 1}, {"mask_share": 1.0}, {"masked": -1}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ACMIL(5, 2, **options)  # type: ignore[arg-type]  # wrong values on purpose

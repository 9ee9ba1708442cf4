"""CLAM against the authors' code, and its tile loss against a direct computation."""

import math

import pytest
import torch
import torchmil.models
from torch import Tensor

from mil.bags import Bags
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.survival import Cox
from mil.models.clam import CLAM, LOSSES, smooth_svm
from mil.models.mil_model import Output

from .reference import copy_gated, copy_linear, copy_parameters, golden
from .zoo import IN_DIM, simulated


class Labels:
    """An endpoint without a loss of its own that gives the classes of bags, to test the tile loss alone."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.sum() * 0

    def membership(self, target: Tensor) -> Tensor:
        return target


def small_model(
    out_dim: int, multi_branch: bool = False, subtyping: bool = False, loss: str = "svm", width: int = IN_DIM
) -> CLAM:
    torch.manual_seed(0)
    model = CLAM(width, out_dim, 8, 5, multi_branch, k=4, subtyping=subtyping, instance_loss=loss, bag_weight=0)
    return model.double().eval()


def stacked(weights: dict[str, Tensor], name: str, classes: int) -> dict[str, Tensor]:
    """Return the classifiers of all classes as one linear layer."""
    kinds = ("weight", "bias")
    return {kind: torch.cat([weights[f"{name}.{index}.{kind}"] for index in range(classes)]) for kind in kinds}


def tile_loss(model: CLAM, output: Output, membership: Tensor) -> Tensor:
    return model.loss(output, membership, Labels())


@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize("instance_loss", LOSSES)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("multi_branch", [False, True])
def test_outputs_and_tile_loss_match_the_authors_code(
    multi_branch: bool, classes: int, instance_loss: str, subtyping: bool
) -> None:
    arrays, weights = golden("clam")
    case = f"{'mb' if multi_branch else 'sb'}{classes}"
    weights = {name.removeprefix(f"{case}."): value for name, value in weights.items() if name.startswith(case)}
    model = small_model(classes, multi_branch, subtyping, instance_loss, width=6)
    copy_linear(model.embed[0], weights, "attention_net.0")
    copy_gated(model.score, weights, *(f"attention_net.3.attention_{part}" for part in ("a.0", "b.0", "c")))
    if multi_branch:
        copy_parameters(model.head, **stacked(weights, "classifiers", classes))
    else:
        copy_linear(model.head, weights, "classifiers")
    assert model.instance is not None
    copy_parameters(model.instance, **stacked(weights, "instance_classifiers", classes))
    output = model(Bags(arrays["features"], (23,)))
    # the authors' CLAM_MB rounds its logits to single precision
    torch.testing.assert_close(output.logits, arrays[f"{case}.logits"].double(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(output.extra["heads"], arrays[f"{case}.attention"], rtol=1e-10, atol=1e-12)
    for label in range(classes):
        loss = tile_loss(model, output, torch.nn.functional.one_hot(torch.tensor([label]), classes))
        expected = arrays[f"{case}.{instance_loss}.{'subtyping' if subtyping else 'plain'}.{label}"]
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)


def test_logits_and_attention_match_torchmil() -> None:
    """Torchmil's tile loss is no reference: it pairs each tile's label with the scores of other tiles."""
    torch.manual_seed(0)
    theirs = torchmil.models.CLAM_SB((8,), att_dim=5, gated=True).double().eval()
    model = CLAM(8, 1, embed_dim=8, attention_dim=5).double().eval()
    copy_parameters(model.embed[0], weight=torch.eye(8), bias=torch.zeros(8))
    copy_gated(model.score, theirs.pool.state_dict(), "fc1.module", "fc_gated.module", "fc2")
    copy_parameters(model.head, **dict(theirs.classifier.module.named_parameters()))
    bags = Bags(torch.rand(13, 8, dtype=torch.float64), (13,))
    logits, scores = theirs(bags.features[None], return_att=True)
    output = model(bags)
    torch.testing.assert_close(output.logits[:, 0], logits, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.attention, scores[0].softmax(0), rtol=1e-10, atol=1e-12)


def tile_loss_by_loops(model: CLAM, bags: Bags, membership: Tensor) -> float:
    """Return the tile loss, computed tile by tile."""
    assert model.instance is not None
    of_bags = []
    for features, member in zip(bags.split(), membership, strict=True):
        tiles = [model.embed(row[None])[0] for row in features]
        of_classes = []
        for place, belongs in enumerate(member.tolist()):
            branch = place if model.score.score.out_features > 1 else 0
            order = torch.stack([model.score(tile[None])[0, branch] for tile in tiles]).argsort(descending=True)
            ranked = [tiles[tile] for tile in order.tolist()]
            first = ranked[: min(model.k, math.ceil(len(ranked) / 2))]
            last = ranked[::-1][: min(model.k, len(ranked) // 2)]
            labels = {1.0: [(tile, 1) for tile in first] + [(tile, 0) for tile in last]}
            labels[0.0] = [(tile, 0) for tile in first] if model.subtyping else []
            losses = []
            for tile, label in labels.get(belongs, []):
                scores = (model.instance(tile)[2 * place : 2 * place + 2]).tolist()
                gap = scores[1 - label] - scores[label]
                losses.append(math.log1p(math.exp(gap + (1 if model.instance_loss == "svm" else 0))))
            of_classes += [sum(losses) / len(losses)] if losses else []
        of_bags.append(sum(of_classes) / len(of_classes) if of_classes else 0)
    return sum(of_bags) / len(of_bags)


@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize("multi_branch", [False, True])
@pytest.mark.parametrize(
    "membership",
    [
        [[1.0], [0.0], [1.0], [0.0]],
        [[1.0, 0.0, 1.0], [math.nan, 1.0, 0.0], [0.0, 0.0, 0.0], [math.nan, math.nan, math.nan]],
    ],
    ids=["one logit", "unknown labels"],
)
def test_tile_loss_is_the_mean_over_bags(membership: list[list[float]], multi_branch: bool, subtyping: bool) -> None:
    labels, bags = torch.tensor(membership), simulated((9, 1, 3, 20), dtype=torch.float64)
    for instance_loss in LOSSES:
        model = small_model(labels.shape[1], multi_branch, subtyping, instance_loss)
        loss = tile_loss(model, model(bags), labels)
        assert loss.item() == pytest.approx(tile_loss_by_loops(model, bags, labels), rel=1e-10)


def test_small_bags_use_no_tile_as_both_top_and_bottom() -> None:
    valid = small_model(1)(simulated((1, 2, 3, 7, 8, 30), dtype=torch.float64)).extra["valid"]
    assert valid.sum(1).tolist() == [1, 2, 3, 7, 8, 8]
    assert valid[:, :4].sum(1).tolist() == [1, 1, 2, 4, 4, 4]


def test_bag_weight_divides_the_loss_between_bag_and_tiles() -> None:
    torch.manual_seed(0)
    judge, target = Multiclass(classes=("a", "b", "c")), torch.tensor([0, 2])
    model = CLAM(IN_DIM, 3, 8, 5, subtyping=True).eval()
    output = model(simulated((9, 20)))
    total = model.loss(output, target, judge)
    model.bag_weight = 0
    tiles = tile_loss(model, output, judge.membership(target))
    torch.testing.assert_close(total, 0.7 * judge.loss(output.logits, target) + 0.3 * tiles)


def test_survival_is_refused_unless_there_is_no_tile_loss() -> None:
    torch.manual_seed(0)
    target, bags = torch.tensor([[3.0, 1], [5, 0]], dtype=torch.float64), simulated((9, 20))
    model = CLAM(IN_DIM, 1)
    with pytest.raises(ValueError, match="classes of their bag, this endpoint has none: give bag_weight=1"):
        model.loss(model(bags), target, Cox())
    alone = CLAM(IN_DIM, 1, bag_weight=1).eval()
    assert not [name for name, _ in alone.named_parameters() if name.startswith("instance")]
    output = alone(bags)
    assert torch.equal(alone.loss(output, target, Cox()), Cox().loss(output.logits, target))


def test_smooth_svm_bounds_the_hinge_loss_and_converges_to_it() -> None:
    gap = torch.linspace(-9, 9, 200, dtype=torch.float64)
    hard = torch.clamp(1 + gap, min=0)
    assert (smooth_svm(gap) > hard).all()
    assert (smooth_svm(gap) - hard)[gap.abs() > 6.9].max() < 0.003
    torch.testing.assert_close(smooth_svm(gap, tau=1e-3), hard, rtol=0, atol=1e-3)
    assert torch.autograd.gradcheck(smooth_svm, (gap[::20].requires_grad_(),))


def test_both_forms_are_equal_with_one_logit() -> None:
    single, several = small_model(1), small_model(1, multi_branch=True)
    several.load_state_dict(single.state_dict())
    bags = simulated((9, 1, 20), dtype=torch.float64)
    target = torch.tensor([1.0, 0, 1])
    assert torch.equal(single(bags).logits, several(bags).logits)
    assert torch.equal(single.loss(single(bags), target, Binary()), several.loss(several(bags), target, Binary()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instance_loss": "hinge"}, "instance_loss is 'hinge'"),
        ({"bag_weight": 1.2}, "bag_weight is 1.2"),
        ({"k": 0}, "k 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLAM(IN_DIM, 1, **options)  # type: ignore[arg-type]  # as from a yaml file

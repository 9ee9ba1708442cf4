"""DSMIL against a direct computation, the authors' code and torchmil."""

import pytest
import torch
import torchmil.models
from torch import Tensor, nn

from mil.bags import Bags
from mil.endpoints.classification import Multiclass
from mil.models.dsmil import DSMIL
from mil.models.mil_model import Criterion

from .reference import copy_linear, copy_parameters, golden
from .zoo import IN_DIM, simulated

VARIANTS = [(deep, value) for deep in (True, False) for value in (False, True)]


class LabelWise:
    """The authors' loss: the mean binary cross-entropy over the classes."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = nn.functional.binary_cross_entropy_with_logits(logits, target)
        return loss

    def membership(self, target: Tensor) -> Tensor:
        return target


def with_identity_embedding(width: int, out_dim: int, deep: bool, value: bool) -> DSMIL:
    """Return a model whose embedding leaves nonnegative features unchanged."""
    model = DSMIL(width, out_dim, embed_dim=width, query_dim=4, deep_query=deep, value=value).double().eval()
    copy_parameters(model.embed[0], weight=torch.eye(width), bias=torch.zeros(width))
    return model


@pytest.mark.parametrize(("deep", "value"), VARIANTS)
@pytest.mark.parametrize("out_dim", [1, 3])
def test_outputs_and_loss_match_the_authors_code(out_dim: int, deep: bool, value: bool) -> None:
    arrays, weights = golden("dsmil")
    case = f"{out_dim}{'deep' if deep else 'single'}{'value' if value else ''}"
    model = with_identity_embedding(8, out_dim, deep, value)
    copy_linear(model.instance, weights, f"{case}.i_classifier.fc")
    for layer, name in ((0, "q.0"), (2, "q.2")) if deep else ((0, "q"),):
        copy_linear(model.query[layer], weights, f"{case}.b_classifier.{name}")
    if model.value is not None:
        copy_linear(model.value[1], weights, f"{case}.b_classifier.v.1")
    fcc = {part: weights[f"{case}.b_classifier.fcc.{part}"] for part in ("weight", "bias")}
    copy_parameters(model.head, weight=fcc["weight"].flatten(1), bias=fcc["bias"])
    output = model(Bags(arrays["features"], (17,)))
    torch.testing.assert_close(output.extra["scores"], arrays[f"{case}.instances"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.extra["bag"], arrays[f"{case}.bag"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.extra["heads"], arrays[f"{case}.attention"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.embedding, arrays[f"{case}.embedding"].flatten(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        output.logits, (output.extra["bag"] + arrays[f"{case}.instances"].amax(0)) / 2, rtol=1e-10, atol=1e-12
    )
    judge: Criterion = LabelWise()
    assert model.loss(output, arrays[f"{case}.target"], judge).item() == pytest.approx(arrays[f"{case}.loss"].item())


@pytest.mark.parametrize(("deep", "value"), VARIANTS)
def test_logits_and_attention_match_torchmil(deep: bool, value: bool) -> None:
    torch.manual_seed(0)
    theirs = torchmil.models.DSMIL((8,), att_dim=4, nonlinear_q=deep, nonlinear_v=value).double().eval()
    model = with_identity_embedding(8, 1, deep, value)
    model.query.load_state_dict(
        theirs.q_nn.state_dict() if deep else {f"0.{k}": v for k, v in theirs.q_nn.state_dict().items()}
    )
    if model.value is not None:
        model.value.load_state_dict(theirs.v_nn.state_dict())
    model.instance.load_state_dict(theirs.inst_classifier.state_dict())
    model.head.load_state_dict(theirs.bag_classifier.state_dict())
    bags = Bags(torch.rand(13, 8, dtype=torch.float64), (13,))
    output = model(bags)
    _, attention = theirs(bags.features[None], return_att=True)
    torch.testing.assert_close(output.attention, attention[0, :, 0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output.logits[:, 0], theirs.predict(bags.features[None]), rtol=1e-10, atol=1e-12)


def test_logits_match_the_equations() -> None:
    """Linear queries and the mean of both streams; products are scaled as in the authors' code."""
    torch.manual_seed(0)
    model = DSMIL(IN_DIM, 2, embed_dim=6, query_dim=4, deep_query=False).double().eval()
    bags = simulated((5, 1, 8), dtype=torch.float64)
    output, weights = model(bags), model.state_dict()
    for bag, features in enumerate(bags.split()):
        tiles = [torch.clamp(weights["embed.0.weight"] @ row + weights["embed.0.bias"], min=0) for row in features]
        queries = [weights["query.0.weight"] @ tile + weights["query.0.bias"] for tile in tiles]
        pooled, best = [], []
        for weight, bias in zip(model.instance.weight, model.instance.bias, strict=True):
            scores = [(weight @ tile + bias) for tile in tiles]
            best.append(max(scores))
            critical = queries[scores.index(max(scores))]
            exponentials = torch.stack([torch.exp(query @ critical / 2) for query in queries])
            pooled.append(exponentials / exponentials.sum() @ torch.stack(tiles))
        of_bag = model.head.weight @ torch.cat(pooled) + model.head.bias
        torch.testing.assert_close(output.logits[bag], (torch.stack(best) + of_bag) / 2)


def test_loss_uses_both_streams_if_only_the_bag_stream_predicts() -> None:
    torch.manual_seed(0)
    model = DSMIL(IN_DIM, 4, embed_dim=6, average=False).eval()
    output, target = model(simulated((5, 3))), torch.tensor([0, 3])
    assert torch.equal(output.logits, output.extra["bag"])
    judge = Multiclass(classes=("a", "b", "c", "d"))
    expected = (judge.loss(output.extra["bag"], target) + judge.loss(output.extra["instance"], target)) / 2
    assert torch.equal(model.loss(output, target, judge), expected)


def test_critical_tile_has_the_highest_score_of_its_bag() -> None:
    torch.manual_seed(0)
    model, bags = DSMIL(IN_DIM, 3, embed_dim=6).double().eval(), simulated((5, 1, 8), dtype=torch.float64)
    output = model(bags)
    highest = torch.stack([rows.amax(0) for rows in bags.split(output.extra["scores"])])
    assert torch.equal(output.extra["instance"], highest)

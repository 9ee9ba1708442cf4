"""An ensemble with one model for the features of each encoder."""

import pytest
import torch

from mil.bags import Bags
from mil.endpoints import Binary
from mil.models.abmil import ABMIL
from mil.models.clam import CLAM
from mil.models.encoder_ensemble import EncoderEnsemble
from mil.models.linear import Linear
from mil.models.mil_model import MILModel

WIDTHS = (6, 4)
TARGET = torch.tensor([0.0, 1.0])


def ensemble(model: type[MILModel] = ABMIL, **options: object) -> EncoderEnsemble:
    torch.manual_seed(0)
    return EncoderEnsemble([model(width, 1, **options) for width in WIDTHS], WIDTHS)


def bags() -> Bags:
    torch.manual_seed(1)
    return Bags(torch.randn(9, 10), (4, 5), torch.randint(0, 9, (9, 2)))


def test_logits_are_the_mean_of_members_that_read_one_encoder_each() -> None:
    model, batch = ensemble().eval(), bags()
    output = model(batch)
    each = [
        member(batch.with_features(block))
        for member, block in zip(model.models, model.blocks(batch.features), strict=True)
    ]
    assert torch.equal(output.logits, (each[0].logits + each[1].logits) / 2)
    assert output.attention is not None
    assert torch.allclose(batch.sum(output.attention.unsqueeze(1)), torch.ones(2, 1))
    model.alone = 1
    assert torch.equal(model(batch).logits, each[1].logits)


@pytest.mark.parametrize(("model", "options"), [(ABMIL, {}), (CLAM, {"k": 2})])
def test_members_are_trained_as_if_each_were_alone(model: type[MILModel], options: dict[str, object]) -> None:
    together, batch = ensemble(model, **options).eval(), bags()
    endpoint = Binary("MSI", ["MSS", "MSI-H"])
    endpoint.fit(TARGET)
    torch.autograd.backward(together.loss(together(batch), TARGET, endpoint))
    for at, block in enumerate(together.blocks(batch.features)):
        single = ensemble(model, **options).eval().models[at]
        torch.autograd.backward(single.loss(single(batch.with_features(block)), TARGET, endpoint))
        for weight, alone in zip(together.models[at].parameters(), single.parameters(), strict=True):
            assert (weight.grad is None) == (alone.grad is None)
            if weight.grad is not None and alone.grad is not None:
                assert torch.allclose(2 * weight.grad, alone.grad, atol=1e-6)


def test_members_that_are_solved_for_or_lack_an_encoder_are_refused() -> None:
    with pytest.raises(ValueError, match="Linear is solved for"):
        ensemble(Linear)
    with pytest.raises(ValueError, match="1 members for 2 encoders"):
        EncoderEnsemble([ABMIL(4, 1)], WIDTHS)

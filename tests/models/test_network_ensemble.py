"""Ensembles of networks: one for the features of each encoder, or several that differ by their random start."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mil import checkpoint, tile_rows
from mil.bags import Bags
from mil.checkpoint import TENSOR_LIMIT
from mil.endpoints import Binary
from mil.errors import ConfigError
from mil.models.abmil import ABMIL
from mil.models.clam import CLAM
from mil.models.linear import Linear
from mil.models.mil_model import MILModel
from mil.models.network_ensemble import NetworkEnsemble, members_of
from mil.study import build
from mil.study.run_config import MOST_MEMBERS
from mil.tile_rows import TileRows
from tests.checkpoints import refusal, rewrite, saved
from tests.models.zoo import NAMES, build_model, composed, simulated

WIDTHS = (6, 4)
TARGET = torch.tensor([0.0, 1.0])
NARROW = {"embed_dim": 24, "attention_dim": 8, "hidden_dim": 16}


def ensemble(model: type[MILModel] = ABMIL, each: int = 1, **options: Any) -> NetworkEnsemble:
    torch.manual_seed(0)
    return NetworkEnsemble([model(width, 1, **options) for width in WIDTHS for _ in range(each)], WIDTHS)


def bags() -> Bags:
    torch.manual_seed(1)
    return Bags(torch.randn(9, 10), (4, 5), torch.randint(0, 9, (9, 2)))


@pytest.mark.parametrize("each", [1, 2])
def test_logits_are_the_mean_of_members_that_read_one_encoder_each(each: int) -> None:
    model, batch = ensemble(each=each).eval(), bags()
    output = model(batch)
    blocks = [block for block in batch.features.split(WIDTHS, 1) for _ in range(each)]  # type: ignore[no-untyped-call]
    outputs = [member(batch.with_features(block)) for member, block in zip(model.models, blocks, strict=True)]
    torch.testing.assert_close(output.logits, torch.stack([member.logits for member in outputs]).mean(0))
    assert output.attention is not None
    assert torch.allclose(batch.sum(output.attention.unsqueeze(1)), torch.ones(2, 1))
    model.alone = 1
    alone = model(batch)
    torch.testing.assert_close(alone.logits, torch.stack([member.logits for member in outputs[each:]]).mean(0))
    assert alone.embedding.shape == output.embedding.shape, "a gate of covariates reads it"


@pytest.mark.parametrize(("model", "options"), [(ABMIL, {}), (CLAM, {"k": 2})])
def test_members_are_trained_as_if_each_were_alone(model: type[MILModel], options: dict[str, Any]) -> None:
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
        NetworkEnsemble([ABMIL(4, 1)], WIDTHS)
    with pytest.raises(ValueError, match="3 members for 2 encoders, expected as many for each"):
        NetworkEnsemble([ABMIL(4, 1)] * 3, WIDTHS)
    with pytest.raises(ValueError, match="1 members, expected two or more"):
        NetworkEnsemble([ABMIL(4, 1)])


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_an_ensemble_of_its_members_also_from_a_file(name: str, tmp_path: Path) -> None:
    endpoint = Binary("MSI", ["MSS", "MSI-H"])
    config = composed(name)
    taken = build.parameters(config.model.target, "model")
    sizes = {f"model.{size}": width for size, width in NARROW.items() if size in taken}
    config = config.replaced({"model.members": 2, **sizes})
    if build_model(name).solved:
        with pytest.raises(ConfigError, match=r"model.members=2: \w+ is solved for, expected a model that is trained"):
            build.network(config, 8, endpoint)
        return
    model, batch = build.network(config, 8, endpoint).eval(), simulated((5, 9), width=8)
    first, second = members_of(model)
    with torch.inference_mode():
        logits = model(batch).logits
        assert not torch.equal(first(batch).logits, second(batch).logits)
        torch.testing.assert_close(logits, (first(batch).logits + second(batch).logits) / 2)
    assert len(model.state_dict()) / 2 * MOST_MEMBERS <= TENSOR_LIMIT, "the largest ensemble can be loaded"
    folder = saved(tmp_path / "a", model, config.model.options.arguments())
    loaded = checkpoint.load(folder)
    assert loaded.manifest.members == 2
    with torch.inference_mode():
        assert torch.equal(loaded.model(batch).logits, logits)


def test_a_single_network_says_nothing_of_members_and_a_forged_number_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", ABMIL(8, 1))
    assert '"members"' not in (folder / checkpoint.MANIFEST).read_text()
    rewrite(folder, lambda node: node.update(members=10**9))
    assert "members: Input should be less than or equal to 20" in refusal(folder)
    rewrite(folder, lambda node: node.update(members=2))
    assert "tensors differ from the model's" in refusal(folder)


def test_an_option_out_of_range_is_refused_by_its_name() -> None:
    for members in (0, 21, 1.5):
        with pytest.raises(ConfigError, match=rf"model.members={members}, expected "):
            composed("abmil").replaced({"model.members": members})
    both = composed("abmil").replaced({"model.members": 2, "model.encoders": "ensemble"})
    model = build.network(both, 10, Binary("MSI"), WIDTHS)
    assert isinstance(model, NetworkEnsemble)
    assert [member.get_parameter("embed.0.weight").shape[1] for member in model.models] == [6, 6, 4, 4]


@pytest.mark.parametrize("name", ["abmil", "abmil_multihead", "clam_mb", "mean"])
def test_tile_terms_of_all_members_sum_to_the_logits(name: str) -> None:
    model, batch = NetworkEnsemble([build_model(name, 3, seed) for seed in (0, 1, 2)]).eval(), simulated((5, 9))
    terms = model.tile_terms(batch)
    assert terms is not None
    tiles = torch.einsum("nh,nhc->nc", terms.weight, terms.logits)
    torch.testing.assert_close(batch.sum(tiles), model(batch).logits)
    assert NetworkEnsemble([build_model("chowder"), build_model("chowder", seed=1)]).tile_terms(batch) is None


@pytest.mark.parametrize("by_encoder", [False, True])
def test_an_ensemble_reads_in_blocks_and_in_pieces_where_its_members_do(by_encoder: bool) -> None:
    half = bags().features.half()
    batch = Bags(half, (9,), torch.zeros(9, 2))
    model = ensemble(each=2).eval() if by_encoder else NetworkEnsemble([ABMIL(10, 1), ABMIL(10, 1)]).eval()
    assert model.reads_in_blocks()
    assert model.reads_in_pieces()
    pieces = TileRows(lambda start, stop: half[start:stop].float(), half.float(), 9)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        expected = model(batch.cast(torch.float32))
        assert torch.equal(model(batch.cast_in_blocks(torch.float32)).logits, expected.logits)
        patch.setattr(tile_rows, "READ_ROWS", 4)
        output = model(replace(batch, features=pieces))
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.attention, expected.attention)
    quadratic = NetworkEnsemble([build_model("rrt"), build_model("rrt", seed=1)])
    assert not quadratic.reads_in_pieces()
    assert quadratic.pair_bytes(100) == quadratic.models[0].pair_bytes(100) > 0

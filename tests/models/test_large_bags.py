"""Bags that are read in pieces give the output of whole bags, and need little memory; the other models are refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from mil import tile_rows
from mil.bags import Bags
from mil.errors import ResourceError
from mil.inference import room
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel, Output
from mil.study import build
from mil.tile_rows import TileRows

from .zoo import NAMES, build_model, composed, simulated

TILES, PIECE, HELD = 300, 16, 32
"""Tiles of the bag, rows that are read at a time, and numbers a tile that may be held."""
LAYERS = {"patchgcn": 128, "mambamil": 128}
"""Numbers a tile that models hold of a layer: neighbours, and tokens of the next segment, lie anywhere."""
WHOLE = {"abmilx", "transformer", "transformer_alibi", "wikg", "rrt"}
"""Models that need whole bags: their cost is quadratic."""
WIDTH = 48
"""Of the features: more numbers than may be held."""
every_model = pytest.mark.parametrize("name", NAMES)


class Watched:
    """A bag that is read in pieces, and how much of it was held or read at a time."""

    def __init__(self, bags: Bags) -> None:
        self.longest, self.widest = 0, 0
        self.bags = replace(bags, features=TileRows(self._read, bags.features, len(bags.features)))
        self._features, self._collect = bags.features, tile_rows._collected_of

    def _read(self, start: int, stop: int) -> Tensor:
        self.longest = max(self.longest, stop - start)
        return self._features[start:stop]

    def _collected(self, reader: Callable[..., tuple[Tensor, ...]], rows: int, *more: Any) -> list[Tensor]:
        out = self._collect(reader, rows, *more)
        self.widest = max([self.widest, *(values[:1].numel() for values in out)])
        return out

    def output(self, model: MILModel) -> Output:
        """Return the model's output, computed in small pieces."""
        small = mock.patch.multiple(
            tile_rows, READ_ROWS=PIECE, HELD_BYTES=TILES * HELD * 4, _collected_of=self._collected
        )
        with torch.inference_mode(), small:
            output: Output = model(self.bags)
        return output


def assert_equal(output: Output, expected: Output) -> None:
    """Assert that two outputs are equal within 1e-5."""
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.embedding, expected.embedding, rtol=1e-5, atol=1e-5)
    if expected.attention is not None:
        torch.testing.assert_close(output.attention, expected.attention, rtol=1e-5, atol=1e-5)


@every_model
def test_output_of_a_bag_in_pieces_is_that_of_the_whole_bag(name: str) -> None:
    model, bags = build_model(name, 4), simulated([TILES], slides=2)
    watched = Watched(bags)
    with torch.inference_mode():
        expected = model(bags)
    assert_equal(watched.output(model), expected)
    assert watched.longest <= PIECE


@every_model
def test_models_of_linear_cost_hold_little_of_a_bag_in_pieces(name: str) -> None:
    torch.manual_seed(0)
    model = build.model(composed(name), WIDTH, 4).eval()
    if not model.reads_in_pieces():
        assert name in WHOLE, "every other model reads so"
        return
    bags = simulated([TILES], width=WIDTH)
    watched = Watched(bags)
    with torch.inference_mode():
        expected = model(bags)
    assert_equal(watched.output(model), expected)
    assert watched.widest <= LAYERS.get(name, HELD)


def test_a_model_with_covariates_reads_as_the_model_within() -> None:
    for name in ("abmil", "transformer"):
        inner = build_model(name)
        model = Fused(inner, 2, 1).eval()
        assert model.reads_in_pieces() == inner.reads_in_pieces()
    bags = replace(simulated([TILES]), covariates=torch.ones(1, 2))
    fused = Fused(build_model("abmil"), 2, 1).eval()
    with torch.inference_mode():
        expected = fused(bags)
    assert_equal(Watched(bags).output(fused), expected)


def test_a_class_derived_from_a_model_says_itself_that_it_reads_in_pieces() -> None:
    class Derived(type(build_model("abmil"))):  # type: ignore[misc]
        pass

    assert not Derived(4, 1).reads_in_pieces()


@pytest.mark.parametrize("name", ["transformer", "wikg", "rrt"])
def test_a_bag_without_room_is_refused_with_what_it_needs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(name)
    monkeypatch.setattr(room, "TRIED", (64, 256))
    monkeypatch.setattr(room, "free_bytes", lambda: 2.0**33)
    with pytest.raises(ResourceError, match=r"slides S: \w+ would need about .* GiB of memory, 8 GiB are free, and "):
        room.check_room(model, 10**7, 12, 0, "slides S")
    room.check_room(model, 300, 12, 0, "slides S")


def test_memory_of_a_bag_is_continued_from_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pairs(MILModel):
        paper, cost = "None 2026", "n^2"

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, bags: Bags) -> Output:
            rows = bags.features.repeat(1, 10)  # held to the end
            scores = bags.features[:, :1] @ bags.features[:, :1].T
            return Output(rows[:1, :1] + scores.sum(), rows[:1])

        def pair_bytes(self, tiles: int) -> float:
            return 4.0 * tiles**2

    monkeypatch.setattr(room, "TRIED", (64, 256))
    expected = 4.0 * 10_000**2 + 4 * 12 * 11 * 10_000
    assert room.needed(Pairs().eval(), 10_000, 12).bytes == pytest.approx(expected, rel=0.05)


def test_memory_that_is_free_is_known_here() -> None:
    assert 2**20 < room.free_bytes() < 2**50

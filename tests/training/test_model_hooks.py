"""What training tells models besides batches: tiles to fit, the epoch, and that a step was taken."""

import pytest
import torch

from mil.errors import TrainingError
from mil.features.batches import Draw, WholeOrder, loader
from mil.models.abmil import ABMIL
from mil.models.fusion import Fused
from mil.models.panther import Panther
from mil.training.fitted_tiles import fit_tiles
from mil.training.module import MILModule
from mil.training.schedule import Constant
from tests.training.test_whole import CASES, OPTIMIZER, WIDTH, dataset, silent_trainer


class Listener(ABMIL):
    """A model that notes what it is told."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 1, embed_dim=4, attention_dim=3)
        self.notes: list[str] = []

    def begin_epoch(self, epoch: int) -> None:
        self.notes.append(f"epoch {epoch}")

    def after_step(self) -> None:
        self.notes.append("step")


def test_models_hear_of_epochs_and_of_steps_not_of_batches() -> None:
    endpoint, target = CASES["binary"]
    data, model = dataset(target), Listener()
    fused = Fused(model, 2, 1)
    module = MILModule(fused, endpoint, OPTIMIZER, Constant(), 5)
    order = WholeOrder(data.sizes, 6)
    assert len(order) == 4
    trainer = silent_trainer(max_epochs=2, accumulate_grad_batches=2)
    trainer.fit(module, loader(data, order), loader(data))
    assert model.notes == ["epoch 0", "step", "step", "epoch 1", "step", "step"]


def test_tiles_are_drawn_evenly_from_the_bags_that_are_given() -> None:
    data = dataset(CASES["binary"][1])
    given: list[torch.Tensor] = []

    class Taker(Panther):
        tiles_to_fit = 60

        def fit_tiles(self, tiles: torch.Tensor) -> None:
            given.append(tiles)

    fit_tiles(Fused(Taker(WIDTH, 1), 2, 1), data, seed=0)
    every = [data[[Draw(bag)]].bags.features for bag in range(len(data))]
    expected = sum(min(3, len(tiles)) for tiles in every)
    assert given[0].shape == (expected, WIDTH)
    assert (torch.cdist(given[0], torch.cat(every)).amin(1) < 0.01).all()


def test_prototypes_of_a_seed_are_the_same_and_too_few_tiles_are_refused() -> None:
    data = dataset(CASES["binary"][1])
    models = [Panther(WIDTH, 1, 3) for _ in range(2)]
    for model in models:
        fit_tiles(model, data, seed=1)
    assert torch.equal(models[0].prototypes, models[1].prototypes)
    with pytest.raises(TrainingError, match="training bags: 89 tiles, expected at least one for each of 500"):
        fit_tiles(Panther(WIDTH, 1, 500), data, seed=1)

"""Which epoch's weights are kept, and when training stops early."""

import logging
import sys
from types import SimpleNamespace
from typing import cast

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from mil import progress
from mil.study import build
from mil.study.compose import compose
from mil.training import callbacks
from mil.training.callbacks import Progress
from mil.training.epoch_choice import Best
from tests.training.test_whole import silent_trainer


class Scripted(lightning.LightningModule):
    """A module that learns nothing and logs a given select loss for each epoch."""

    def __init__(self, select_losses: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.select_losses = select_losses

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("select_loss", self.select_losses[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def epochs_trained(select_losses: list[float], *callbacks: lightning.Callback) -> int:
    trainer = silent_trainer(*callbacks, max_epochs=len(select_losses))
    batches: DataLoader[Tensor] = DataLoader(cast("torch.utils.data.Dataset[Tensor]", [torch.zeros(1)]))
    trainer.fit(Scripted(select_losses), batches, batches)
    return trainer.current_epoch


@pytest.mark.parametrize("losses", [[3, 1, 2], [1, 2, 3], [3, 2, 1], [2, 1, 1]])
def test_weights_of_the_first_lowest_select_loss_are_kept(losses: list[float]) -> None:
    best, network = Best(), torch.nn.Linear(1, 1)
    for epoch, loss in enumerate(losses):
        torch.nn.init.constant_(network.weight, epoch)
        trainer = SimpleNamespace(callback_metrics={"select_loss": torch.tensor(loss)}, current_epoch=epoch)
        best.on_validation_end(cast(lightning.Trainer, trainer), cast(lightning.LightningModule, network))
    lowest = losses.index(min(losses))
    assert (best.epochs, best.lowest[0].loss) == ([lowest + 1], min(losses))
    assert best.weights["weight"].item() == lowest


def test_epoch_with_nan_select_loss_is_never_one_of_the_best() -> None:
    nan, best = float("nan"), Best(5)
    epochs_trained([nan, 2.0, nan, 1.0, nan, nan, nan, nan, nan, nan], best)
    assert best.epochs == [4, 2]


def test_weights_of_several_best_epochs_are_averaged_of_a_short_training_fewer() -> None:
    losses = [9.0, 3.0, 1.0, 4.0, 5.0, 2.0, 8.0, 3.0]
    for count, epochs in ((1, [3]), (3, [3, 6, 2]), (20, [3, 6, 2, 8])):
        best, network = Best(count), torch.nn.BatchNorm1d(1)
        for number, loss in enumerate(losses, 1):
            torch.nn.init.constant_(network.weight, number)
            network.load_state_dict(network.state_dict() | {"num_batches_tracked": torch.tensor(number)})
            trainer = SimpleNamespace(callback_metrics={"select_loss": torch.tensor(loss)}, current_epoch=number - 1)
            best.on_validation_end(cast(lightning.Trainer, trainer), cast(lightning.LightningModule, network))
        resumed = Best(count)
        resumed.load_state_dict(best.state_dict())
        for judge in (best, resumed):
            assert judge.epochs == epochs
            assert judge.weights["weight"].item() == pytest.approx(sum(epochs) / len(epochs))
            assert judge.weights["num_batches_tracked"].item() == 3, "a count is that of the lowest loss"


def test_a_state_of_an_earlier_version_is_one_epoch() -> None:
    best = Best(5)
    best.load_state_dict({"loss": 0.5, "epoch": 3, "weights": {"weight": torch.ones(1)}})
    assert best.epochs == [4]
    assert best.weights["weight"].item() == 1


def test_training_stops_early_only_if_the_select_loss_rises() -> None:
    def early_stopping() -> EarlyStopping:
        callback: EarlyStopping = build.make(compose([]).callbacks["early_stopping"])
        return callback

    patience = early_stopping().patience
    falling = [1 - epoch / 100 for epoch in range(patience + 6)]
    assert epochs_trained(falling, early_stopping()) == len(falling)
    assert epochs_trained(falling[::-1], early_stopping()) == 1 + patience


def test_batches_of_all_epochs_are_counted_and_the_end_is_reported() -> None:
    steps: list[tuple[str, int, int]] = []
    with progress.listening(lambda *step: steps.append(step)):
        epochs_trained([1.0, 2.0], Progress())
        assert steps == [("training", 1, 2), ("training", 2, 2), ("training", 1, 1)]
        steps.clear()
        epochs_trained([1.0], Progress(shown=False))
    assert steps == []


def test_epochs_have_a_line_each_and_a_pipe_gets_nothing_else(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The handlers that other tests have left at the loggers above would write each line again.
    monkeypatch.setattr(callbacks.logger, "handlers", [logging.StreamHandler(sys.stderr)])
    monkeypatch.setattr(callbacks.logger, "propagate", False)
    caplog.set_level(logging.INFO, callbacks.logger.name)
    caplog.set_level(logging.WARNING, "lightning.pytorch")  # as `mil` sets it
    epochs_trained([1.0, 2.0], Progress())
    first, second, last = capsys.readouterr().err.split("\n")
    assert first.startswith("epoch 1 of 2  select_loss 1.0000")
    assert second.startswith("epoch 2 of 2  select_loss 2.0000")
    assert last == ""

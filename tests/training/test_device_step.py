"""Training on a device: no step waits for it, features are copied once, batches come from page-locked memory.

There is no GPU in the tests. A meta tensor has no values, so whatever asks a device for a value (`.item()`, `bool`,
`.cpu()`, sizes that depend on values) fails on it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from mil.endpoints.classification import Binary
from mil.errors import TrainingError
from mil.features.batches import BagDataset, Batch, Draw, loader
from mil.training import train_network
from mil.training.module import MILModule, on_device
from mil.training.schedule import Constant
from tests.models.zoo import NAMES, build_model, simulated
from tests.training.test_whole import OPTIMIZER, dataset

META = torch.device("meta")
ASKING = {"abmil_smooth", "patchgcn", "regions", "transformer_alibi", "mhim", "otsurv"}
"""Models that wait: places of tiles become graphs or regions on the host, MHIM chooses tiles there by their attention,
and OTSurv looks whether its iteration has converged."""


def autocast(kind: str, *args: Any, **named: Any) -> AbstractContextManager[object]:
    """Return a context for meta tensors, for which torch has no autocast."""
    return nullcontext() if kind == "meta" else torch.amp.autocast_mode.autocast(kind, *args, **named)


@pytest.fixture(autouse=True)
def _without_autocast_of_meta() -> Iterator[None]:
    with mock.patch.object(torch, "autocast", autocast):
        yield


def module_of(name: str) -> MILModule:
    """Return a module in training, which logs nothing."""
    module = MILModule(build_model(name).train(), Binary("y", ("no", "yes")), OPTIMIZER, Constant(), 0)
    module._trainer = SimpleNamespace(precision="32-true", is_last_batch=False, current_epoch=0, global_step=0)  # type: ignore[assignment]
    module.log = mock.Mock()  # type: ignore[method-assign]
    return module


def batch_of(device: torch.device) -> Batch:
    batch = Batch(simulated([30, 20]), torch.tensor([0.0, 1.0]), torch.tensor([4, 7]))
    return on_device(batch, device)


@pytest.mark.parametrize("name", NAMES)
def test_no_step_asks_the_device_for_a_value(name: str) -> None:
    module, batch = module_of(name).to(META), batch_of(META)
    if name in ASKING:
        with pytest.raises((NotImplementedError, RuntimeError)):
            module.training_step(batch, 0)
        return
    loss = module.training_step(batch, 0)
    torch.autograd.backward(loss)
    assert loss.device == META
    assert any(weight.grad is not None for weight in module.parameters())


def test_a_loss_on_a_device_is_looked_at_one_step_later_and_names_the_bags_of_its_step() -> None:
    module = module_of("abmil")
    module.bag_names = [f"P{number}" for number in range(9)]
    module._check_finite(torch.empty((), device=META), torch.tensor([4, 7]))  # unknown until it is looked at
    assert module._earlier is not None
    module._earlier.loss = torch.tensor(torch.nan)
    with pytest.raises(TrainingError, match=r"not finite \(nan\) in epoch 1, step 1, for the bags 'P4', 'P7'"):
        module._check_finite(torch.zeros(()), torch.tensor([0, 1]))
    module._check_finite(torch.zeros(()), torch.tensor([0, 1]))


def test_the_loss_of_the_last_step_is_looked_at_in_its_epoch() -> None:
    module = module_of("abmil")
    module._check_finite(torch.empty((), device=META), torch.tensor([4, 7]))
    assert module._earlier is not None
    module._earlier.loss = torch.tensor(torch.inf)
    module.trainer.__dict__["is_last_batch"] = True
    with pytest.raises(TrainingError, match="not finite"):
        module.on_train_batch_end(None, batch_of(torch.device("cpu")), 0)


def test_copies_to_a_gpu_are_not_waited_for() -> None:
    batch, cuda, calls = batch_of(torch.device("cpu")), torch.device("cuda"), []

    def to(self: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        calls.append((device, non_blocking))
        return self

    with mock.patch.object(Tensor, "to", to):
        on_device(batch, cuda)
    assert calls == [(cuda, True)] * 4  # features, coordinates, targets, places


def test_batches_are_page_locked_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pinned: list[Tensor] = []

    def pin(self: Tensor) -> Tensor:
        pinned.append(self)
        return self

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    data = dataset(torch.zeros(3))
    assert loader(data).pin_memory
    bags = data[[Draw(0)]].bags
    bags.pin_memory()
    assert any(each is bags.features for each in pinned)
    pinned.clear()
    bags.to("meta").pin_memory()
    assert not pinned, "what is on a device cannot be page-locked"


def test_features_in_memory_are_copied_to_the_device_once() -> None:
    data = dataset(torch.zeros(3))
    near = data.kept_on(META)
    first, second = (near[[Draw(0), Draw(1)]].bags for _ in range(2))
    assert first.features.device == second.features.device == META
    assert len(near._placed) == 2
    assert first.sizes == data[[Draw(0), Draw(1)]].bags.sizes
    assert data[[Draw(0)]].bags.features.device.type == "cpu", "predictions read the host's"


@pytest.mark.parametrize(
    ("kind", "keeps", "free", "near"),
    [
        ("cuda", True, 10**9, True),
        ("cuda", True, 100, False),
        ("cuda", False, 10**9, False),
        ("cpu", True, 10**9, False),
    ],
)
def test_features_go_to_the_gpu_where_they_fit(
    kind: str, keeps: bool, free: int, near: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    data = dataset(torch.zeros(3))
    monkeypatch.setattr(BagDataset, "stored_bytes", lambda data: 1000)
    monkeypatch.setattr(type(data.store), "keeps", keeps)
    assert (train_network._near(data, torch.device(kind)) is not data) == near

"""Whole-cohort training: its gradient is that of one batch of all bags, though few of them are in memory at once."""

from collections.abc import Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as lightning
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from mil.bags import Bags
from mil.endpoints.classification import Binary
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox
from mil.features.batches import BagDataset, WholeOrder, loader
from mil.features.store import FeatureStore
from mil.models.abmil import ABMIL
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel, Output
from mil.training.module import MILModule
from mil.training.schedule import Constant
from mil.training.whole import WholeModule

PATIENTS, WIDTH = 23, 6
LEARNING_RATE = 0.1
OPTIMIZER = cast("partial[Optimizer]", partial(torch.optim.SGD, lr=LEARNING_RATE))


class InMemoryStore:
    """A store of slides `0` to `22` that generates each slide when it is read."""

    keeps = True

    def header(self, slide: str) -> SimpleNamespace:
        return SimpleNamespace(tiles=2 + int(slide) % 5)

    def valid_headers(self, slides: Iterable[str]) -> dict[str, SimpleNamespace]:
        return {slide: self.header(slide) for slide in slides}

    def read(self, slide: str) -> SimpleNamespace:
        generator = torch.Generator().manual_seed(int(slide))
        return SimpleNamespace(features=torch.randn(2 + int(slide) % 5, WIDTH, generator=generator), coords=None)


class GradientRecorder(lightning.Callback):
    """Records the gradients of each step."""

    def __init__(self) -> None:
        self.steps: list[list[Tensor]] = []

    def on_before_optimizer_step(self, trainer: object, pl_module: lightning.LightningModule, *_: object) -> None:
        self.steps.append([weight.grad.clone() for weight in pl_module.parameters() if weight.grad is not None])


def survival() -> Tensor:
    time = torch.randperm(PATIENTS, generator=torch.Generator().manual_seed(0)) // 2 + 1.0
    return torch.stack([time, (torch.arange(PATIENTS) % 3 == 0).float()], 1).double()


def several() -> tuple[Endpoint, Tensor]:
    target = torch.cat([(torch.arange(PATIENTS) % 2).double().unsqueeze(1), survival()], 1)
    target[3, 0] = target[4, 1:] = torch.nan
    return Several({"class": Binary(), "outcome": Cox()}), target


CASES = {"cox": (Cox(), survival()), "binary": (Binary(), torch.arange(PATIENTS).float() % 2), "several": several()}


def dataset(target: Tensor, max_tiles: int | None = None) -> BagDataset:
    slides = [(str(number),) for number in range(PATIENTS)]
    covariates = torch.randn(PATIENTS, 2, generator=torch.Generator().manual_seed(1))
    return BagDataset(cast(FeatureStore, InMemoryStore()), slides, target, max_tiles, covariates=covariates)


def network(out_dim: int, covariates: bool) -> MILModel:
    torch.manual_seed(0)
    model = ABMIL(WIDTH, out_dim, embed_dim=8, attention_dim=4, dropout=0.5)
    return Fused(model, 2, out_dim, "gated", 8) if covariates else model


def silent_trainer(*callbacks: lightning.Callback, **options: Any) -> lightning.Trainer:
    """Return a trainer that writes and prints nothing."""
    return lightning.Trainer(
        **options,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train_whole_cohort(
    name: str, bags: int, epochs: int = 1, passes: int = 1, precision: str = "32-true", covariates: bool = False
) -> tuple[WholeModule, list[list[Tensor]]]:
    """Return the trained module and the gradients of each step."""
    endpoint, target = CASES[name]
    data = dataset(target, max_tiles=3)
    sizes = [min(size, 3) for size in data.sizes]
    survey, every = (loader(data, WholeOrder(sizes, bags, passes=often)) for often in (1, passes))
    module = WholeModule(network(endpoint.out_dim, covariates), endpoint, OPTIMIZER, Constant(), 5, survey)
    watch = GradientRecorder()
    trainer = silent_trainer(watch, max_epochs=epochs, accumulate_grad_batches=len(survey), precision=precision)
    trainer.fit(module, every, loader(data))
    assert trainer.global_step == len(watch.steps)
    return module, watch.steps


def reference_gradient(
    name: str,
    bags: int,
    covariates: bool = False,
    precision: str = "32-true",
    earlier_steps: Sequence[list[Tensor]] = (),
) -> list[Tensor]:
    """Return the gradient with all bags in memory, dropout as in each batch, after these earlier steps."""
    endpoint, target = CASES[name]
    model = network(endpoint.out_dim, covariates).train()
    for gradients in earlier_steps:
        for weight, gradient in zip(model.parameters(), gradients, strict=True):
            weight.data -= LEARNING_RATE * gradient
    data = dataset(target, max_tiles=3)
    logits = []
    for place, draws in enumerate(WholeOrder([min(size, 3) for size in data.sizes], bags)):
        torch.manual_seed(hash((5, len(earlier_steps), place)) % 2**63)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"):
            logits.append(model(data[draws].bags).logits.float())
    torch.autograd.backward(endpoint.loss(torch.cat(logits), target))
    return [weight.grad for weight in model.parameters() if weight.grad is not None]


def relative_difference(actual: list[Tensor], expected: list[Tensor]) -> float:
    actual_vector, expected_vector = (
        torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (actual, expected)
    )
    return float((actual_vector - expected_vector).norm() / expected_vector.norm())


@pytest.mark.parametrize("covariates", [False, True])
@pytest.mark.parametrize("bags", [1, 4, PATIENTS])
@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_one_batch_with_dropout(name: str, bags: int, covariates: bool) -> None:
    _, (gradient,) = train_whole_cohort(name, bags, covariates=covariates)
    assert relative_difference(gradient, reference_gradient(name, bags, covariates)) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_the_second_pass_is_exact_with_dropout(name: str) -> None:
    _, (first, second) = train_whole_cohort(name, 4, passes=2)
    assert relative_difference(second, reference_gradient(name, 4, earlier_steps=[first])) < 1e-6


def test_gradient_differs_from_the_mean_over_batches() -> None:
    _, (gradient,) = train_whole_cohort("cox", 4)
    endpoint, target = CASES["cox"]
    model, data = network(1, covariates=False).train(), dataset(target, max_tiles=3)
    for place, draws in enumerate(WholeOrder([min(size, 3) for size in data.sizes], 4)):
        torch.manual_seed(hash((5, 0, place)) % 2**63)
        batch = data[draws]
        torch.autograd.backward(endpoint.loss(model(batch.bags).logits, batch.target) / 6)
    assert (
        relative_difference([weight.grad for weight in model.parameters() if weight.grad is not None], gradient) > 0.1
    )


def test_gradient_is_accurate_in_half_precision() -> None:
    _, (gradient,) = train_whole_cohort("cox", 4, precision="bf16-mixed")
    assert relative_difference(gradient, reference_gradient("cox", 4, precision="bf16-mixed")) < 2**-7


def test_one_step_per_pass_with_different_dropout() -> None:
    module, steps = train_whole_cohort("binary", 5, epochs=2, passes=3)
    assert module.trainer.global_step == len(steps) == 6
    assert float(module.trainer.callback_metrics["train_loss"]) > 0
    assert relative_difference(steps[0], steps[1]) > 0.1


class SeedRecorder(MILModel):
    """A model that records the random seed of each training batch."""

    paper, cost = "none", "n"

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(WIDTH, 1)
        self.seeds: list[int] = []

    def forward(self, bags: Bags) -> Output:
        if self.training:
            self.seeds.append(torch.initial_seed())
        embedding = bags.mean(bags.features)
        return Output(self.head(embedding), embedding)


def test_batches_of_an_accumulated_step_have_different_dropout() -> None:
    endpoint, target = CASES["binary"]
    data, model = dataset(target), SeedRecorder()
    module = MILModule(model, endpoint, OPTIMIZER, Constant(), 5)
    trainer = silent_trainer(max_epochs=2, accumulate_grad_batches=3)
    trainer.fit(module, loader(data, WholeOrder(data.sizes, 4)), loader(data))
    assert (trainer.global_step, len(model.seeds)) == (4, 12)
    assert len(set(model.seeds)) == 12

"""Training over hospitals: what the coordinator does with sums, weights and gradients, epoch by epoch.

- `exact`: sums of the gradients of all bags at the same weights, one optimizer at the coordinator. The steps are those
  of all patients in one place.
- `fedavg` (McMahan et al., AISTATS 2017), `fedprox` (Li et al., MLSys 2020), `scaffold` (Karimireddy et al., ICML 2020)
  and `fedadam` (Reddi et al., ICLR 2021, algorithm 2): weights after training at each site, averaged by the number of
  bags.

A partial likelihood compares patients of one site only where weights are averaged; `exact` compares all.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch.optim.lr_scheduler import LambdaLR

from mil.errors import ConfigError
from mil.federation.bag_gradients import load_vector, vector
from mil.federation.coordinator import Coordinator, Traffic
from mil.federation.fold_setup import FoldSetup
from mil.federation.shared_loss import MeanLoss, SharedLoss, shared_loss
from mil.federation.targets import risk_sets_of
from mil.models.mil_model import MILModel
from mil.progress import advance
from mil.study import build
from mil.study.run_config import RunConfig
from mil.training.epoch_choice import counting, place_of, share_of_step
from mil.training.member_gradients import clip_gradients, restore_gradients

logger = logging.getLogger(__name__)
Floats = NDArray[np.float64]
RISE = 1.0
"""Rise of the loss of model selection, in multiples of its first value, that is reported."""
SUMMING = ("exact", "pooled")
"""Algorithms that sum gradients."""


@dataclass
class Progress:
    """The state of a training between two epochs: what a coordinator that was killed goes on from."""

    weights: Floats
    averaged: Floats | None = None
    """as `selection.moving_average` says; None before the first step"""
    averages: int = 0
    """of how many steps or rounds"""
    epoch: int = 0
    best: Floats | None = None
    """weights of the epochs with the lowest losses so far, that of the lowest first, `(k, w)`; None before the first"""
    best_epochs: list[int] = field(default_factory=list)
    best_losses: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    select_loss: list[float] = field(default_factory=list)
    momentum: Floats | None = None
    variance: Floats | None = None
    control: Floats | None = None
    steps: int = 0
    risen: bool = False
    """whether the loss of model selection has risen far above its minimum"""
    released: int = 0
    """gradients with noise that have left a site, repeated rounds among them"""


class Training:
    """Trains one fold over the sites of a coordinator."""

    def __init__(
        self,
        config: RunConfig,
        coordinator: Coordinator,
        setup: FoldSetup,
        width: int,
        counts: Mapping[str, int],
        state: Path | None = None,
        widths: Sequence[int] = (),
    ) -> None:
        """Prepare to train, or to go on.

        Args:
            config: All options.
            coordinator: Asks the sites.
            setup: What was fitted together.
            width: Of the features.
            counts: Training patients of each site.
            state: File of the progress; a training whose file exists goes on from it. None keeps none.
            widths: Of each encoder's block of the features, where there are several.
        """
        self.config, self.coordinator, self.setup, self.counts = config, coordinator, setup, dict(counts)
        self.options, self.state = coordinator.options, state
        self.epochs = config.trainer.options.max_epochs
        torch.manual_seed(config.seed + setup.fold)
        self.model: MILModel = build.network(config, width, setup.endpoint, widths)
        self.shared = self._shared()
        self.exact = self.options.algorithm in SUMMING
        self.optimizer = build.optimizer(config)(self.model.parameters())
        self.steps = self._steps() if self.exact else 1
        schedule, passes = build.make(config.schedule), config.data.passes if config.data.whole_cohort else 1
        total = self.epochs * self.steps * passes
        self.schedule = LambdaLR(self.optimizer, lambda step: float(schedule(step, total)))
        self.progress = Progress(vector(self.model))
        _check_algorithm(config, self.options.algorithm)
        if state is not None and state.exists():
            self._restore(state)

    def _shared(self) -> SharedLoss:
        endpoint = self.setup.endpoint
        if endpoint.compares_pairs and self.options.algorithm not in SUMMING:
            return MeanLoss(endpoint)
        return shared_loss(endpoint, risk_sets_of(self.setup.cells))

    def _steps(self) -> int:
        """Return the steps of an epoch: batches of `data.batch_bags`, or larger ones to which each site adds enough."""
        if self.config.data.whole_cohort:
            return 1
        asked_steps = math.ceil(sum(self.counts.values()) / self.config.data.batch_bags)
        possible = min(amount // self.options.minimum for amount in self.counts.values())
        steps = max(1, min(asked_steps, possible))
        if steps < asked_steps:
            logger.info(
                "%d steps an epoch instead of %d, so that each site adds %d patients or more to each",
                steps,
                asked_steps,
                self.options.minimum,
            )
        return steps

    def run(self) -> Progress:
        """Train all epochs that remain and return the last state, which holds the best weights.

        Raises:
            FederationError: Too few sites answer.
        """
        while self.progress.epoch < self.epochs:
            started = time.monotonic()
            loss = self._exact_epoch() if self.exact else self._averaged_round()
            self._select(loss, time.monotonic() - started)
            self._save()
            advance("training over sites", self.progress.epoch, self.epochs)
        return self.progress

    # gradients

    def _exact_epoch(self) -> float:
        passes = self.config.data.passes if self.config.data.whole_cohort else 1
        losses = [self._exact_step(number % self.steps, number) for number in range(passes * self.steps)]
        self.progress.epoch += 1
        return float(np.mean(losses))

    def _exact_step(self, step: int, number: int) -> float:
        """Take one step of the optimizer; it is repeated among the others if a site fails within it."""
        facts: dict[str, JsonValue] = {
            "fold": self.setup.fold,
            "epoch": self.progress.epoch,
            "step": step,
            "steps": self.steps,
        }
        if self.options.noise is not None:
            return self._noisy_step(facts)
        while True:
            weights = {"weights": self.progress.weights}
            sums = self.coordinator.total("loss sums", weights if self.shared.by_logits else {}, facts)
            calls = {name: values for name, values in sums.arrays.items() if name.startswith("call")}
            bags = float(sums.arrays["bags"][0])
            total = self.coordinator.total("gradient", {**weights, **calls}, {**facts, "bags": bags})
            if total.sites == sums.sites:
                break
            self.coordinator.traffic.repeated += 1
        self._apply(total.arrays["gradient"])
        if isinstance(self.shared, MeanLoss) or not self.shared.by_logits:
            return float(total.arrays["loss"][0])
        return self.shared.value(torch.from_numpy(calls["call 0"]))

    def _noisy_step(self, facts: dict[str, JsonValue]) -> float:
        """Take a step along the noisy gradient of patients drawn at random; the loss stays at the sites."""
        bags = sum(self.counts[site] for site in self.coordinator.active) / self.steps
        total = self.coordinator.total("gradient", {"weights": self.progress.weights}, {**facts, "bags": bags})
        self.progress.released = max(self.progress.released + 1, total.released)
        self._apply(total.arrays["gradient"])
        return math.nan

    def _apply(self, gradient: Floats) -> None:
        load_vector(self.model, self.progress.weights)
        values, start = torch.from_numpy(gradient), 0
        parameters = [weight for weight in self.model.parameters() if weight.requires_grad]
        for weight in parameters:
            weight.grad = values[start : start + weight.numel()].reshape(weight.shape).to(weight.dtype)
            start += weight.numel()
        restore_gradients(self.model)
        options = self.config.trainer.options
        if options.gradient_clip_val:
            by_value = options.keywords().get("gradient_clip_algorithm") == "value"
            clip_gradients(self.model, options.gradient_clip_val, by_value)
        self.optimizer.step()
        self.schedule.step()
        self.progress.steps += 1
        self.progress.weights = vector(self.model)
        self._average(self.steps * (self.config.data.passes if self.config.data.whole_cohort else 1))

    # averages

    def _averaged_round(self) -> float:
        progress, options = self.progress, self.options
        until = min(progress.epoch + options.local_epochs, self.epochs)
        facts: dict[str, JsonValue] = {
            "fold": self.setup.fold,
            "epoch": progress.epoch,
            "step": 0,
            "until": until,
            "epochs": self.epochs,
            "pull": options.mu if options.algorithm == "fedprox" else 0.0,
        }
        arrays = {"weights": progress.weights}
        if options.algorithm == "scaffold":
            progress.control = np.zeros_like(progress.weights) if progress.control is None else progress.control
            arrays["control"] = progress.control
            facts["rate"] = self._mean_rate(progress.epoch, until)
        total = self.coordinator.total("update", arrays, facts)
        bags = float(total.arrays["bags"][0])
        change = total.arrays["change"] / bags
        if options.algorithm == "fedadam":
            change = self._adaptive(change)
        elif options.algorithm == "scaffold":
            change = change * (options.server_lr or 1.0)
            progress.control = arrays["control"] + total.arrays["control"] / len(self.coordinator.engine.sites)
        progress.weights = progress.weights + change
        load_vector(self.model, progress.weights)
        progress.weights = vector(self.model)
        self._average(1 / options.local_epochs)
        progress.epoch = until
        return float(total.arrays["loss"][0]) / bags

    def _mean_rate(self, start: int, until: int) -> float:
        """Return the mean learning rate of the sites' optimizers over these epochs."""
        schedule, rate = build.make(self.config.schedule), self.optimizer.defaults["lr"]
        points = np.arange(100 * start, 100 * until)
        return float(rate * np.mean([schedule(int(point), 100 * self.epochs) for point in points]))

    def _adaptive(self, change: Floats) -> Floats:
        """Return the step of FedAdam."""
        progress, options = self.progress, self.options
        momentum = np.zeros_like(change) if progress.momentum is None else progress.momentum
        variance = np.full_like(change, options.tau**2) if progress.variance is None else progress.variance
        progress.momentum = options.beta1 * momentum + (1 - options.beta1) * change
        progress.variance = options.beta2 * variance + (1 - options.beta2) * change**2
        return (options.server_lr or 1e-2) * progress.momentum / (np.sqrt(progress.variance) + options.tau)

    # selection, state

    @property
    def weights(self) -> Floats:
        """The weights that count: the mean of those of the best epochs."""
        progress = self.progress
        return progress.weights if progress.best is None else progress.best[: len(self.best_epochs)].mean(axis=0)

    @property
    def best_epochs(self) -> list[int]:
        """The epochs whose weights count, that of the lowest loss first; none before the first."""
        progress = self.progress
        rounds, count = len(progress.select_loss), self.config.selection.best_epochs
        return progress.best_epochs[: counting(progress.best_losses, count, rounds)]

    def _average(self, steps: float) -> None:
        """Add the weights to their average after a step, of which an epoch has `steps`; see `MovingAverage`."""
        progress = self.progress
        progress.averages += 1
        share = share_of_step(self.config.selection.moving_average, steps, progress.averages)
        if progress.averaged is None or share == 1:
            progress.averaged = progress.weights.copy()
        else:
            progress.averaged += share * (progress.weights - progress.averaged)

    def _select(self, train_loss: float, seconds: float) -> None:
        """Keep the weights if their loss of the patients of model selection is one of the lowest so far."""
        progress = self.progress
        weights = progress.weights if progress.averaged is None else progress.averaged
        facts: dict[str, JsonValue] = {"fold": self.setup.fold}
        total = self.coordinator.total("select sums", {"weights": weights}, facts)
        loss = self.shared.value(torch.from_numpy(total.arrays["sums"]))
        self._watch(loss)
        progress.train_loss.append(train_loss)
        progress.select_loss.append(loss)
        count = self.config.selection.best_epochs
        place = place_of(loss, progress.best_losses, count)
        if place is not None:
            best = weights[None] if progress.best is None else np.insert(progress.best, place, weights, axis=0)
            progress.best_losses.insert(place, loss)
            progress.best_epochs.insert(place, progress.epoch)
            progress.best = best[:count].copy()
            del progress.best_losses[count:], progress.best_epochs[count:]
        logger.info(
            "epoch %d of %d  train_loss %.4f  select_loss %.4f  %.1f s",
            progress.epoch,
            self.epochs,
            train_loss,
            loss,
            seconds,
        )

    def _watch(self, loss: float) -> None:
        """Keep for the report, once, that the loss over all sites has risen far: a step may work against the others."""
        earlier = self.progress.select_loss
        if not earlier or self.progress.risen or loss - min(earlier) <= RISE * max(abs(earlier[0]), 1e-3):
            return
        self.progress.risen = True
        self.coordinator.note(
            f"the loss of all sites' patients of model selection rose from {min(earlier):.3g} to {loss:.3g} in epoch "
            f"{self.progress.epoch}: training diverges, or what some site sends works against the others"
        )

    def _save(self) -> None:
        if self.state is None:
            return
        progress = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in asdict(self.progress).items()
        }
        content = {
            "progress": progress,
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "session": self.coordinator.session,
            "traffic": asdict(self.coordinator.traffic),
            "incidents": list(self.coordinator.incidents),
            "largest": self.coordinator.guard.largest,
        }
        self.state.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.state.with_suffix(".new")
        torch.save(content, fresh)
        fresh.replace(self.state)

    def _restore(self, state: Path) -> None:
        content = torch.load(state, weights_only=True, map_location="cpu")
        for name, value in content["progress"].items():
            setattr(self.progress, name, value.numpy() if isinstance(value, torch.Tensor) else value)
        load_vector(self.model, self.progress.weights)
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.last_epoch = content["schedule"]["last_epoch"]
        for group, rate in zip(self.optimizer.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = rate * self.schedule.lr_lambdas[0](self.schedule.last_epoch)
        self.coordinator.traffic = Traffic(**content["traffic"])
        self.coordinator.incidents = list(content["incidents"])
        self.coordinator.guard.largest = float(content.get("largest", 0.0))
        logger.info("goes on after epoch %d", self.progress.epoch)


def session_of(state: Path) -> str | None:
    """Return the session that a coordinator had before it was killed; None where it had not begun."""
    return str(torch.load(state, weights_only=True, map_location="cpu")["session"]) if state.exists() else None


def _check_algorithm(config: RunConfig, algorithm: str) -> None:
    """Check what an algorithm needs of the optimizer.

    Raises:
        ConfigError: scaffold with another optimizer than plain gradient descent.
    """
    options = config.optimizer.options.keywords()
    plain = config.optimizer.target == "torch.optim.SGD" and not options.get("momentum")
    if algorithm == "scaffold" and not plain:
        raise ConfigError(
            f"federation.algorithm=scaffold: its control variates are those of plain gradient descent, found "
            f"{config.optimizer.target} with momentum {options.get('momentum', 0)}; expected optimizer=sgd "
            "optimizer.momentum=0"
        )
    if config.data.balance == "sampling" and algorithm in SUMMING:
        raise ConfigError("data.balance=sampling: bags of several sites are not drawn together, expected loss or none")

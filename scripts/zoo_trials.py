"""Train one model on one data set, like every other model, score it fold by fold, and measure its costs."""

import resource
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from zoo_data import Data, UnitTest

from mil import config
from mil.bags import Bags
from mil.endpoints.classification import Binary
from mil.features.batches import TrainOrder
from mil.models.mil_model import MILModel
from mil.stats import auroc
from mil.study.build import create_model

SMALL = {"embed_dim": 96, "landmarks": 32}
"""Options of the models that have them, for small data; 96 is divisible by 3 heads and by 8."""
SIZES = (2_000, 8_000, 32_000)


@dataclass(frozen=True)
class Settings:
    """How every model is trained; nothing is chosen by a model's own results."""

    folds: int = 5
    epochs: int = 20
    batch: int = 8
    lr: float = 1e-3
    weight_decay: float = 5e-3


def cross_validated(
    name: str, data: Data, repeat: int, settings: Settings, options: Mapping[str, Any] = SMALL
) -> dict[str, Any]:
    """Return the metric on each fold's reported bags, and the AUROC of attention on reported positive bags."""
    cut = StratifiedKFold(settings.folds, shuffle=True, random_state=repeat)
    scores, attention = [], []
    for fold, (train, report) in enumerate(cut.split(data.label, data.label)):
        bags = _packed(data, data.standardised(train))
        model = _fitted(name, [bags[bag] for bag in train], data.label[train], settings, 1000 * repeat + fold, options)
        logits, shares = _read(model, [bags[bag] for bag in report])
        positive = data.label[report] == 1
        scores.append(_score(data.metric, logits, positive))
        if data.truth is not None and shares is not None:
            attention += list(_attention_aurocs(shares, [data.truth[bag] for bag in report], positive))
    return {"scores": scores, "attention": attention}


def unit_tested(name: str, test: UnitTest, seed: int, settings: Settings) -> dict[str, float]:
    """Return the AUROC on the training bags and on the bags where the shortcut misleads."""
    train, held = (_packed(part, part.features) for part in (test.train, test.test))
    model = _fitted(name, train, test.train.label, settings, seed)
    pairs = {"train": (train, test.train.label), "test": (held, test.test.label)}
    return {part: _score("auroc", _read(model, bags)[0], label == 1) for part, (bags, label) in pairs.items()}


def costs(name: str) -> dict[str, float]:
    """Return parameters, tiles per second forward and backward in bfloat16, growth of time with tiles, and peak memory.

    At the model's own defaults, features 1,024 wide. Growth is the slope of log time over log tiles of one bag forward,
    1 being linear; memory is the increase for a bag of the largest size, forward and backward.
    """
    torch.manual_seed(0)
    model = _model(name, 1024, {})
    forward = [_seconds(model, (size,), backward=False) for size in SIZES]
    sizes = (1500,) * 8
    speed = sum(sizes) / _seconds(model, sizes, backward=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _seconds(model, SIZES[-1:], backward=True, repeats=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth = float(np.polyfit(np.log(SIZES), np.log(forward), 1)[0])
    amount = sum(weight.numel() for weight in model.parameters())
    return {"parameters": amount, "tiles_per_s": speed, "growth": growth, "peak_gb": (peak - before) / 2**20}


def _model(name: str, width: int, options: Mapping[str, Any]) -> MILModel:
    """Create a model with those of the options that it has."""
    maker = get_class(config.described("model")[name]["_target_"])
    parameters = signature(maker).parameters
    return create_model(name, width, 1, **{key: value for key, value in options.items() if key in parameters})


def _packed(data: Data, features: Sequence[Tensor]) -> list[Bags]:
    places: Sequence[Tensor | None] = data.coords or [None] * len(features)
    return [Bags.pack([bag], [place]) for bag, place in zip(features, places, strict=True)]


def _fitted(
    name: str,
    bags: Sequence[Bags],
    label: NDArray[np.int64],
    settings: Settings,
    seed: int,
    options: Mapping[str, Any] = SMALL,
) -> MILModel:
    torch.manual_seed(seed)
    model, endpoint = _model(name, bags[0].features.shape[1], options).train(), Binary()
    target = torch.from_numpy(label).float()
    order = TrainOrder([bag.sizes[0] for bag in bags], settings.batch, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps = settings.epochs * len(order)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(settings.epochs):
        order.set_epoch(epoch)
        for draws in order:
            chosen = [draw.bag for draw in draws]
            batch = Bags.concat(bags[bag] for bag in chosen)
            optimizer.zero_grad()
            torch.autograd.backward(model.loss(model(batch), target[chosen], endpoint))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def _read(model: MILModel, bags: Sequence[Bags]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]] | None]:
    outputs = [model(bag) for bag in bags]
    logits = torch.cat([output.logits for output in outputs]).double().squeeze(1).numpy()
    if outputs[0].attention is None:
        return logits, None
    return logits, [output.attention.double().numpy() for output in outputs]


def _score(metric: str, logits: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    return float(((logits > 0) == positive).mean()) if metric == "accuracy" else float(auroc(logits, positive))


def _attention_aurocs(
    shares: Sequence[NDArray[np.float64]], truth: Sequence[NDArray[np.bool_]], positive: NDArray[np.bool_]
) -> Iterator[float]:
    for attention, tiles, counts in zip(shares, truth, positive, strict=True):
        if counts and tiles.any() and not tiles.all():
            yield float(auroc(attention, tiles))


def _seconds(model: MILModel, sizes: tuple[int, ...], backward: bool, repeats: int = 3) -> float:
    """Return the median seconds of a pass, after a warm-up pass."""
    tiles = sum(sizes)
    side = int(np.ceil(np.sqrt(max(sizes))))
    places = torch.cat([torch.stack([torch.arange(n) % side, torch.arange(n) // side], 1) for n in sizes])
    bags = Bags(torch.randn(tiles, 1024).bfloat16(), sizes, 512 * places)
    target, endpoint, taken = torch.arange(len(sizes)).remainder(2).float(), Binary(), []
    model.train(backward)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with torch.set_grad_enabled(backward), torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(bags)
            if backward:
                torch.autograd.backward(model.loss(output, target, endpoint))
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:] or taken)

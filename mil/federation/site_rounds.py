"""A hospital's part of a round of training: sums, gradients and changes of weights of its own bags."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from mil.federation.bag_gradients import Moment, steps_of
from mil.federation.federation_options import FederationOptions
from mil.federation.messages import Message
from mil.federation.norm_guard import clipped
from mil.federation.prepared_fold import PreparedFold
from mil.federation.privacy_budget import NoisyGradient
from mil.federation.site_training import train_at_site
from mil.study.run_config import RunConfig

Floats = NDArray[np.float64]


def moment_of(config: RunConfig, question: Message) -> Moment:
    """Return fold, epoch and step of a question, which determine dropout and which tiles are drawn."""
    seed = config.seed + int(question.number("fold"))
    return Moment(seed, int(question.number("epoch")), int(question.number("step")))


def loss_sums(config: RunConfig, question: Message, prepared: PreparedFold) -> Message:
    """Return what the loss of all bags of a step needs of this hospital's, and their number."""
    bags, gradient = _bags(config, question, prepared), prepared.gradient("train")
    if prepared.shared.by_logits:
        gradient.load(question.array("weights"))
        prepared.forget()
    calls = gradient.sums(bags, moment_of(config, question))
    sums = {f"call {number}": values for number, values in enumerate(calls)}
    patients = _patients_of(prepared, bags)
    return Message("loss sums", {**sums, "bags": np.array([float(len(bags))])}, patients=patients)


def gradient_sum(config: RunConfig, question: Message, prepared: PreparedFold, options: FederationOptions) -> Message:
    """Return this hospital's part of the gradient of all bags of a step, and of their loss."""
    bags, gradient = _bags(config, question, prepared), prepared.gradient("train", options.clip)
    gradient.load(question.array("weights"))
    prepared.forget()
    totals = [question.array(name) for name in sorted(question.arrays, key=_call_number) if name.startswith("call")]
    amount = question.number("bags")
    total, loss = gradient.gradient(bags, moment_of(config, question), totals, amount)
    bound = None if options.norm_bound is None else options.norm_bound * len(bags) / amount
    arrays = {"gradient": clipped(total, bound), "loss": np.array([loss])}
    return Message("gradient", arrays, patients=_patients_of(prepared, bags))


def noisy_gradient(config: RunConfig, question: Message, prepared: PreparedFold, noise: NoisyGradient) -> Message:
    """Return the gradient of bags drawn at random, each clipped, with noise; who was drawn is not told.

    Neither the loss nor the number of bags leaves: both are of the bags that were drawn.
    """
    amount, steps = question.number("bags"), int(question.number("steps"))
    bags, gradient = noise.drawn(prepared.patients("train"), steps), prepared.gradient("train", noise.clip)
    gradient.load(question.array("weights"))
    prepared.forget()
    totals = [prepared.shared.assumed(amount).numpy()]
    total, _ = gradient.gradient(bags, moment_of(config, question), totals, amount)
    sites = len(cast(list[str], question.facts["sites"]))
    released = noise.count(prepared.fold.number)
    arrays = {"gradient": noise.added(total, amount, sites)}
    return Message("gradient", arrays, {"released": released}, patients=prepared.patients("train"))


def update(config: RunConfig, question: Message, prepared: PreparedFold, options: FederationOptions) -> Message:
    """Return what training at this hospital makes of the common weights, weighted by its bags."""
    weights, data = question.array("weights"), prepared.fold.data["train"]
    prepared.forget()
    epochs = range(int(question.number("epoch")), int(question.number("until")))
    common = question.array("control") if "control" in question.arrays else None
    mine = None if common is None else prepared.control
    mine = np.zeros(len(weights)) if mine is None and common is not None else mine
    trained = train_at_site(
        config,
        prepared.model,
        prepared.fold.endpoint,
        data,
        weights,
        epochs=epochs,
        all_epochs=int(question.number("epochs")),
        pull=question.number("pull"),
        correction=None if common is None or mine is None else common - mine,
    )
    share = float(len(data))
    arrays: dict[str, Floats] = {
        "change": share * clipped(trained.change, options.norm_bound),
        "bags": np.array([share]),
        "loss": np.array([share * trained.loss]),
    }
    if common is not None and mine is not None:
        # option II of algorithm 1, with the mean learning rate over the steps
        fresh = mine - common - trained.change / (trained.steps * question.number("rate"))
        arrays["control"], prepared.control = fresh - mine, fresh
    return Message("update", arrays, patients=prepared.patients("train"))


def select_sums(question: Message, prepared: PreparedFold) -> Message:
    """Return the sums of the loss of the patients of model selection, by the endpoint alone as in `mil train`."""
    role = "select" if "select" in prepared.fold.data else "train"
    data = prepared.fold.data[role]
    prepared.at(question.array("weights"))
    sums = prepared.shared.sums(prepared.logits(role), data.target).numpy()
    return Message("select sums", {"sums": sums}, patients=prepared.patients(role))


def _bags(config: RunConfig, question: Message, prepared: PreparedFold) -> list[int]:
    """Return the bags of a step: this hospital's part of the common batch."""
    data, moment = prepared.fold.data["train"], moment_of(config, question)
    events = prepared.fold.endpoint.events(data.target)
    groups = steps_of(len(data), int(question.number("steps")), moment.seed, moment.epoch, events)
    return groups[moment.step % len(groups)]


def _patients_of(prepared: PreparedFold, bags: list[int]) -> int:
    return int(prepared.fold.bags["train"]["patient"].iloc[bags].nunique())


def _call_number(name: str) -> int:
    digits = name.removeprefix("call ")
    return int(digits) if digits.isdigit() else -1

"""`federation.algorithm=exact` takes the steps of all patients in one place, for every endpoint and model."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from mil.bags import Bags
from mil.federation.bag_gradients import Moment, steps_of, vector
from mil.federation.coordinator import Coordinator
from mil.federation.engines.local import LocalEngine
from mil.splits.folds import Split
from mil.study import build
from tests.federation.hospitals import (
    SITES,
    TOGETHER,
    WIDTH,
    Federated,
    config_of,
    federated,
    hospital_of,
    joined,
    options_of,
    study_of,
)

ENDPOINTS = {
    "binary": ("binary", ()),
    "balanced": ("binary", ("data.balance=loss",)),
    "multiclass": ("multiclass", ()),
    "multilabel": ("multilabel", ()),
    "ordinal": ("ordinal", ()),
    "regression": ("regression", ()),
    "cox efron": ("survival", ()),
    "cox breslow": ("survival", ("tool.endpoint.ties=breslow",)),
    "cox strata": ("survival", ("tool.endpoint.strata=site",)),
    "discrete time": ("survival_discrete", ()),
    "weibull": ("survival_weibull", ()),
    "competing risks": ("competing_risks", ()),
    # Adam would blow up the rounding of a gradient that is zero: a partial likelihood does not depend on its bias
    "several": ("several", ("optimizer=sgd",)),
}
PLAIN = ("model=abmil", "model.dropout=0.0", "model.embed_dim=8", "model.attention_dim=4", "trainer.max_epochs=5")


def pooled_weights(federation: Federated, epochs: int) -> tuple[NDArray[np.float64], list[float]]:
    """Train on all patients in one place: torch's own gradient of the endpoint's loss of each batch."""
    config, table = federation.config, federation.train_table
    study = study_of(config, table)
    endpoint = copy.deepcopy(study.endpoint)
    endpoint.fit(study.target, config.data.balance == "loss")
    torch.manual_seed(config.seed)
    model = build.network(config, WIDTH, endpoint)
    optimizer = build.optimizer(config)(model.parameters())
    steps, schedule, losses = federation.training().steps, build.make(config.schedule), []
    rates = LambdaLR(optimizer, lambda step: schedule(step, epochs * steps))
    for epoch in range(epochs):
        for batch in batches(federation, steps, epoch):
            rows = table.index.get_indexer(pd.Index(batch))
            slides = [study.store.read(name) for name in batch]
            bags = Bags.pack([slide.features for slide in slides], [slide.coords for slide in slides])
            loss = model.loss(model(bags), study.target[rows], endpoint)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            clip_grad_norm_(model.parameters(), config.trainer.options.gradient_clip_val or 1e9)
            optimizer.step()
            rates.step()
            losses.append(float(loss.detach()))
    return vector(model), losses


def batches(federation: Federated, steps: int, epoch: int) -> list[list[str]]:
    """Return the patients of each step: the union of the sites' parts."""
    union: list[list[str]] = [[] for _ in range(steps)]
    for _, hospital in sorted(federation.hospitals.items()):
        prepared = hospital.folds[0]
        data = prepared.fold.data["train"]
        groups = steps_of(len(data), steps, federation.config.seed, epoch, prepared.fold.endpoint.events(data.target))
        for step, group in enumerate(groups):
            union[step] += [str(prepared.fold.bags["train"]["patient"].iloc[bag]) for bag in group]
    return union


@pytest.mark.parametrize("name", ENDPOINTS)
def test_five_epochs_end_in_the_weights_of_pooled_training(name: str) -> None:
    tool, words = ENDPOINTS[name]
    # Cox's likelihood knows nothing of the last bias: its gradient is rounding error, of which Adam makes steps
    free = 1 if name.startswith("cox") else 0
    federation = federated(config_of(tool, *PLAIN, *words), options_of())
    progress = federation.training().run()
    weights, losses = pooled_weights(federation, 5)
    assert progress.epoch == 5
    assert progress.steps == len(losses) > 5
    last = len(weights) - free
    np.testing.assert_allclose(progress.weights[:last], weights[:last], rtol=0, atol=1e-6)
    if free:
        rounding = [abs(gradient[last:]).max() for gradient in (first_gradient(federation), own_gradient(federation))]
        assert max(rounding) < 1e-6  # zero but for rounding, from which Adam makes steps of the learning rate
    assert abs(weights - vector(federation.training().model)).max() > 1e-4  # training has moved them
    assert progress.train_loss[-1] == pytest.approx(np.mean(losses[-len(losses) // 5 :]), rel=1e-4)


def test_the_weights_that_count_are_the_mean_of_those_of_the_best_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    training = federated(
        config_of("binary", *PLAIN, "trainer.max_epochs=6", "optimizer.lr=0.1"), options_of()
    ).training()
    select, epochs = training._select, list[NDArray[np.float64]]()

    def watched(train_loss: float, seconds: float) -> None:
        epochs.append(training.progress.weights.copy())
        select(train_loss, seconds)

    monkeypatch.setattr(training, "_select", watched)
    losses = training.run().select_loss
    best = np.argsort(losses, kind="stable")[:3]  # at most half of six
    assert training.best_epochs == list(best + 1)
    np.testing.assert_allclose(training.weights, np.mean([epochs[epoch] for epoch in best], axis=0), rtol=1e-6)


def first_gradient(federation: Federated) -> NDArray[np.float64]:
    """Return the gradient of all sites at the first weights, by sums."""
    facts = {"fold": 0, "epoch": 0, "step": 0, "steps": 1}
    weights = federation.training().progress.weights
    sums = dict(federation.coordinator.total("loss sums", {"weights": weights}, facts).arrays)
    bags = float(sums.pop("bags")[0])
    return federation.coordinator.total("gradient", {"weights": weights, **sums}, {**facts, "bags": bags}).arrays[
        "gradient"
    ]


def own_gradient(federation: Federated) -> NDArray[np.float64]:
    """Return the gradient of all patients in one place at the same weights, by torch."""
    study, model = study_of(federation.config, federation.train_table), federation.training().model
    study.endpoint.fit(study.target)
    slides = [study.store.read(name) for name in study.patients.index]
    bags = Bags.pack([slide.features for slide in slides], [slide.coords for slide in slides])
    model.loss(model(bags), study.target, study.endpoint).backward()  # type: ignore[no-untyped-call]
    pieces = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in model.parameters()]
    return np.asarray(torch.cat([piece.ravel() for piece in pieces]).double().numpy())


def test_cox_with_plain_gradient_descent_ends_in_the_same_last_bias() -> None:
    """The partial likelihood does not depend on the bias: without Adam no step is made of its gradient's rounding."""
    federation = federated(config_of("survival", *PLAIN, "optimizer=sgd", "optimizer.lr=0.05"), options_of())
    start = vector(federation.training().model)
    weights, _ = pooled_weights(federation, 5)
    reached = federation.training().run().weights
    np.testing.assert_allclose(reached, weights, rtol=0, atol=1e-6)
    assert abs(reached - start).max() > 1e-3


def test_masked_sums_end_in_the_same_weights() -> None:
    config = config_of("survival", *PLAIN)
    plain, secure = (federated(config, options_of(secure=secure)).training().run() for secure in (False, True))
    np.testing.assert_allclose(secure.weights, plain.weights, rtol=0, atol=1e-7)


def test_with_a_grid_the_steps_are_those_of_pooled_patients_on_the_grid() -> None:
    """Times are rounded up to quarters of years; the reference is trained on patients with these times."""
    config = config_of("survival", *PLAIN)
    federation = federated(config, options_of(times="grid", grid=3.0, cell_minimum=1))
    progress = federation.training().run()
    edges = federation.setup.cells[""].times
    np.testing.assert_allclose(edges, 3 * np.round(edges / 3))
    for table in federation.tables.values():
        times = table["time"].astype(float).to_numpy()
        table["time"] = edges[np.searchsorted(edges, times)].astype(str)
    weights, _ = pooled_weights(federation, 5)
    np.testing.assert_allclose(progress.weights, weights, rtol=0, atol=1e-6)


def test_cells_of_the_grid_hold_a_minimum_of_patients() -> None:
    federation = federated(config_of("survival", *PLAIN), options_of(times="grid", cell_minimum=5))
    counts = federation.setup.counts[""]
    assert counts.sum() == len(federation.train_table)
    assert (counts.sum((0, 1))[:-1] >= 5).all()


@pytest.mark.parametrize("name", TOGETHER)
def test_every_model_has_the_gradient_of_its_bags_in_one_place(name: str) -> None:
    """The reference sums the gradients of the model's own loss over bags, divided by their number."""
    config = config_of("binary", f"model={name}", "trainer.max_epochs=1", "data.whole_cohort=true")
    federation = federated(config, options_of())
    training = federation.training()
    weights = training.progress.weights
    facts = {"fold": 0, "epoch": 0, "step": 0, "steps": 1}
    sums = federation.coordinator.total("loss sums", {"weights": weights}, facts).arrays
    total = federation.coordinator.total(
        "gradient", {"weights": weights, "call 0": sums["call 0"]}, {**facts, "bags": float(sums["bags"][0])}
    )
    table = federation.train_table
    study = study_of(config, table)
    endpoint, model = federation.setup.endpoint, training.model
    gradient = np.zeros(len(weights))
    for row, patient in enumerate(table.index):
        slide = study.store.read(patient)
        Moment(config.seed, 0, 0).sow(patient)
        model.train().zero_grad()
        bags = Bags.pack([slide.features], [slide.coords])
        loss = model.loss(model(bags), study.target[[row]], endpoint) / len(table)
        loss.backward()  # type: ignore[no-untyped-call]
        pieces = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in model.parameters()]
        gradient += torch.cat([piece.ravel() for piece in pieces]).double().numpy()
    np.testing.assert_allclose(total.arrays["gradient"], gradient, rtol=0, atol=2e-6)
    assert total.patients == len(table)


@pytest.mark.parametrize("name", ["acmil", "dsmil", "dtfd", "abmil_aem"])
def test_models_that_compute_the_loss_several_times_have_the_gradient_of_all_patients_under_cox(name: str) -> None:
    config = config_of("survival", f"model={name}", "trainer.max_epochs=1", "data.whole_cohort=true")
    federation = federated(config, options_of())
    weights, gradients = federation.training().progress.weights, []
    for each in (federation, in_one_place(federation)):
        facts = {"fold": 0, "epoch": 0, "step": 0, "steps": 1}
        sums = dict(each.coordinator.total("loss sums", {"weights": weights}, facts).arrays)
        bags = float(sums.pop("bags")[0])
        total = each.coordinator.total("gradient", {"weights": weights, **sums}, {**facts, "bags": bags})
        gradients.append(total.arrays["gradient"])
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=0, atol=1e-6)
    assert np.abs(gradients[0]).max() > 1e-3


def in_one_place(federation: Federated) -> Federated:
    """Return a federation of one hospital that has the training patients of all."""
    table = federation.train_table
    hospital = hospital_of(federation.config, "all", table, federation.options)
    hospital.split = Split(pd.DataFrame({"patient": table.index, "fold": 0, "role": "train"}))
    coordinator = Coordinator(LocalEngine({"all": hospital}), federation.options)
    return joined(federation.config, federation.options, {"all": table}, {"all": hospital}, coordinator)


def test_pairs_of_patients_in_different_hospitals_are_refused_with_the_reason() -> None:
    config = config_of("competing_risks", *PLAIN, "tool.endpoint.ranking=0.5")
    with pytest.raises(Exception, match="compares pairs of patients"):
        federated(config, options_of())
    federated(config, options_of(algorithm="fedavg")).training().run()


def test_each_site_adds_a_minimum_of_patients_to_each_step() -> None:
    federation = federated(config_of("binary", *PLAIN), options_of(minimum=2), dict.fromkeys(SITES, 25))
    training = federation.training()
    assert training.steps == 45 // 8 + 1
    federation.options = options_of(minimum=5)
    federation.coordinator.options = federation.options
    assert federation.training().steps == 3

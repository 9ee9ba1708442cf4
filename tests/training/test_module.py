"""The select loss and scores of an epoch come from the logits of that epoch only; a step does no more than it must."""

from collections import Counter

import pytest
import torch

from mil.features.batches import WholeOrder, loader
from mil.training.module import MILModule
from mil.training.schedule import Constant
from tests.training.test_whole import CASES, OPTIMIZER, dataset, network, silent_trainer


@pytest.mark.parametrize("name", CASES)
def test_select_loss_of_the_second_epoch_matches_a_recomputation(name: str) -> None:
    endpoint, target = CASES[name]
    data = dataset(target)
    module = MILModule(network(endpoint.out_dim, covariates=False), endpoint, OPTIMIZER, Constant(), 5)
    trainer = silent_trainer(max_epochs=2)
    trainer.fit(module, loader(data, WholeOrder(data.sizes, 4)), loader(data))
    model = module.model.eval()
    with torch.no_grad():
        logits = torch.cat([model(batch.bags).logits for batch in loader(data)])
    scores = {name: float(value) for name, value in endpoint.score(logits, target).items()}
    fresh = {"loss": float(endpoint.loss(logits, target)), **scores}
    logged = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("select_")}
    assert logged == {f"select_{key}": pytest.approx(value, abs=1e-6) for key, value in fresh.items()}


def test_a_step_seeds_no_device_but_its_own_and_the_epoch_is_logged_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint, target = CASES["binary"]
    data = dataset(target)
    module = MILModule(network(endpoint.out_dim, covariates=False), endpoint, OPTIMIZER, Constant(), 5)
    steps = len(WholeOrder(data.sizes, 4))
    logged: Counter[str] = Counter()
    log = module.log
    monkeypatch.setattr(module, "log", lambda name, *rest, **how: (logged.update([name]), log(name, *rest, **how)))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("every device was seeded"))
    silent_trainer(max_epochs=2).fit(module, loader(data, WholeOrder(data.sizes, 4)), loader(data))
    assert steps > 2
    assert logged["train_loss"] == 2 * steps
    assert logged["epoch"] == 4, "of training and of selection"

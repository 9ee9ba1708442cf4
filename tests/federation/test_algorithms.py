"""Averages of weights: every algorithm, every endpoint and every model; what each refuses, with its reason."""

import copy

import numpy as np
import pytest

from mil.errors import ConfigError
from mil.federation.bag_gradients import vector
from mil.federation.federated_run import refuse_alone
from mil.federation.federation_options import FederationOptions
from mil.federation.site_training import train_at_site
from mil.federation.synthesis import synthesis, unlike_sites
from mil.report.sections.federation import SiteResult
from mil.stats.estimate import Estimate
from tests.federation.hospitals import TOGETHER, config_of, federated, options_of

PLAIN = ("model=abmil", "model.dropout=0.0", "model.embed_dim=8", "model.attention_dim=4", "trainer.max_epochs=2")
SGD = ("optimizer=sgd", "optimizer.momentum=0.0")


@pytest.mark.parametrize(("name", "reason"), [("panther", "prototypes are fitted to tiles"), ("mhim", "its teacher")])
def test_models_that_need_what_hospitals_do_not_share_are_refused(name: str, reason: str) -> None:
    assert name not in TOGETHER
    with pytest.raises(ConfigError, match=f"cannot be trained over hospitals: .*{reason}") as refusal:
        refuse_alone(config_of("binary", f"model={name}"))
    assert "\n" not in str(refusal.value)
    refuse_alone(config_of("binary", "model=otsurv"))


def test_fedavg_is_the_mean_of_the_sites_weights_by_their_bags() -> None:
    config = config_of("binary", *PLAIN, "trainer.max_epochs=1")
    federation = federated(config, options_of(algorithm="fedavg"))
    training = federation.training()
    start, expected, bags = vector(training.model), np.zeros(0), 0
    for _, hospital in sorted(federation.hospitals.items()):
        data = hospital.folds[0].fold.data["train"]
        model = copy.deepcopy(training.model)
        update = train_at_site(config, model, federation.setup.endpoint, data, start, epochs=range(1), all_epochs=1)
        expected = len(data) * vector(model) + (expected if len(expected) else 0)
        bags += len(data)
        assert update.steps == -(-len(data) // config.data.batch_bags)
    np.testing.assert_allclose(training.run().weights, expected / bags, rtol=0, atol=1e-6)


def test_fedprox_pulls_to_the_common_weights_and_fedadam_takes_steps_of_its_own() -> None:
    config = config_of("binary", *PLAIN, "trainer.max_epochs=4", "optimizer.lr=0.05")
    moved = {}
    for algorithm, options in (("fedavg", {}), ("fedprox", {"mu": 50.0}), ("fedadam", {"server_lr": 0.01})):
        training = federated(config, options_of(algorithm=algorithm, local_epochs=2, **options)).training()
        start = vector(training.model)
        progress = training.run()
        moved[algorithm] = np.linalg.norm(progress.weights - start)
        assert len(progress.select_loss) == 2
    assert moved["fedprox"] < 0.9 * moved["fedavg"]
    assert moved["fedadam"] <= 2 * 0.01 * 10 * np.sqrt(len(start))  # two steps, at most some times the rate each
    assert len(set(moved.values())) == 3


def test_control_variates_of_scaffold_sum_to_the_common_one() -> None:
    config = config_of("binary", *PLAIN, *SGD)
    federation = federated(config, options_of(algorithm="scaffold"))
    progress = federation.training().run()
    controls = [hospital.folds[0].control for hospital in federation.hospitals.values()]
    assert progress.control is not None
    np.testing.assert_allclose(np.mean([control for control in controls if control is not None], 0), progress.control)
    assert np.abs(progress.control).max() > 0


def test_scaffold_refuses_another_optimizer() -> None:
    with pytest.raises(ConfigError, match=r"scaffold: .* found torch.optim.Adam"):
        federated(config_of("binary", *PLAIN), options_of(algorithm="scaffold")).training()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"algorithm": "fedavgg"}, "federation.algorithm=fedavgg, expected"),
        ({"minimun": 3}, "option 'federation.minimun' does not exist, did you mean 'federation.minimum'"),
        ({"minimum": 0}, "federation.minimum=0"),
        ({"noise": 1.0}, "federation.noise is in multiples of federation.clip"),
        ({"clip": 1.0, "algorithm": "fedavg"}, "expected algorithm=exact"),
        ({"leave_one_site_out": True, "algorithm": "local"}, "algorithm=local trains no model of the other sites"),
        ({"leave_one_site_out": True, "algorithm": "pooled"}, "algorithm=pooled trains no model of the other sites"),
    ],
)
def test_options_out_of_range_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FederationOptions.parse(values)


def result(site: str, value: float, half: float = 0.05) -> SiteResult:
    estimate = Estimate(value=value, low=value - half, high=min(value + half, 0.999), counts={"n": 60})
    return SiteResult(site=site, train=60, select=20, report=60, metrics={"auroc": estimate})


def test_sites_are_pooled_by_random_effects_and_a_label_flipped_one_is_named() -> None:
    alike = [result("north", 0.82), result("east", 0.85), result("south", 0.84)]
    [row] = synthesis(alike)
    assert row.sites == 3
    assert row.estimate.low is not None
    assert row.estimate.high is not None
    assert row.predicted_low <= row.estimate.low < 0.84 < row.estimate.high <= row.predicted_high
    assert not list(unlike_sites(alike, "auroc"))
    [sentence] = unlike_sites([*alike, result("west", 0.2)], "auroc")
    assert sentence.startswith("Site west: auroc 0.200")
    assert "its labels are wrong" in sentence
    assert not list(synthesis(alike[:2]))  # two sites do not show how much sites differ

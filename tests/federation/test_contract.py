"""Every model and every endpoint with every algorithm: it is trained, or refused in one line with the reason."""

import inspect
from inspect import signature

import numpy as np
import pytest
from hydra.utils import get_class

from mil import config as conf
from mil import endpoints
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.federation.bag_gradients import vector
from mil.federation.federated_run import refuse_alone
from mil.study import build
from mil.study.run_config import RunConfig
from tests.federation.hospitals import TOGETHER, Federated, config_of, federated, options_of

QUICK = ("trainer.max_epochs=1", "data.batch_bags=32", "optimizer=sgd", "optimizer.momentum=0.0", "optimizer.lr=0.01")
PLAIN = ("model=abmil", "model.dropout=0.0", "model.embed_dim=8", "model.attention_dim=4")
SITES = {"a": 10, "b": 10}
ALGORITHMS = ("exact", "fedavg", "fedprox", "scaffold", "fedadam")
NARROW = {"embed_dim": 24, "attention_dim": 8}
TOOLS = sorted(name for name, node in conf.described("tool").items() if node["tool"].get("category") == "custom")


def narrow(name: str) -> RunConfig:
    """Return the options of a model that is small as far as it can be made so."""
    parameters = signature(get_class(config_of("binary", f"model={name}").model.target)).parameters
    widths = [f"++model.{option}={width}" for option, width in NARROW.items() if option in parameters]
    return config_of("binary", f"model={name}", *widths, *QUICK)


def check_algorithms(federation: Federated) -> None:
    """Train by every algorithm over the same hospitals: the weights move, and are finite."""
    for algorithm in ALGORITHMS:
        federation.coordinator.options = options_of(algorithm=algorithm)
        for hospital in federation.hospitals.values():
            hospital.folds[0].control = None
        training = federation.training()
        start = vector(training.model)
        progress = training.run()
        assert progress.epoch == 1, algorithm
        assert np.isfinite(progress.weights).all(), algorithm
        assert np.abs(progress.weights - start).max() > 0, algorithm
        assert np.isfinite(progress.select_loss).all(), algorithm


@pytest.mark.parametrize("name", conf.choices("model"))
def test_every_model_with_every_algorithm(name: str) -> None:
    config = narrow(name)
    if name not in TOGETHER:
        with pytest.raises(ConfigError, match=r"^model \w+ cannot be trained over hospitals: .+"):
            refuse_alone(config)
    else:
        check_algorithms(federated(config, options_of(), SITES))


@pytest.mark.parametrize("tool", TOOLS)
def test_every_endpoint_with_every_algorithm(tool: str) -> None:
    check_algorithms(federated(few_intervals(tool), options_of(), SITES))


def few_intervals(tool: str) -> RunConfig:
    """Return the options of a generic tool whose few patients have events in every interval."""
    timed = ("tool.endpoint.intervals=2",) if tool in ("survival_discrete", "competing_risks") else ()
    return config_of(tool, *PLAIN, *QUICK, *timed)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_endpoint_in_one_place(tool: str) -> None:
    """What `local` does at each site and `pooled` with all: sums of a single hospital."""
    federation = federated(few_intervals(tool), options_of(algorithm="pooled"), {"a": 20})
    assert np.isfinite(federation.training().run().weights).all()


def test_the_tools_above_have_every_endpoint() -> None:
    classes = {value for value in vars(endpoints).values() if inspect.isclass(value) and issubclass(value, Endpoint)}
    concrete = {each for each in classes if not inspect.isabstract(each)} - {Endpoint}
    covered = {type(build.endpoint(config_of(tool))) for tool in TOOLS}
    assert len(covered) > 8
    assert {each.__name__ for each in concrete} <= {each.__name__ for each in covered}

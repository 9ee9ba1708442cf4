"""Every choice of conf/ builds, options that only a constructor knows are taken, values out of range are refused."""

from pathlib import Path

import pytest
import torch

from mil import build, config
from mil.bags import Bags
from mil.errors import ConfigError
from tests.conftest import TINY

TOOLS, MODELS = config.choices("tool"), config.choices("model")


def refused(*words: str) -> str:
    """What is said of these words, in one line."""
    with pytest.raises(ConfigError) as error:
        build.checked(config.compose(build.prepared(list(words))))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tool", TOOLS)
def test_every_model_builds_for_every_endpoint(tool: str, model: str) -> None:
    settings = build.checked(config.compose([f"tool={tool}", f"model={model}"]))
    endpoint = build.endpoint(settings)
    network = build.model(settings, 8, endpoint.out_dim).eval()
    logits = network(Bags(torch.randn(5, 8), (2, 3))).logits
    assert logits.shape == (2, endpoint.out_dim)
    assert all(column.shape == (2,) for column in endpoint.decode(logits).values())


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_can_be_simulated_with_the_columns_it_reads(tool: str) -> None:
    settings = config.compose([f"tool={tool}"])
    simulation = build.simulation(settings)
    assert set(simulation.target.columns) == set(build.endpoint(settings).columns)
    assert 0.5 < settings.simulation.target.attainable < 1


@pytest.mark.parametrize("optimizer", config.choices("optimizer"))
@pytest.mark.parametrize("schedule", config.choices("schedule"))
def test_every_optimizer_and_schedule_builds(optimizer: str, schedule: str) -> None:
    settings = config.compose([f"optimizer={optimizer}", f"schedule={schedule}"])
    weight = torch.nn.Parameter(torch.ones(1))
    assert build.optimizer(settings)([weight]).param_groups[0]["lr"] == settings.optimizer.lr
    assert 0 < build.make(settings.schedule)(0, 10) <= 1


def test_encoders_with_a_width_are_known_by_name() -> None:
    known = {encoder.name: encoder.dim for encoder in build.known_encoders()}
    assert known["uni"] == 1024
    assert known["virchow2"] == 2560


def test_an_option_that_only_the_constructor_knows_is_taken() -> None:
    settings = config.compose(build.prepared(["model.dropout=0.1", "model=mean", "optimizer.eps=1e-6"]))
    assert settings.model.dropout == 0.1
    assert settings.optimizer.eps == 1e-6
    assert settings.model.by == "mean"


@pytest.mark.parametrize(
    ("word", "near"),
    [("model.droput=0.1", "model.dropout"), ("model.gatd=true", "model.gated"), ("optimizer.lrr=1", "optimizer.lr")],
)
def test_an_option_that_nobody_knows_is_refused_with_the_nearest_name(word: str, near: str) -> None:
    assert f"does not exist, did you mean '{near}'?" in refused(word)


@pytest.mark.parametrize(
    "word",
    [
        "optimizer.lr=nan",
        "optimizer.lr=-1",
        "optimizer.lr=0",
        "optimizer.lr=fast",
        "trainer.max_epochs=0",
        "trainer.max_epochs=-1",
        "trainer.max_epochs=2.5",
        "trainer.accumulate_grad_batches=0",
        "trainer.gradient_clip_val=-1",
        "data.batch_bags=0",
        "data.batch_bags=null",
        "data.batch_bags=true",
        "data.tiles_per_batch=0",
        "data.max_tiles=-5",
        "data.workers=-1",
        "data.bag=tile",
        "data.balance=yes",
        "data.on_missing=ignore",
        "data.on_bad_bag=ignore",
        "split.folds=1",
        "split.folds=many",
        "split.select=0",
        "split.select=half",
        "resamples=0",
        "seed=-1",
        "seed=null",
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(word: str) -> None:
    assert refused(word).startswith(word.partition("=")[0])


def test_what_has_to_be_given_is_asked_for() -> None:
    assert refused("encoder=custom") == "encoder.dim has no value: give encoder.dim=..."
    assert refused("~seed") == "seed has no value: give seed=..."
    assert "nope" in refused("data.cohort='${nope}'")


def test_a_cohort_without_features_is_refused_and_the_other_way_round() -> None:
    for given, missing in (("cohort", "features"), ("features", "cohort")):
        with pytest.raises(ConfigError, match=f"data.{given} is given without data.{missing}, expected both"):
            build.study(config.compose([f"data.{given}=x"]))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.dropout=2", "dropout rate is 2"),
        ("model.heads=none", "ABMIL"),
        ("model._target_=mil.models.abmil.Nothing", "Nothing"),
        ("optimizer.weight_decay=-1", "weight_decay"),
        ("trainer.precision=3-bit", "3-bit"),
        ("trainer.accelerator=abacus", "abacus"),
    ],
)
def test_a_bad_option_of_a_constructor_is_found_before_any_work(word: str, said: str) -> None:
    settings = config.compose(build.prepared([*TINY, word]))
    study = build.study(settings)
    with pytest.raises(ConfigError, match=said) as error:
        build.rehearse(settings, study)
    assert "\n" not in str(error.value)


def test_paths_are_quoted_where_hydra_would_read_them_as_something_else(tmp_path: Path) -> None:
    odd = tmp_path / 'it\'s a=b, "ü"'
    odd.mkdir()
    words = build.prepared([f"data.cohort={odd}", f"hydra.run.dir={odd}/new", "data.features=a,b", "split.folds=3"])
    assert words[0] == f"data.cohort={config.quoted(str(odd))}"
    assert words[1] == f"hydra.run.dir={config.quoted(f'{odd}/new')}"
    assert words[2:] == ["data.features=a,b", "split.folds=3"], "a sweep over two folders stays one"
    assert config.run_folder(words[:2]) == odd / "new"
    assert config.compose(words[:1]).data.cohort == str(odd)
    assert build.prepared(words[:2]) == words[:2], "what is quoted is not quoted again"

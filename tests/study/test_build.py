"""Every choice of conf/ builds, constructor options are accepted, and invalid values are refused."""

import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mil
from mil import config
from mil.bags import Bags
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError, EncoderError
from mil.features.formats import Reading
from mil.features.geometry import Geometry
from mil.study import build
from mil.study.compose import Composed, compose, compose_run, prepare, quoted
from mil.study.pipeline import read_study
from mil.study.rehearsal import rehearse
from tests.conftest import TINY
from tests.features.conftest import random_features, write_stamp

TOOLS, MODELS = config.choices("tool"), config.choices("model")
KINDS = {str(node["tool"]["endpoint"]["_target_"]): name for name, node in config.described("tool").items()}
"""One tool for each endpoint class."""


def refusal_of(*words: str) -> str:
    """Return the one-line message with which these arguments are refused."""
    with pytest.raises(ConfigError) as error:
        compose(list(words))
    assert "\n" not in str(error.value)
    return str(error.value)


@cache
def endpoint_of(tool: str) -> Endpoint:
    return build.endpoint(compose([f"tool={tool}"]))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tool", sorted(KINDS.values()))
def test_every_model_builds_for_every_endpoint(tool: str, model: str) -> None:
    endpoint = endpoint_of(tool)
    network = mil.create_model(model, 8, endpoint.out_dim).eval()
    logits = network(Bags(torch.randn(5, 8), (2, 3), 512 * torch.arange(10).view(5, 2))).logits
    assert logits.shape == (2, endpoint.out_dim)
    assert all(column.shape == (2,) for column in endpoint.decode(logits).values())


def test_model_that_cannot_learn_the_endpoint_is_refused_early() -> None:
    words = [word for word in TINY if not word.startswith(("model.", "simulation.target."))]
    settings = compose([*words, "tool=surv-crc", "model=clam_sb"])
    study = read_study(settings)
    with pytest.raises(ConfigError, match="CLAM: CLAM teaches tiles the classes of their bag, this endpoint has none"):
        rehearse(settings, study)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_simulation_has_the_columns_of_its_tool(tool: str) -> None:
    settings = compose([f"tool={tool}"])
    simulation = build.simulation(settings)
    assert set(simulation.target.columns) == set(build.endpoint(settings).columns)
    target = settings.simulation.options.keywords()["target"]
    targets = list(target.get("targets", {"alone": target}).values())
    assert all(0.5 < each < 1 for target in targets for each in np.ravel(target["attainable"]))


@pytest.mark.parametrize("optimizer", config.choices("optimizer"))
@pytest.mark.parametrize("schedule", config.choices("schedule"))
def test_every_optimizer_and_schedule_builds(optimizer: str, schedule: str) -> None:
    settings = compose([f"optimizer={optimizer}", f"schedule={schedule}"])
    weight = torch.nn.Parameter(torch.ones(1))
    assert build.optimizer(settings)([weight]).param_groups[0]["lr"] == settings.optimizer.options.lr
    assert 0 < build.make(settings.schedule)(0, 10) <= 1


def test_known_encoders_have_widths() -> None:
    widths = {encoder.name: encoder.dim for encoder in build.known_encoders()}
    assert widths["uni"] == 1024
    assert widths["virchow2"] == 2560


def test_constructor_options_absent_from_conf_are_accepted() -> None:
    settings = compose(["model.dropout=0.1", "model=mean", "optimizer.eps=1e-6"])
    assert settings.model.options.keywords() == {"by": "mean", "dropout": 0.1}
    assert settings.optimizer.options.keywords()["eps"] == 1e-6


@pytest.mark.parametrize(
    ("word", "near"),
    [("model.droput=0.1", "model.dropout"), ("model.gatd=true", "model.gated"), ("optimizer.lrr=1", "optimizer.lr")],
)
def test_unknown_option_error_names_the_nearest_one(word: str, near: str) -> None:
    assert f"does not exist, did you mean '{near}'?" in refusal_of(word)


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
        "data.layout=tridnet",
        "data.batch_axis=perhaps",
        "data.batch_axis=null",
        "data.slide_mpp=0",
        "data.slide_mpp=forty",
        "split.folds=1",
        "split.folds=many",
        "split.select=0",
        "split.select=half",
        "resamples=0",
        "seed=-1",
        "seed=null",
    ],
)
def test_value_out_of_range_error_names_the_option(word: str) -> None:
    assert refusal_of(word).startswith(word.partition("=")[0])


@pytest.mark.parametrize("word", ["encoder.mpp=-1", "encoder.tile_px=nan", "+tool.tiles.mpp=0", "+tool.tiles.mpp=x"])
def test_invalid_tile_size_error_names_the_option(word: str) -> None:
    assert refusal_of("encoder=uni", word).startswith(word.partition("=")[0].lstrip("+"))


def test_options_on_files_and_tiles_reach_the_store(tmp_path: Path) -> None:
    write_stamp(tmp_path / "features" / "a.h5", random_features(5, 1024), extractor="uni")
    write_stamp(tmp_path / "features" / "b.h5", random_features(5, 1024), extractor="uni")
    (tmp_path / "cohort.csv").write_text("patient,slide,label\np1,a,0\np2,b.svs,1\n")
    given = ["tool=binary", f"data.cohort={tmp_path}/cohort.csv", f"data.features={tmp_path}/features"]
    with pytest.raises(EncoderError, match=r"encoder=uni encoder.mpp=1.143 accepts it"):
        read_study(compose(given))
    accepted = [*given, "encoder=uni", "encoder.mpp=1.143", "data.slide_mpp=0.25", "data.layout=stamp"]
    store = read_study(compose(accepted)).store
    assert store.reading == Reading("stamp", False, 0.25)
    assert store.geometry == Geometry(256 / 224, 224.0, True, True)
    assert store.header("a").has_coords
    with pytest.raises(EncoderError, match=r"tool 'binary' expects 0.25 .*tool.tiles.mpp=1.143 accepts it"):
        read_study(compose([*accepted, "+tool.tiles.mpp=0.25"]))
    with pytest.raises(ConfigError, match=r"option 'tool.tiles.mppx' does not exist"):
        read_study(compose([*given, "+tool.tiles.mppx=0.25"]))


def test_missing_values_are_asked_for() -> None:
    assert refusal_of("encoder=custom") == "encoder.dim has no value: give encoder.dim=..."
    assert refusal_of("~seed") == "seed has no value: give seed=..."
    assert "nope" in refusal_of("data.cohort='${nope}'")


def test_cohort_and_features_must_be_given_together() -> None:
    for given, missing in (("cohort", "features"), ("features", "cohort")):
        with pytest.raises(ConfigError, match=f"data.{given} is given without data.{missing}, expected both"):
            read_study(compose([f"data.{given}=x"]))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.dropout=2", "dropout rate is 2"),
        ("model.heads=none", "expected a whole number"),
        ("model._target_=mil.models.abmil.Nothing", "Nothing"),
        ("optimizer.weight_decay=-1", "weight_decay"),
        ("trainer.precision=3-bit", "3-bit"),
        ("trainer.accelerator=abacus", "abacus"),
    ],
)
def test_invalid_constructor_options_are_refused_early(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        rehearse(settings := compose([*TINY, word]), read_study(settings))
    assert "\n" not in str(error.value)


def test_paths_with_special_characters_are_quoted_for_hydra(tmp_path: Path) -> None:
    odd = tmp_path / 'it\'s a=b, "ü"'
    odd.mkdir()
    words = prepare([f"data.cohort={odd}", f"hydra.run.dir={odd}/new", "data.features=a,b", "split.folds=3"])
    assert words[0] == f"++data.cohort={quoted(str(odd))}"
    assert words[1] == f"hydra.run.dir={quoted(f'{odd}/new')}"
    assert words[2:] == ["++data.features=a,b", "++split.folds=3"], "a comma still makes a sweep over two folders"
    assert compose_run(words[:2]) == Composed(compose(words[:2]), odd / "new")
    assert compose(words[:1]).data.cohort == str(odd)
    assert prepare(words[:2]) == words[:2], "quoted words are not quoted again"


@pytest.mark.parametrize("name", MODELS)
def test_create_model_builds_the_same_model_as_the_command_line(name: str) -> None:
    torch.manual_seed(0)
    bare = mil.create_model(name, in_dim=6, out_dim=2)
    torch.manual_seed(0)
    built = build.model(compose([f"model={name}"]), 6, 2)
    assert type(bare) is type(built)
    assert {key: value.tolist() for key, value in bare.state_dict().items()} == {
        key: value.tolist() for key, value in built.state_dict().items()
    }


def test_the_example_of_create_model_works_as_it_is_written() -> None:
    example = str(mil.create_model.__doc__).partition("\n\n")[2].partition("    Args:")[0]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(example), names)
    assert names["output"].logits.shape == (2, 2)


def test_create_model_accepts_constructor_options() -> None:
    assert mil.create_model("abmil_multihead", 6, 2, heads=3, embed_dim=5).get_parameter("head.weight").shape == (2, 15)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'hedas'"):
        mil.create_model("abmil", 6, 2, hedas=3)
    with pytest.raises(ConfigError, match="model 'abmill' does not exist, did you mean 'abmil'\\?; there is abmil, "):
        mil.create_model("abmill", 6, 2)


@pytest.mark.parametrize(
    ("words", "column"),
    [
        (["tool=regression", "tool.endpoint.column=fold"], "fold"),
        (["tool=binary", "tool.endpoint.column=role"], "role"),
        (["tool=binary", "tool.endpoint.column=p_1"], "p_1"),
        (["tool=survival", "tool.endpoint.time=log_hazard"], "log_hazard"),
        (["tool=survival", "tool.endpoint.event=risk_1y", "tool.endpoint.horizons={1y: 12}"], "risk_1y"),
        (["tool=several", "tool.endpoint.endpoints.class.column=value"], "value"),
    ],
)
def test_target_named_like_a_prediction_column_is_refused(words: list[str], column: str) -> None:
    with pytest.raises(ConfigError, match=f"column '{column}' is one of the predictions' own") as error:
        build.endpoint(compose(words))
    assert "\n" not in str(error.value)


def test_cox_needs_larger_batches_or_the_whole_cohort() -> None:
    words = [word for word in TINY if not word.startswith(("data.batch_bags", "simulation.target."))]
    words = [*words, "tool=survival", "data.batch_bags=1"]
    settings = compose(words)
    study = read_study(settings)
    with pytest.raises(ConfigError, match=r"expected data.batch_bags=16 or data.whole_cohort=true"):
        rehearse(settings, study)
    settings = settings.replaced({"data.whole_cohort": True})
    rehearse(settings, study)
    settings = settings.replaced({"trainer.accumulate_grad_batches": 2})
    with pytest.raises(ConfigError, match=r"trainer.accumulate_grad_batches=2: .*, expected 1"):
        rehearse(settings, study)


@pytest.mark.parametrize("model", ["dsmil", "acmil", "dtfd", "abmil_aem"])
def test_whole_cohort_refuses_models_with_their_own_loss(model: str) -> None:
    words = [word for word in TINY if not word.startswith(("model.", "simulation.target."))]
    settings = compose([*words, "tool=survival", f"model={model}", "data.whole_cohort=true"])
    with pytest.raises(ConfigError, match=r"mil.models.*has a loss of its own beside the endpoint's"):
        rehearse(settings, read_study(settings))


def test_decoder_has_one_query_group_per_endpoint() -> None:
    settings = compose(["tool=several", "model=decoder"])
    endpoint = build.endpoint(settings)
    assert build.sizes(settings, 8, endpoint) == {"in_dim": 8, "out_dim": 3, "groups": [1, 1, 1]}
    assert "groups" not in build.sizes(compose(["tool=several"]), 8, endpoint)
    classes = {"_target_": "mil.endpoints.classification.Multiclass", "classes": ["a", "b", "c"]}
    settings = settings.replaced({"tool.endpoint.endpoints.class": classes})
    network = build.network(settings, 8, build.endpoint(settings))
    assert network.groups == (3, 1, 1)


@pytest.mark.parametrize(
    ("covariates", "refusal"),
    [
        ("{numeric: [age], sorts: {}}", "option 'tool.covariates.sorts' does not exist"),
        ("{numeric: [age], fusion: early}", "tool.covariates.fusion=early, expected late or gated"),
        ("{numeric: [age, age]}", "expected one or more different ones"),
        ("{categorical: {sex: [F, f]}}", "covariate sex: levels"),
        ("{numeric: [MSI]}", "column 'MSI' is what is to be predicted"),
    ],
)
def test_invalid_covariates_are_refused(covariates: str, refusal: str) -> None:
    with pytest.raises(ConfigError, match=refusal) as error:
        read_study(compose([*TINY, f"+tool.covariates={covariates}"]))
    assert "\n" not in str(error.value)


def test_unknown_attribute_of_the_package_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'mil' has no attribute 'create_modle'"):
        mil.__getattr__("create_modle")


@pytest.mark.parametrize(
    "word",
    ["data.labels.Status={'a: b': x}", 'data.labels={"ER Status": {strong: yes}}', "data.labels.ER Status={a: b}"],
)
def test_labels_that_no_command_line_can_hold_are_said_to_go_into_a_file(word: str) -> None:
    with pytest.raises(
        ConfigError, match=r"write it to a file labels\.yaml .* give data\.labels=labels\.yaml"
    ) as caught:
        compose([word])
    assert "\n" not in str(caught.value)


def test_the_line_that_the_message_shows_for_labels_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text('"ER Status": {"positive: strong": positive, "0%": negative}\n')
    labels = compose([f"data.labels={path}"]).data.labels
    assert labels == {"ER Status": {"positive: strong": "positive", "0%": "negative"}}


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_plus_before_what_exists_changes_nothing(plus: str) -> None:
    config = compose([f"{plus}model=transmil", f"{plus}seed=7", f"{plus}data.cohort=20240501"])
    assert config.model.target.endswith("TransMIL")
    assert (config.seed, config.data.cohort) == (7, "20240501")

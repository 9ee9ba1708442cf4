"""Every file of conf/ composes, later options override earlier ones, and invalid ones are refused by name."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil import config
from mil.errors import ConfigError
from mil.study import build
from mil.study.compose import compose, quoted, to_yaml

FILES = sorted(
    path.relative_to(config.conf_dir())
    for path in config.conf_dir().glob("*/*.yaml")
    if path.parent.name not in config.OF_OTHER_COMMANDS
)
GIVEN = {"encoder=custom": ["encoder.name=ours", "encoder.dim=8"]}
TOOL = """# @package _global_
defaults:
  - override /model: max
tool:
  name: ours
  version: 1.0.0
  title: Ours
  category: custom
  question: Ours?
  endpoint:
    _target_: mil.endpoints.classification.Binary
    column: ER
  decision: null
resamples: 11
trainer:
  max_epochs: 11
seed: 11
"""
EXPERIMENT = """# @package _global_
trainer:
  max_epochs: 22
seed: 22
"""


@pytest.fixture
def user_conf(tmp_path: Path) -> Path:
    """Return a user's folder of choices whose name needs quoting in a shell."""
    folder = tmp_path / "my conf, ='1'"
    for group, text in (("tool", TOOL), ("experiment", EXPERIMENT)):
        (folder / group).mkdir(parents=True)
        (folder / group / "ours.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_yaml_composes_and_resolves(path: Path) -> None:
    word = f"{path.parent}={path.stem}"
    composed = compose([word, *GIVEN.get(word, [])])
    assert "${" not in to_yaml(composed)


def test_the_choices_of_a_group_are_its_files() -> None:
    assert "abmil_gated" in config.choices("model")
    assert {"tool", "model", "encoder", "split"} <= set(config.groups())
    assert [f"{group}/{name}.yaml" for group in config.groups() for name in config.choices(group)] == list(
        map(str, FILES)
    )


def test_experiment_overrides_tool_and_command_line_overrides_both(user_conf: Path) -> None:
    def values(*words: str) -> tuple[int, int, int]:
        composed = compose(words, user_conf)
        return composed.resamples, composed.trainer.options.max_epochs, composed.seed

    assert values() == (2000, 20, 0)
    assert values("tool=ours") == (11, 11, 11)
    assert values("tool=ours", "experiment=ours") == (11, 22, 22)
    assert values("seed=33", "experiment=ours", "tool=ours") == (11, 22, 33)
    assert compose(["tool=ours"], user_conf).model.target.endswith("Pooling"), "a tool may choose its model"
    assert compose(["tool=ours", "model=abmil"], user_conf).model.target.endswith("ABMIL")
    assert "ours" in config.choices("tool", user_conf)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("modle=abmil", "option 'modle' does not exist, did you mean 'model'?"),
        ("data.cohrt=x", "option 'data.cohrt' does not exist, did you mean 'data.cohort'?"),
        ("model=abmill", "model=abmill does not exist, did you mean 'abmil'?"),
        ("tool=msi", "tool=msi does not exist, did you mean 'msi-crc'?"),
        ("encoder=UNI", "encoder=UNI does not exist, did you mean 'uni'?"),
        ("encoder=UNI2-h", "encoder=UNI2-h does not exist, did you mean 'uni2'?"),
        ("encoder=CONCH_v1_5", "encoder=CONCH_v1_5 does not exist, did you mean 'conch_v15'?"),
        ("model=ABMIL", "model=ABMIL does not exist, did you mean 'abmil'?"),
        ("split=k-fold", "split=k-fold does not exist, did you mean 'kfold'?"),
        ("xyz=1", "option 'xyz' does not exist"),
        ("tool.titel=x", "did you mean 'tool.title'?; +tool.titel=... adds a key of your own"),
        (
            "tool.endpoint.clases=[a,b]",
            "option 'tool.endpoint.clases' does not exist, did you mean 'tool.endpoint.classes'?",
        ),
        ("simulation.patint=3", "option 'simulation.patint' does not exist, did you mean 'simulation.patients'?"),
        ("callbacks.early_stopping.patince=3", "did you mean 'callbacks.early_stopping.patience'?"),
        ("nonsense", "nonsense"),
        ("model.dropout=[", "model.dropout=[: cannot be read"),
    ],
)
def test_invalid_option_error_names_the_nearest_one(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose([word])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_invalid_choice_error_lists_all_choices() -> None:
    with pytest.raises(ConfigError, match=f"there is {', '.join(config.choices('model'))}"):
        compose(["model=perceiver"])


@settings(deadline=None, max_examples=15)
@given(st.text(st.sampled_from("a/ ,='\"ü\\()[]{}:;#%&*-+~é日"), min_size=1, max_size=12))
def test_quoted_paths_are_unchanged(path: str) -> None:
    assert compose([f"data.cohort={quoted(path)}"]).data.cohort == path


@pytest.mark.parametrize("path", ["20240501", "007", "1e5", "true", "a b", "no"])
def test_a_path_that_looks_like_a_value_is_text(path: str) -> None:
    config = compose([f"data.features={path}", f"data.cohort={path}"])
    assert config.data.features == config.data.cohort == path


def test_a_path_below_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose(["data.features=~/features"]).data.features == f"{tmp_path}/features"
    assert compose(["data.slides=null"]).data.slides is None


def test_columns_named_by_numbers_are_text() -> None:
    config = compose(["data.columns.patient=1", "data.covariates=2024", "tool=binary", "tool.endpoint.column=2024"])
    assert config.data.columns.patient == "1"
    assert config.data.covariates == ["2024"]
    assert build.endpoint(config).columns == ("2024",)
    nested = compose(["tool=several", "tool.endpoint.endpoints.outcome.time=5"])
    assert "5" in build.endpoint(nested).columns


def test_the_meaning_of_words_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text("MSI status:\n  'high: yes': MSI-H\n  \"it's low\": MSS\n  0: null\n")
    labels = compose([f"data.labels={path}"]).data.labels
    assert labels == {"MSI status": {"high: yes": "MSI-H", "it's low": "MSS", 0: None}}


@pytest.mark.parametrize("words", ["data.labels.label=pos", "data.labels=3"])
def test_labels_that_are_no_mapping_are_refused_with_an_example(words: str) -> None:
    with pytest.raises(ConfigError, match=r"^data.labels=.*, expected words by column, such as data.labels.MSI="):
        compose([words])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.cohort=[a,b]", "data.cohort=['a', 'b'], expected one text or path, not a list"),
        ("data.cohort={a: b}", "data.cohort={'a': 'b'}, expected text"),
        ("data.cohort=a.csv,b.csv", "several values; a list is 'data.cohort=[a.csv,b.csv]'"),
        ("data.covariates=sex,age", "several values; a list is 'data.covariates=[sex,age]'"),
        ("model=abmil,mean", "several choices, expected one"),
        ("data.cohort=", "data.cohort=: has no value; data.cohort=null stands for none"),
        ("data.cohort", "data.cohort: has no value, expected data.cohort=VALUE"),
        ("--foo", "option '--foo' does not exist"),
        ("~data.slide_mpp", "~data.slide_mpp: is not set, or there is no such option"),
        ("~data.nothing", "~data.nothing: is not set, or there is no such option"),
        ("~model", "model has no value"),
        ("data.columns=patient", "data.columns=patient, expected names with values"),
        ("tool.endpoint.column=[label]", "tool.endpoint.column=['label'], expected text"),
        ("tool.endpoint.column=null", "tool.endpoint.column=null, expected text"),
        ("tool.endpoint.classes=none", "tool.endpoint.classes=none, expected a list such as [a,b]"),
        ("tool.endpoint.classes=5", "tool.endpoint.classes=5, expected a list such as [a,b]"),
        ("tool.endpoint.gamma=abc", "tool.endpoint.gamma=abc, expected a number"),
        ("model.dropout=[0.1,0.2]", "model.dropout=[0.1, 0.2], expected a number"),
        ("tool.endpoint.classes=[N0,", "put single quotes round the word in the shell"),
        ("data.labels=labels.yaml", "labels.yaml: cannot be read: No such file or directory"),
    ],
)
def test_words_of_another_kind_are_refused_in_the_words_of_the_command(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["tool=binary", word])
    assert message in str(refused.value)
    assert "http" not in str(refused.value)


def test_a_word_where_horizons_are_expected_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tool\.endpoint\.horizons=60, expected names with values, such as"):
        compose(["tool=survival", "tool.endpoint.horizons=60"])


@pytest.mark.parametrize("name", ["1e3", "true", "2024.0", "Status (IHC): ER", "Age, years", "no", "007"])
def test_names_of_columns_stay_as_they_are_typed(name: str) -> None:
    config = compose(["tool=binary", f"tool.endpoint.column={name}", f"data.columns.patient={name}"])
    assert build.endpoint(config).columns == (name,)
    assert config.data.columns.patient == name


@pytest.mark.parametrize(
    ("word", "classes"),
    [("[null,nan]", ("null", "nan")), ("[1e3, 007]", ("1e3", "007")), ("[FALSE,TRUE]", ("FALSE", "TRUE"))],
)
def test_classes_stay_as_they_are_typed(word: str, classes: tuple[str, str]) -> None:
    assert build.endpoint(compose(["tool=binary", f"tool.endpoint.classes={word}"])).classes == classes


def test_a_single_name_is_a_list_of_one_and_null_an_empty_one() -> None:
    config = compose(["+tool.covariates.numeric=2024", "data.covariates=null", "data.labels=null"])
    assert config.tool.covariates is not None
    assert config.tool.covariates.numeric == ["2024"]
    assert (config.data.covariates, config.data.labels) == ([], {})
    assert compose(["tool.novelty=null"]).tool.novelty is None, "an option of tools needs no plus"

"""From Python a tool is loaded by name, and scores of arrays are those of the same features in files."""

import doctest
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mil
from mil import checkpoint
from mil.errors import CohortError, ConfigError, FeatureError
from mil.features.store import FeatureStore
from mil.inference.predict import predict
from mil.inference.provenance import with_origin
from mil.zoo import predictor, registry
from tests.checkpoints import with_covariates


@pytest.fixture
def zoo(real_release: Path) -> Path:
    """A folder of released tools with one in it."""
    return real_release.parent


@pytest.fixture
def tool(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> predictor.Predictor:
    monkeypatch.setattr(registry, "built_in", lambda: zoo)
    return mil.load("msi-crc")


def test_a_tool_is_loaded_by_name_version_or_folder(tool: predictor.Predictor, zoo: Path) -> None:
    for name in ("msi-crc@1.0.0", zoo / "msi-crc", str(zoo / "msi-crc")):
        assert mil.load(name).manifest == tool.manifest
    assert repr(tool) == "<msi-crc 1.0.0: 16 features a tile of simulated>"
    assert tool.card.startswith("---\n")
    assert tool.manifest.tool.version == "1.0.0"
    with pytest.raises(ConfigError, match="neither a checkpoint folder nor a released tool"):
        mil.load("no-such-tool")


def test_arrays_score_as_files_do(tool: predictor.Predictor, hospital: Path) -> None:
    store = FeatureStore(hospital / "features", tool.checkpoint.encoder)
    read = [store.read(slide) for slide in store.slides[:3]]
    files = tool.predict_files(hospital / "features").set_index("slide").loc[store.slides[:3]].reset_index(drop=True)
    features, coords = [bag.features.numpy() for bag in read], [bag.coords for bag in read]
    predictions = tool.predict(features, [place for place in coords if place is not None])
    assert predictions["bag"].tolist() == [0, 1, 2]
    scores = [name for name in files if name != "withheld"]
    pd.testing.assert_frame_equal(predictions[scores], files[scores], check_exact=True)
    single = tool.predict(torch.from_numpy(features[1]))
    pd.testing.assert_frame_equal(
        single[scores], predictions[scores].iloc[[1]].reset_index(drop=True), check_exact=True
    )


def test_a_cohort_of_files_is_scored_by_patient(tool: predictor.Predictor, hospital: Path) -> None:
    predictions = tool.predict_files(str(hospital / "features"), str(hospital / "cohort.csv"))
    expected = with_origin(predict(tool.checkpoint, hospital / "features", hospital / "cohort.csv"), [tool.checkpoint])
    pd.testing.assert_frame_equal(predictions, expected, check_exact=True)


@pytest.mark.parametrize(
    ("features", "coords", "message"),
    [
        (np.zeros((3, 5)), None, r"bag 0: features are \(3, 5\), expected \(n, 16\)"),
        (np.zeros((0, 16)), None, r"bag 0: features are \(0, 16\)"),
        (np.zeros(16), None, r"bag 0: features are \(16,\)"),
        ([np.zeros((3, 16)), np.full((2, 16), np.nan)], None, "bag 1: features are not finite"),
        (np.zeros((3, 16)), np.zeros((2, 2)), r"bag 0: coords are \(2, 2\), expected \(3, 2\)"),
        ([np.zeros((3, 16))] * 2, np.zeros((3, 2)), "coords of 1 bags, expected 2"),
    ],
)
def test_arrays_that_are_no_bags_are_refused(
    features: predictor.Arrays, coords: predictor.Arrays | None, message: str, tool: predictor.Predictor
) -> None:
    with pytest.raises(FeatureError, match=message):
        tool.predict(features, coords)


def test_covariates_are_asked_for_by_name_and_change_the_score(tmp_path: Path) -> None:
    folder, *_ = with_covariates(tmp_path / "checkpoint")
    tool, tiles = mil.load(folder), np.ones((3, 8))
    clinic = pd.DataFrame({"sex": ["F", "M", None], "age": [50, np.nan, 70]})
    predictions = tool.predict([tiles] * 3, covariates=clinic)
    assert predictions.drop(columns=["bag", "tiles", "tool", "version", "simulated"]).iloc[:, 0].nunique() == 3
    alone = tool.predict(tiles, covariates=clinic.iloc[[1]])
    assert alone.drop(columns="bag").iloc[0].equals(predictions.drop(columns="bag").iloc[1])
    for table in (None, clinic, clinic[["age"]].iloc[:1]):
        with pytest.raises(CohortError, match="expected 1 rows of age, sex"):
            tool.predict(tiles, covariates=table)


def test_the_documented_example_runs(tool: predictor.Predictor) -> None:
    example = doctest.DocTestParser().get_examples(predictor.Predictor.__doc__ or "")
    variables: dict[str, object] = {}
    *before, last = [line.source for line in example]
    for line in before:
        exec(line, variables)  # our own docstring
    predictions = eval(last, variables)  # the same
    assert isinstance(predictions, pd.DataFrame)
    assert len(predictions) == 1
    assert checkpoint.WEIGHTS in tool.manifest.files

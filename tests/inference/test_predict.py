"""A checkpoint scores slides in a fresh process exactly as the run did, and writes attention per tile."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import h5py
import pandas as pd
import pytest
import torch

from mil import checkpoint, files
from mil.errors import FeatureError, ResourceError
from mil.explain.explain_patients import explain_patients
from mil.features import batches
from mil.features.batches import BagDataset
from mil.features.formats import Reading
from mil.inference import room
from mil.inference.forward import decoded
from mil.inference.predict import predict
from mil.report.prediction_files import read
from tests.conftest import HOSPITAL, Mil, run_quietly
from tests.features.conftest import grid, random_features, write_trident
from tests.models.endpoints import ENDPOINTS

SCORE = "p_MSI-H"


def slide_table(hospital: Path) -> pd.DataFrame:
    return pd.read_csv(hospital / "cohort.csv", dtype=str)


def test_fresh_process_reproduces_the_run_bit_for_bit(real_run: Path, hospital: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    words = ["--features", hospital / "features", "--cohort", hospital / "cohort.csv", "--out", out]
    command = [sys.executable, "-m", "mil", "predict", real_run / "checkpoint", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, str(out)), done.stderr
    predictions = read(out).set_index("patient")
    run_predictions = read(real_run / "predictions.csv").set_index("patient")
    assert len(slide_table(hospital)) > len(predictions) == len(run_predictions), "some patients have several slides"
    assert predictions[SCORE].to_dict() == run_predictions[SCORE].to_dict()


@pytest.mark.parametrize("name", ENDPOINTS)
def test_scores_do_not_depend_on_other_patients_in_the_table(name: str) -> None:
    endpoint, _ = ENDPOINTS[name]
    logits = torch.randn(41, endpoint.out_dim, generator=torch.Generator().manual_seed(0))
    together, parts = decoded(endpoint, logits), [decoded(endpoint, rows) for rows in torch.split(logits, 7)]
    for column, values in together.items():
        assert values.tolist() == [value for part in parts for value in part[column]]


def test_survival_checkpoint_reproduces_the_run(surv_run: Path, mil: Mil, tmp_path: Path) -> None:
    from mil.study.compose import read_config
    from mil.study.pipeline import read_study

    cohort = read_study(read_config(surv_run / "config.yaml")).source
    words = ["--cohort", cohort, "--features", cohort.parent / "features", "--out", tmp_path / "scores.csv"]
    assert mil("predict", surv_run / "fold_1" / "checkpoint", *words).code == 0
    predictions = read(tmp_path / "scores.csv").set_index("patient")
    run_predictions = read(surv_run / "fold_1" / "predictions.csv").set_index("patient")
    for column in ("log_hazard", "risk_3y", "risk_5y"):
        assert predictions[column].to_dict() == run_predictions[column].to_dict()
    assert (predictions["risk_5y"] >= predictions["risk_3y"]).all()


def test_every_slide_is_scored_alone_without_a_cohort(real_run: Path, hospital: Path, mil: Mil, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "scores.csv"
    assert mil("predict", real_run / "checkpoint", "--features", hospital / "features", "--out", out).code == 0
    predictions = pd.read_csv(out, dtype={"slide": str}, float_precision="round_trip").set_index("slide")
    table = slide_table(hospital)
    assert sorted(predictions.index) == sorted(table["slide"])
    run_scores = read(real_run / "predictions.csv").set_index("patient")[SCORE]
    single_slides = table[~table["patient"].duplicated(keep=False)]
    assert len(single_slides) > 3
    assert predictions.loc[single_slides["slide"], SCORE].tolist() == run_scores[single_slides["patient"]].tolist()


def test_tile_tables_hold_attention_that_sums_to_one_per_bag(
    real_run: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    words = ["--features", hospital / "features", "--cohort", hospital / "cohort.csv", "--out", tmp_path / "s.csv"]
    assert mil("predict", real_run / "checkpoint", *words, "--tiles", tmp_path / "tiles").code == 0
    table = slide_table(hospital)
    tiles = {slide: pd.read_csv(tmp_path / "tiles" / f"{slide}.csv") for slide in table["slide"]}
    for slide, tile_table in tiles.items():
        assert list(tile_table) == ["x", "y", "attention"]
        placed = pd.read_csv(hospital / "phenotypes" / f"{slide}.csv")
        assert tile_table[["x", "y"]].equals(placed[["x", "y"]])
        assert (tile_table["attention"] > 0).all()
    for _, patient_slides in table.groupby("patient"):
        assert sum(tiles[slide]["attention"].sum() for slide in patient_slides["slide"]) == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def mean_run(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of mean pooling, trained on all patients with one bag per slide."""
    words = [word for word in HOSPITAL if not word.startswith("model.")]
    given = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features"]
    folder = tmp_path_factory.mktemp("mean") / "run"
    chosen = ["model=mean", "split=none", "data.bag=slide"]
    return run_quietly("train", *words, *given, *chosen, f"hydra.run.dir={folder}")


def test_tile_tables_of_a_model_without_attention_are_refused(
    mean_run: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    words = ["--features", hospital / "features", "--out", tmp_path / "s.csv", "--tiles", tmp_path / "tiles"]
    result = mil("predict", mean_run / "checkpoint", *words)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "Pooling has no attention" in result.err
    assert not (tmp_path / "s.csv").exists()
    assert not (tmp_path / "tiles").exists()


def test_run_without_report_patients_still_predicts(mean_run: Path, hospital: Path, mil: Mil, tmp_path: Path) -> None:
    assert files.read_json(mean_run / "report.json")["metrics"] == {}
    assert "no patient was held back" in (mean_run / "checkpoint" / "README.md").read_text()
    words = ["--features", hospital / "features", "--cohort", hospital / "cohort.csv", "--out", tmp_path / "s.csv"]
    assert mil("predict", mean_run / "checkpoint", *words).code == 0
    run_predictions = read(mean_run / "predictions.csv").set_index("patient")
    assert read(tmp_path / "s.csv").set_index("patient")[SCORE].to_dict() == run_predictions[SCORE].to_dict(), (
        "means over slides"
    )


def test_features_of_another_encoder_or_width_are_refused(real_run: Path, mil: Mil, tmp_path: Path) -> None:
    for name, width, message in (("uni", 16, "'uni'"), ("simulated", 24, "24 wide")):
        folder = tmp_path / name
        write_trident(folder / "a.h5", random_features(5, width), encoder=name)
        result = mil("predict", real_run / "checkpoint", "--features", folder, "--out", tmp_path / "s.csv")
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert message in result.err
        assert "simulated" in result.err
    assert not (tmp_path / "s.csv").exists()


def test_features_of_tiles_of_another_size_are_refused(real_run: Path, mil: Mil, tmp_path: Path) -> None:
    recorded = files.read_json(real_run / "checkpoint" / "manifest.json")["data"]["geometry"]
    assert recorded == {"mpp": 0.5, "tile_px": 256.0, "mpp_verified": True, "tile_px_verified": True}
    path = write_trident(tmp_path / "features" / "a.h5", random_features(5, 16), encoder="simulated")
    words = ["--features", path.parent, "--out", tmp_path / "s.csv"]
    for name, value, message in (("target_magnification", 40, "mpp 0.25"), ("patch_size", 512, "tile_px 512")):
        with h5py.File(path, "r+") as file:
            before = file["coords"].attrs[name]
            file["coords"].attrs[name] = value
        result = mil("predict", real_run / "checkpoint", *words)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert f"{message}, the checkpoint of msi-crc expects" in result.err
        with h5py.File(path, "r+") as file:
            file["coords"].attrs[name] = before
    assert mil("predict", real_run / "checkpoint", *words).code == 0


def test_files_are_read_as_in_training_by_default(real_run: Path, tmp_path: Path) -> None:
    write_trident(tmp_path / "a.h5", random_features(5, 16)[None], grid(5)[None], encoder="simulated")
    loaded = checkpoint.load(real_run / "checkpoint")
    assert loaded.reading == Reading()
    with pytest.raises(FeatureError, match=r"batch_axis=true"):
        predict(loaded, tmp_path)
    with_option = predict(loaded, tmp_path, reading=Reading(batch_axis=True))
    recorded = predict(dataclasses.replace(loaded, reading=Reading(batch_axis=True)), tmp_path)
    pd.testing.assert_frame_equal(with_option, recorded)


def test_missing_features_and_a_modified_checkpoint_are_refused(
    real_run: Path, hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    cohort = tmp_path / "cohort.csv"
    named = slide_table(hospital)[["patient", "slide"]]
    pd.concat([named, pd.DataFrame({"patient": ["p9"], "slide": ["s999"]})]).to_csv(cohort, index=False)
    words = ["--features", hospital / "features", "--out", tmp_path / "s.csv"]
    result = mil("predict", real_run / "checkpoint", *words, "--cohort", cohort)
    assert result.code == 2
    assert "'s999'" in result.err
    modified = shutil.copytree(real_run / "checkpoint", tmp_path / "modified")
    (modified / "README.md").write_text("All is well.")
    result = mil("predict", modified, *words)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "README.md is not the file" in result.err
    assert not (tmp_path / "s.csv").exists()


@pytest.fixture
def damaged(hospital: Path, tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """A copy of the cohort in which one slide has a NaN, one is missing and one is empty: table, features, slides."""
    shutil.copytree(hospital / "features", tmp_path / "features")
    table = slide_table(hospital).drop_duplicates("patient").head(8)
    table.to_csv(tmp_path / "cohort.csv", index=False)
    bad = sorted(table["slide"])[:3]
    paths = [next((tmp_path / "features").rglob(f"{slide}*.h5")) for slide in bad]
    with h5py.File(paths[0], "r+") as file:
        file["features"][..., 0, 0] = float("nan")
    paths[1].unlink()
    paths[2].write_bytes(b"")
    return tmp_path / "cohort.csv", tmp_path / "features", bad


def test_bad_slides_are_an_error_that_names_the_option_or_are_skipped_and_named(
    real_run: Path, damaged: tuple[Path, Path, list[str]], tmp_path: Path, mil: Mil
) -> None:
    cohort, features, bad = damaged
    words = ["predict", real_run / "checkpoint", "--features", features, "--cohort", cohort, "--out"]
    refused = mil(*words, tmp_path / "a.csv")
    assert refused.code == 2
    assert "--on-bad skip" in refused.err
    assert not (tmp_path / "a.csv").exists()
    skipped = mil(*words, tmp_path / "b.csv", "--on-bad", "skip")
    assert skipped.code == 0, skipped.err
    assert "3 of 8 slides cannot be used and are left out, and with them 3 patients" in skipped.err
    assert all(repr(slide) in skipped.err for slide in bad)
    table = read(tmp_path / "b.csv").set_index("patient")
    without = table[table["skipped"] != ""]
    assert len(table) == 8
    assert sorted(reason.partition(":")[0] for reason in without["skipped"]) == bad
    assert (without["tiles"] == 0).all()
    assert (without[["call", SCORE]] == "").all(axis=None)
    alone = read(real_run / "predictions.csv").set_index("patient")
    rest = table.drop(without.index)
    assert rest[SCORE].astype(float).between(0, 1).all()
    assert set(rest.index) < set(alone.index)


def test_a_patient_is_predicted_by_the_slides_that_are_left(real_run: Path, hospital: Path, tmp_path: Path) -> None:
    loaded = checkpoint.load(real_run / "checkpoint")
    table = slide_table(hospital)
    patient = table["patient"].value_counts().index[0]
    table[table["patient"] == patient].to_csv(tmp_path / "whole.csv", index=False)
    extra = pd.DataFrame({"patient": [patient], "slide": ["NOPE"]})
    pd.concat([table[table["patient"] == patient], extra]).fillna("").to_csv(tmp_path / "more.csv", index=False)
    whole = predict(loaded, hospital / "features", tmp_path / "whole.csv")
    with_missing = predict(loaded, hospital / "features", tmp_path / "more.csv", on_bad="skip")
    assert with_missing[SCORE].tolist() == whole[SCORE].tolist()
    assert with_missing["skipped"].tolist() == ["NOPE: no feature file"]


def test_where_no_slide_is_left_nothing_is_written(real_run: Path, hospital: Path, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "a.h5").write_bytes(b"")
    with pytest.raises(FeatureError, match="none of 1 slides can be used"):
        predict(checkpoint.load(real_run / "checkpoint"), tmp_path / "features", on_bad="skip")


def test_evaluation_elsewhere_skips_bad_slides_and_lists_them(
    real_run: Path, hospital: Path, tmp_path: Path, mil: Mil
) -> None:
    table = slide_table(hospital)
    single = table[~table["patient"].duplicated(keep=False)]
    gone = single["slide"].iloc[0]
    shutil.copytree(hospital / "features", tmp_path / "features")
    next((tmp_path / "features").rglob(f"{gone}*.h5")).unlink()
    words = ["evaluate", real_run / "checkpoint", "--cohort", hospital / "cohort.csv", "--features"]
    more = ["--out", tmp_path / "out", "--resamples", "20"]
    assert "--on-bad skip" in mil(*words, tmp_path / "features", *more).err
    done = mil(*words, tmp_path / "features", *more, "--on-bad", "skip")
    assert done.code == 0, done.err
    assert "skipped: 1 patients with slides that cannot be used, 1 of them have no result" in done.out
    assert pd.read_csv(tmp_path / "out" / "skipped.csv")["skipped"].tolist() == [f"{gone}: no feature file"]
    assert len(read(tmp_path / "out" / "predictions.csv")) == table["patient"].nunique() - 1


def test_tables_of_tiles_stay_in_their_folder_whatever_the_slides_are_called(
    real_run: Path, hospital: Path, tmp_path: Path
) -> None:
    source = next((hospital / "features").rglob("*.h5"))
    (tmp_path / "features").mkdir()
    for name in ("=1+1", "con"):
        shutil.copy(source, tmp_path / "features" / f"{name}.h5")
    table = predict(checkpoint.load(real_run / "checkpoint"), tmp_path / "features", tiles=tmp_path / "tiles")
    assert sorted(table["slide"]) == ["=1+1", "con"]
    assert {path.name for path in (tmp_path / "tiles").iterdir()} == {
        "=1+1.csv",
        "%63on.csv",
        "origin.json",
    }


def test_large_bags_are_predicted_and_explained_in_pieces_as_whole(
    real_run: Path, hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = checkpoint.load(real_run / "checkpoint")
    where = (hospital / "features", hospital / "cohort.csv")
    whole, whole_maps = predict(loaded, *where), list(explain_patients([loaded], *where))
    monkeypatch.setattr(batches, "LARGE_BYTES", 0)
    monkeypatch.setattr(BagDataset, "read_in_pieces", opened := mock.Mock(wraps=BagDataset.read_in_pieces))
    monkeypatch.setattr(BagDataset, "read_in_pieces", lambda data, bag: opened(data, bag))
    in_pieces, maps = predict(loaded, *where), list(explain_patients([loaded], *where))
    assert opened.call_count == 2 * len(whole), "each patient in both"
    pd.testing.assert_frame_equal(in_pieces, whole, rtol=1e-5, atol=1e-5)
    for patient, expected in zip(maps, whole_maps, strict=True):
        pd.testing.assert_frame_equal(patient.frame(), expected.frame(), rtol=1e-5, atol=1e-5)


def test_only_as_many_tiles_are_read_as_the_user_says(real_run: Path, hospital: Path, mil: Mil, tmp_path: Path) -> None:
    words = ["predict", real_run / "checkpoint", "--features", hospital / "features", "--out", tmp_path / "scores.csv"]
    assert mil(*words, "--max-tiles", "7").code == 0
    assert read(tmp_path / "scores.csv")["tiles"].tolist() == [7] * len(slide_table(hospital))
    ended = mil(*words, "--max-tiles", "7", "--tiles", tmp_path / "tiles")
    assert (ended.code, "max_tiles=7 with tables of all tiles" in ended.err) == (2, True)
    assert mil(*words, "--max-tiles", "-1").code == 2


def test_a_bag_that_a_quadratic_model_has_no_room_for_is_refused(
    real_run: Path, hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = checkpoint.load(real_run / "checkpoint")
    monkeypatch.setattr(type(loaded.model), "in_pieces", False)
    monkeypatch.setattr(batches, "LARGE_BYTES", 0)
    monkeypatch.setattr(room, "free_bytes", lambda: 1000.0)
    refusal = r"^slides \S+ \(\d+ tiles, \d+ wide\): \w+ would need about .* GiB.* --max-tiles N reads N tiles"
    with pytest.raises(ResourceError, match=refusal):
        predict(loaded, hospital / "features")
    with pytest.raises(ResourceError, match="would need about"):
        list(explain_patients([loaded], hospital / "features"))
    assert len(predict(loaded, hospital / "features", max_tiles=5)) == len(slide_table(hospital))
    assert len(predict(loaded, hospital / "features", max_tiles=0)) == len(slide_table(hospital))

"""Explanations of a checkpoint's predictions from feature files, alone and as an ensemble, and of a run's patients."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil import checkpoint, files
from mil.errors import CohortError, ConfigError
from mil.explain.explain_patients import Request, explain_patients, explained_model, read_bags
from mil.explain.measure_faithfulness import FaithfulnessMeter
from mil.explain.methods import MethodOptions
from mil.explain.reference_tile import GIVEN, TRAINING, mean_of_bags, reference_of
from mil.fitted.novelty import unpacked
from mil.inference.predict import predict
from mil.runs.faithfulness_run import run_faithfulness, telling_tiles
from mil.runs.run import open_run
from mil.study.source import StudySource, source_of
from tests.conftest import Mil
from tests.explain.drawn_scans import picture, write_tiff


def source(run: Path) -> StudySource:
    config = open_run(run).config
    assert config is not None
    return source_of(config)


def test_contributions_of_a_patient_add_up_to_the_prediction_less_the_reference(crc_run: Path) -> None:
    loaded, data = checkpoint.load(crc_run / "fold_0" / "checkpoint"), source(crc_run)
    request = Request(methods=("contribution", "single"))
    explained = list(explain_patients([loaded], data.features, data.cohort, request=request))
    table = predict(loaded, data.features, data.cohort).set_index("patient")
    cohort = read_bags(loaded, data.features, data.cohort, None)
    model = explained_model(loaded, reference_of(loaded, cohort.dataset))
    reference = float(model(model.reference_bag(None))[0, 0])
    for scores in explained:
        p = float(str(table.loc[scores.patient, "p_MSI-H"]))
        assert scores.outputs[0].value == pytest.approx(np.log(p / (1 - p)), abs=1e-4)
        total = scores.values("contribution", "MSI-H").sum()
        assert total == pytest.approx(scores.outputs[0].value - reference, abs=1e-4)
        assert scores.reference == TRAINING
        assert all(slide.places is not None and len(slide.places.x) == len(slide) for slide in scores.slides)
    assert [scores.patient for scores in explained] == sorted(table.index)


def test_the_mean_training_tile_is_recorded_with_the_checkpoint(crc_run: Path) -> None:
    loaded, data = checkpoint.load(crc_run / "fold_0" / "checkpoint"), source(crc_run)
    table = pd.read_csv(crc_run / "predictions.csv").query("fold == 0 and role == 'train'")
    cohort = read_bags(loaded, data.features, data.cohort, None, list(table["patient"]))
    recorded = loaded.manifest.data.mean_tile
    assert recorded is not None
    assert unpacked(recorded) == pytest.approx(mean_of_bags(cohort.dataset).numpy(), abs=1e-4)


def test_an_older_checkpoint_takes_the_mean_of_the_given_tiles_and_says_so(
    crc_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, data = checkpoint.load(crc_run / "fold_0" / "checkpoint"), source(crc_run)
    older = loaded.manifest.model_copy(
        update={
            "data": loaded.manifest.data.model_copy(update={"mean_tile": None}),
            "fitted": loaded.manifest.fitted.model_copy(update={"novelty": None}),
        }
    )
    object.__setattr__(loaded, "manifest", older)
    with caplog.at_level(logging.WARNING):
        (first, *_) = explain_patients([loaded], data.features, data.cohort)
    assert first.reference == GIVEN
    assert "train again" in caplog.text


def test_folds_give_the_mean_map_and_their_disagreement(surv_run: Path) -> None:
    members = [checkpoint.load(surv_run / f"fold_{fold}" / "checkpoint") for fold in (0, 1)]
    data = source(surv_run)
    patient = str(pd.read_csv(data.cohort)["patient"][0])
    request = Request(patients=[patient], options=MethodOptions(permutations=4), methods=("single", "shapley"))
    (both,) = explain_patients(members, data.features, data.cohort, request=request)
    alone = [next(explain_patients([each], data.features, data.cohort, request=request)) for each in members]
    assert "log hazard" in [output.name for output in both.outputs]
    for method in ("single", "shapley"):
        stack = np.stack([each.values(method, "log hazard") for each in alone])
        assert both.values(method, "log hazard") == pytest.approx(stack.mean(0))
        slide = both.slides[0].slide
        assert both.disagreement[slide, method][:, 0] == pytest.approx(stack.std(0, ddof=1)[: len(both.slides[0])])
    assert both.errors
    assert both.notes["shapley"].startswith("Mean of 4 random orders")


def test_one_output_and_some_patients_can_be_asked_for(surv_run: Path) -> None:
    loaded, data = checkpoint.load(surv_run / "fold_0" / "checkpoint"), source(surv_run)
    patients = pd.read_csv(data.cohort)["patient"].astype(str).unique()[:2].tolist()
    name = "risk by 5y"
    explained = list(
        explain_patients([loaded], data.features, data.cohort, request=Request(output=name, patients=patients))
    )
    assert [scores.patient for scores in explained] == patients
    assert [output.name for output in explained[0].outputs] == [name]
    assert explained[0].slides[0].scores["single"].shape[1] == 1
    with pytest.raises(ConfigError, match="no such output, expected one of log hazard, risk by"):
        next(explain_patients([loaded], data.features, data.cohort, request=Request(output="death")))
    with pytest.raises(CohortError, match="nobody is not among"):
        next(explain_patients([loaded], data.features, data.cohort, request=Request(patients=["nobody"])))


def test_only_patients_that_a_model_was_not_trained_on_are_measured(
    crc_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = open_run(crc_run), list[str]()
    original = FaithfulnessMeter.add

    def add(self: FaithfulnessMeter, model: object, patient: str, bag: object, *about: object) -> None:
        seen.append(patient)
        original(self, model, patient, bag, *about)  # type: ignore[arg-type]

    monkeypatch.setattr(FaithfulnessMeter, "add", add)
    section = run_faithfulness(run, Request(methods=("single", "attention")), most=6)
    reported = set(run.tables["predictions"].query("role == 'report'")["patient"])
    assert set(seen) <= reported
    assert len(seen) == 6
    single = section.maps[0]
    assert (single.method, single.output, single.srg.counts["n"]) == ("single", "MSI-H", 6)
    assert single.telling is not None
    assert single.telling_oracle is not None
    assert single.telling_oracle.value is not None
    assert single.telling_oracle.value > 0.6
    assert single.randomised is not None
    assert section.block().tables[0].columns[0] == "Output"
    assert all(row.estimate is not None for row in section.card_rows())


def test_the_telling_tiles_of_an_output_carry_its_biomarker() -> None:
    kinds = np.array(["tumour", "biomarker:ER", "biomarker:PR", "stroma"])
    assert telling_tiles("ER", kinds).tolist() == [False, True, False, False]
    assert telling_tiles("neither", kinds).tolist() == [False] * 4
    plain = np.array(["tumour", "biomarker"])
    assert telling_tiles("MSI-H", plain).tolist() == [False, True]
    joint = np.array(["msi:biomarker", "type:biomarker:b", "type:biomarker:c"])
    assert telling_tiles("msi: MSI-H", joint).tolist() == [True, False, False]
    assert telling_tiles("type: c", joint).tolist() == [False, False, True]


def test_the_command_writes_tables_and_refuses_in_one_line(mil: Mil, crc_run: Path, tmp_path: Path) -> None:
    data, place = source(crc_run), crc_run / "fold_0" / "checkpoint"
    words = ("explain", place, "--features", data.features, "--cohort", data.cohort, "--out")
    for wrong, message in (
        (("--method", "gradient"), "gradient: not offered"),
        (("--method", "saliency"), "expected one of single"),
        (("--output", "MSI-X"), "expected one of MSI-H"),
        (("--patients", "nobody"), "nobody is not among"),
    ):
        refused = mil(*words, tmp_path / "out", *wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert message in refused.err
    assert mil(*words, data.features).code == 2
    assert mil(*words, crc_run).code == 2


def test_scans_that_the_tiles_do_not_fit_are_refused(mil: Mil, crc_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    pytest.importorskip("tifffile")
    data, scans = source(crc_run), tmp_path / "scans"
    scans.mkdir()
    slide = str(pd.read_csv(data.cohort, dtype=str)["slide"][0])
    write_tiff(scans / f"{slide}.tiff", picture(512, 512))
    place = crc_run / "fold_0" / "checkpoint"
    words = ("explain", place, "--features", data.features, "--cohort", data.cohort, "--out", tmp_path / "out")
    refused = mil(*words, "--scans", scans, "--format", "csv")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"slide '{slide}'" in refused.err
    assert "tiles lie outside its 512 x 512" in refused.err


def test_two_checkpoints_on_the_command_line_give_the_mean_map(mil: Mil, crc_run: Path, tmp_path: Path) -> None:
    data = source(crc_run)
    places = [crc_run / f"fold_{fold}" / "checkpoint" for fold in (0, 1)]
    patient = str(pd.read_csv(data.cohort, dtype=str)["patient"][0])
    given = ("--features", data.features, "--cohort", data.cohort, "--patients", patient, "--format", "csv")
    tables = []
    for name, checkpoints in (("first", places[:1]), ("second", places[1:]), ("both", places)):
        explained = mil("explain", *checkpoints, *given, "--out", tmp_path / name)
        assert explained.code == 0, explained.err
        tables.append(pd.read_csv(tmp_path / name / "tiles.csv"))
    first, second, both = (table["single:MSI-H"].to_numpy() for table in tables)
    assert both == pytest.approx((first + second) / 2, abs=1e-5)
    spread = tables[2]["single:MSI-H:disagreement"].to_numpy()
    assert spread == pytest.approx(np.abs(first - second) / np.sqrt(2), abs=1e-5)


def test_at_most_so_many_tiles_are_explained_and_predicted(mil: Mil, crc_run: Path, tmp_path: Path) -> None:
    data, place = source(crc_run), crc_run / "fold_0" / "checkpoint"
    patient = str(pd.read_csv(data.cohort, dtype=str)["patient"][0])
    given = ("--features", data.features, "--cohort", data.cohort, "--patients", patient, "--format", "csv")
    tables = {}
    for most in (None, 10, 0):
        out = tmp_path / str(most)
        words = [] if most is None else ["--max-tiles", most]
        explained = mil("explain", place, *given, "--out", out, *map(str, words))
        assert explained.code == 0, explained.err
        tables[most] = pd.read_csv(out / "tiles.csv")
        assert files.read_json(out / "explain.json").get("max_tiles") == (most or None)
    every, some = tables[None], tables[10]
    pd.testing.assert_frame_equal(tables[0], every)
    assert len(some) == 10 < len(every)
    rows = np.linspace(0, len(every) - 1, 10).round().astype(int)
    for column in ("slide", "x", "y"):
        assert list(some[column]) == list(every[column].iloc[rows])
    loaded = checkpoint.load(place)
    predicted = predict(loaded, data.features, data.cohort, max_tiles=10).set_index("patient")
    (scores,) = explain_patients(
        [loaded], data.features, data.cohort, request=Request(patients=[patient], max_tiles=10)
    )
    probability = 1 / (1 + np.exp(-scores.outputs[0].value))
    assert probability == pytest.approx(predicted.loc[patient, "p_MSI-H"], abs=1e-6)
    of_run = mil("explain", crc_run, "--max-tiles", "10", "--measure", "0", "--most", "1", "--out", tmp_path / "run")
    assert of_run.code == 0, of_run.err
    of_patient = pd.read_parquet(next((tmp_path / "run").rglob("*.parquet")))
    assert of_patient.groupby("patient").size().max() == 10


def test_bad_slides_are_an_error_or_left_out_and_named(mil: Mil, crc_run: Path, tmp_path: Path) -> None:
    data = source(crc_run)
    features = shutil.copytree(data.features, tmp_path / "features")
    table = pd.read_csv(data.cohort, dtype=str)
    slides = table.groupby("patient")["slide"].agg(list)
    patient = str(slides.index[0])
    for slide in slides.iloc[0]:
        next(path for path in features.rglob("*") if path.stem == slide).write_bytes(b"no features")
    words = ("explain", crc_run / "fold_0" / "checkpoint", "--features", features, "--cohort", data.cohort)
    refused = mil(*words, "--format", "csv", "--out", tmp_path / "refused")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--on-bad skip" in refused.err
    explained = mil(*words, "--format", "csv", "--out", tmp_path / "out", "--on-bad", "skip")
    assert explained.code == 0, explained.err
    assert slides.iloc[0][0] in explained.err
    listed = set(pd.read_csv(tmp_path / "out" / "tiles.csv", dtype=str)["patient"])
    assert listed == set(table["patient"]) - {patient}


def test_columns_are_named_by_their_kind(mil: Mil, crc_run: Path, tmp_path: Path) -> None:
    data = source(crc_run)
    words = ("explain", crc_run / "fold_0" / "checkpoint", "--features", data.features, "--out", tmp_path / "out")
    refused = mil(*words, "--column", "person=PID")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--column person=PID: expected one of patient=NAME, slide=NAME, mpp=NAME" in refused.err


def test_prediction_and_evaluation_take_the_names_of_columns(mil: Mil, crc_run: Path, tmp_path: Path) -> None:
    data = source(crc_run)
    table = pd.read_csv(data.cohort, dtype=str).rename(columns={"patient": "Case Number", "slide": "Block"})
    table.to_csv(tmp_path / "cohort.csv", index=False)
    words = (crc_run / "fold_0" / "checkpoint", "--features", data.features, "--cohort", tmp_path / "cohort.csv")
    assert "has no column 'patient'" in mil("predict", *words, "--out", tmp_path / "no.csv").err
    named = ("--column", "patient=Case Number", "--column", "slide=Block")
    predicted = mil("predict", *words, *named, "--out", tmp_path / "out.csv")
    assert predicted.code == 0, predicted.err
    assert set(pd.read_csv(tmp_path / "out.csv", dtype=str)["patient"]) == set(table["Case Number"])
    evaluated = mil("evaluate", *words, *named, "--resamples", "5", "--out", tmp_path / "external")
    assert evaluated.code == 0, evaluated.err
    twice = mil("predict", *words, *named, "--column", "patient=x", "--out", tmp_path / "no.csv")
    assert "--column patient=x: patient is Case Number already" in twice.err

"""Runs on the features of two encoders, from the simulated cohort to predictions, report and card."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from mil import api, checkpoint
from mil.explain.explain_patients import explain_patients
from mil.models.network_ensemble import NetworkEnsemble
from mil.report.prediction_files import read
from mil.report.report_files import read_report
from mil.report.sections.encoder_gain import EncoderGain
from mil.study.compose import compose
from tests.conftest import SMALL, Mil, run_quietly

QUICK = ["tool=msi-crc", "data.workers=0", "trainer.enable_progress_bar=false", "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 24 patients with features of two encoders."""
    place = tmp_path_factory.mktemp("two") / "cohort"
    return run_quietly(
        "simulate", place, "tool=msi-crc", *SMALL[2:5], "simulation.second_width=8", "simulation.target.prevalence=0.4"
    )


def features(cohort: Path) -> str:
    return f"simulated={cohort}/features,simulated2={cohort}/features_second"


def words(cohort: Path, *further: str) -> list[str]:
    data = [f"data.cohort={cohort}/cohort.csv", f"data.features=[{features(cohort)}]"]
    return [*QUICK, *data, *SMALL[:2], *SMALL[5:], "baseline=false", *further]


@pytest.fixture(scope="module")
def runs(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run with the features side by side, one with an ensemble over two folds."""
    folder = tmp_path_factory.mktemp("runs")
    single = run_quietly("train", *words(cohort, "split=holdout", f"hydra.run.dir={folder}/side_by_side"))
    further = ["model.encoders=ensemble", "split.folds=2", f"hydra.run.dir={folder}/ensemble"]
    return {"concatenate": single, "ensemble": run_quietly("train", *words(cohort, *further))}


@pytest.mark.parametrize("how", ["concatenate", "ensemble"])
def test_predictions_of_the_checkpoint_are_those_of_the_run(cohort: Path, runs: dict[str, Path], how: str) -> None:
    run = runs[how]
    folder = next(iter(api.Run(run).checkpoints.values()))
    loaded = checkpoint.load(folder)
    assert loaded.manifest.encoder.combined == how
    assert [part.name for part in loaded.encoder.parts] == ["simulated", "simulated2"]
    assert isinstance(loaded.model, NetworkEnsemble) == (how == "ensemble")
    places = {"simulated2": cohort / "features_second", "simulated": cohort / "features"}  # whatever the order
    again = api.predict(folder, places, cohort / "cohort.csv").set_index("patient")["p_MSI-H"]
    table = read(run / "predictions.csv").query("fold == 0").set_index("patient")["p_MSI-H"]
    assert again.loc[table.index].tolist() == table.tolist()


def test_report_and_card_say_what_each_encoder_adds(runs: dict[str, Path]) -> None:
    for how, question in (("concatenate", "features of the others are replaced"), ("ensemble", "a member of it")):
        section = read_report(runs[how] / "report.json").section(EncoderGain)
        assert section is not None
        assert question in section.question
        assert [each.encoder for each in section.encoders] == ["simulated", "simulated2"]
        report = read_report(runs[how] / "report.json")
        for each in section.encoders:
            both, alone, gain = report.metrics["auroc"], each.metrics["auroc"], each.difference["auroc"]
            assert both.value is not None
            assert alone.value is not None
            assert gain.value == pytest.approx(both.value - alone.value)
            assert gain.counts == both.counts
    card = (runs["concatenate"] / "checkpoint" / "README.md").read_text(encoding="utf-8")
    assert "**Encoders**: simulated (16 features per tile) and simulated2 (8 features per tile)" in card
    assert "What each encoder adds" in (runs["ensemble"] / "report.html").read_text(encoding="utf-8")


def test_members_of_the_ensemble_are_what_the_table_says(cohort: Path, runs: dict[str, Path]) -> None:
    table = pd.read_csv(runs["ensemble"] / "encoders.csv").query("fold == 0")
    model = checkpoint.load(api.Run(runs["ensemble"]).checkpoints[0]).model
    assert isinstance(model, NetworkEnsemble)
    predicted = pd.read_csv(runs["ensemble"] / "predictions.csv").query("fold == 0 and role == 'report'")
    logits = [
        torch.logit(torch.tensor(rows.set_index("patient").loc[predicted["patient"], "p_MSI-H"].to_numpy()))
        for _, rows in table.groupby("encoder")
    ]
    mean = torch.logit(torch.tensor(predicted["p_MSI-H"].to_numpy()))
    assert torch.allclose((logits[0] + logits[1]) / 2, mean, atol=1e-4)


def test_checkpoints_of_different_encoders_predict_together(cohort: Path, tmp_path: Path, mil: Mil) -> None:
    folders = {"simulated": cohort / "features", "simulated2": cohort / "features_second"}
    members = []
    for name, folder in folders.items():
        data = [f"data.cohort={cohort}/cohort.csv", f"data.features={folder}", "split=holdout", "baseline=false"]
        run = run_quietly("train", *QUICK, *data, *SMALL[:2], *SMALL[5:], f"hydra.run.dir={tmp_path / name}")
        members.append(run / "checkpoint")
    together = api.predict(members, folders, cohort / "cohort.csv")
    each = [
        api.predict(member, folder, cohort / "cohort.csv")
        for member, folder in zip(members, folders.values(), strict=True)
    ]
    assert together["p_MSI-H"].tolist() == pytest.approx(((each[0]["p_MSI-H"] + each[1]["p_MSI-H"]) / 2).tolist())
    refused = mil("predict", *members, "--features", folders["simulated"], "--out", tmp_path / "scores.csv")
    assert refused.code == 2
    assert "encoder ('simulated2', 8), expected ('simulated', 16)" in refused.err


def test_missing_files_of_one_encoder_are_refused_or_left_out(cohort: Path, tmp_path: Path, mil: Mil) -> None:
    second = tmp_path / "second"
    second.mkdir()
    for path in sorted((cohort / "features_second").iterdir())[2:]:
        (second / path.name).symlink_to(path)
    given = [f"data.cohort={cohort}/cohort.csv", f"data.features=[simulated={cohort}/features,simulated2={second}]"]
    refused = mil("check", "tool=msi-crc", *given, "tool.novelty=null")
    assert refused.code == 2
    assert "2 of " in refused.out
    assert "slides have features, but none of simulated2; data.on_missing=skip leaves them out" in refused.out
    skipped = mil("check", "tool=msi-crc", *given, "tool.novelty=null", "data.on_missing=skip")
    assert skipped.code == 1
    assert "simulated+simulated2, 24 wide" in skipped.out


def test_packed_features_of_both_are_predicted_and_explained(
    cohort: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    run_quietly("convert", features(cohort), tmp_path / "both.h5")
    folder = runs["concatenate"] / "checkpoint"
    packed = api.predict(folder, tmp_path / "both.h5")
    pd.testing.assert_frame_equal(packed, api.predict(folder, features(cohort)))
    scores = next(iter(explain_patients([checkpoint.load(folder)], Path(features(cohort)), None)))
    assert scores.slides[0].places is not None


def test_folders_of_several_encoders_are_one_option() -> None:
    assert compose(["data.features=[a=x, b=y]"]).data.features == "a=x,b=y"
    assert compose(["data.features=a=x,b=y"]).data.features == "a=x,b=y"

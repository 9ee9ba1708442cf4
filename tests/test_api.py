"""The Python API: one example per function, without Hydra and without the command line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mil
from mil.bags import Bags
from mil.errors import ConfigError, MilError
from mil.report.prediction_columns import PredictionColumns
from mil.report.prediction_files import read
from mil.study.compose import read_config
from tests.report.tables import binary

SMALL: dict[str, Any] = {"model.embed_dim": 16, "model.attention_dim": 8, "tool.novelty": None}
QUICK: dict[str, Any] = {"resamples": 20, "figures": False, "data": {"workers": 0}, "trainer": {"accelerator": "cpu"}}


def endpoint() -> mil.endpoints.Binary:
    return mil.endpoints.Binary("MSI", classes=["MSS", "MSI-H"])


@pytest.fixture(scope="module")
def study(hospital: Path) -> mil.Study:
    return mil.Study.from_tables(hospital / "cohort.csv", hospital / "features", endpoint=endpoint(), carry=["age"])


@pytest.fixture(scope="module")
def run(study: mil.Study, tmp_path_factory: pytest.TempPathFactory) -> mil.Run:
    out = tmp_path_factory.mktemp("api") / "msi"
    return mil.fit(study, model="abmil_gated", split=mil.splits.KFold(2), out=out, max_epochs=2, **QUICK, **SMALL)


def test_study_is_read_from_tables(study: mil.Study) -> None:
    assert len(study.patients) == 24
    assert set(study.patients["MSI"]) == {"MSS", "MSI-H"}
    assert study.target.shape == (24,)
    assert study.encoder.name == "simulated"


def test_fit_writes_predictions_report_and_checkpoints(run: mil.Run) -> None:
    table = run.predictions
    assert sorted(table.loc[table["role"] == "report", "patient"]) == sorted(set(table["patient"]))
    auroc = run.report.metrics["auroc"]
    assert auroc.value is not None
    assert auroc.low is not None
    assert auroc.high is not None
    assert auroc.low <= auroc.value <= auroc.high
    assert list(run.checkpoints) == [0, 1]
    assert run.report.about.tool == "msi"


def test_fit_options_are_those_of_conf(run: mil.Run) -> None:
    config = read_config(run.folder / "config.yaml")
    assert config.trainer.options.max_epochs == 2
    assert config.split.target == "mil.splits.folds.KFold"
    assert (config.split.options.folds, config.resamples, config.figures) == (2, 20, False)
    assert config.model.options.keywords() == {"gated": True, "embed_dim": 16, "attention_dim": 8}
    assert config.tool.endpoint.options.keywords() == {"column": "MSI", "classes": ["MSS", "MSI-H"]}


def test_fit_equals_the_command_line(hospital: Path, real_run: Path, tmp_path: Path) -> None:
    study = mil.Study.from_tables(hospital / "cohort.csv", hospital / "features", endpoint=endpoint())
    options: dict[str, Any] = {"optimizer": {"lr": 1.0e-3}, "seed": 0, "baseline": False}
    run = mil.fit(study, split="holdout", out=tmp_path / "run", max_epochs=2, **options, **QUICK, **SMALL)
    weights = "checkpoint/weights.safetensors"
    assert (run.folder / weights).read_bytes() == (real_run / weights).read_bytes()
    scores = ["patient", "role", "p_MSI-H"]
    pd.testing.assert_frame_equal(run.predictions[scores], read(real_run / "predictions.csv")[scores], check_exact=True)


def test_fit_into_the_same_folder_continues_the_run(study: mil.Study, run: mil.Run) -> None:
    before = (run.folder / "predictions.csv").stat().st_mtime_ns
    mil.fit(study, split=mil.splits.KFold(2), out=run.folder, max_epochs=2, **QUICK, **SMALL)
    assert (run.folder / "fold_0" / "predictions.csv").stat().st_mtime_ns <= before
    with pytest.raises(ConfigError, match="holds a run with seed=0, found seed=1; expected a new folder"):
        mil.fit(study, split=mil.splits.KFold(2), out=run.folder, max_epochs=2, seed=1, **QUICK, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "abmill"}, "model=abmill does not exist, did you mean 'abmil'?"),
        ({"sed": 1}, "option 'sed' does not exist, did you mean 'seed'?"),
        ({"model.droput": 0.1}, "option 'model.droput' does not exist, did you mean 'model.dropout'?"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr=-1, expected a positive number"),
        ({"data": {"batch_bgs": 2}}, "option 'data.batch_bgs' does not exist, did you mean 'data.batch_bags'?"),
        ({"split": object()}, "expected an endpoint of mil.endpoints or a strategy of mil.splits"),
        ({"max_epochs": 0}, "trainer.max_epochs=0, expected a whole number of at least 1"),
    ],
)
def test_invalid_fit_options_are_refused_by_name(
    options: dict[str, Any], message: str, study: mil.Study, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        mil.fit(study, out=tmp_path / "run", **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_endpoint_defined_in_python_is_fitted(hospital: Path, tmp_path: Path) -> None:
    table = pd.read_csv(hospital / "cohort.csv", dtype=str)
    order = table.groupby("patient", sort=False).ngroup()
    table.assign(months=(order + 1).astype(str), dead=(order % 2).astype(str)).to_csv(tmp_path / "c.csv", index=False)
    outcome = mil.endpoints.Cox("months", "dead", horizons={"1y": 12})
    study = mil.Study.from_tables(tmp_path / "c.csv", hospital / "features", endpoint=outcome)
    assert study.config().data.batch_bags == 16, "the defaults of tool=survival"
    run = mil.fit(study, split="holdout", out=tmp_path / "run", max_epochs=1, baseline=False, **QUICK, **SMALL)
    assert {"log_hazard", "risk_1y"} < set(run.predictions)


def test_tool_predicts_files_and_arrays(run: mil.Run, hospital: Path) -> None:
    tool = run.load(fold=0)
    by_slide = tool.predict(hospital / "features")
    assert set(by_slide["slide"]) == {path.stem for path in (hospital / "features").glob("*.h5")}
    assert by_slide.equals(mil.predict(run.checkpoints[0], hospital / "features"))
    by_patient = mil.predict(tool, hospital / "features", hospital / "cohort.csv")
    run_scores = read(run.folder / "fold_0" / "predictions.csv").set_index("patient")["p_MSI-H"]
    assert by_patient.set_index("patient")["p_MSI-H"].to_dict() == run_scores.to_dict()
    bag = tool.predict(np.zeros((5, tool.width), "float32"))
    assert bag["tiles"].tolist() == [5]


def test_several_folds_form_an_ensemble(run: mil.Run, hospital: Path, tmp_path: Path) -> None:
    together = mil.predict(list(run.checkpoints.values()), hospital / "features")
    assert {"p_MSI-H", "spread_p_MSI-H"} < set(together)
    with pytest.raises(ConfigError, match="the attention is of one tool"):
        mil.predict(list(run.checkpoints.values()), hospital / "features", tiles=tmp_path)
    with pytest.raises(ConfigError, match="has no fold 7"):
        run.load(fold=7)


def test_run_is_evaluated_again(run: mil.Run) -> None:
    report = mil.evaluate(run)
    assert report.metrics == run.report.metrics
    assert report.looks == run.report.looks


def test_tool_is_evaluated_on_a_cohort(run: mil.Run, hospital: Path, tmp_path: Path) -> None:
    cohort, features, out = hospital / "cohort.csv", hospital / "features", tmp_path / "out"
    report = mil.evaluate(run.checkpoints[0], cohort=cohort, features=features, out=out, resamples=20)
    assert report.about.external
    assert report.patients["n"] == 24
    assert (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(ConfigError, match="a cohort needs features and out"):
        mil.evaluate(run.checkpoints[0], cohort=hospital / "cohort.csv")


def test_prediction_table_is_evaluated(tmp_path: Path) -> None:
    table = binary()
    endpoint = mil.endpoints.Binary()
    report = mil.evaluate(table, endpoint=endpoint, resamples=20)
    bare = table[table["role"] == "report"].drop(columns=["fold", "role"]).drop_duplicates("patient")
    assert mil.evaluate(bare, endpoint=endpoint, resamples=20).patients == report.patients
    table[table["role"] == "report"].to_csv(tmp_path / "scores.csv", index=False)
    columns = PredictionColumns(target=["label"], score=["p_1"], group="fold")
    assert mil.evaluate(tmp_path / "scores.csv", columns=columns, resamples=20).metrics["auroc"].value is not None
    with pytest.raises(ConfigError, match="found DataFrame alone, expected a run, a tool with a cohort"):
        mil.evaluate(table)


def test_run_of_a_custom_tool_is_released(run: mil.Run, tmp_path: Path) -> None:
    folder = run.release(version="1.0.0", out=tmp_path)
    assert folder == tmp_path / "msi"
    assert mil.load(folder).manifest.tool.version == "1.0.0"


def test_model_is_created_without_a_study() -> None:
    model = mil.create_model("abmil", in_dim=8, out_dim=1, embed_dim=4)
    assert model(Bags(torch.randn(5, 8), (2, 3))).logits.shape == (2, 1)


def test_api_leaves_an_outer_hydra_application_alone(study: mil.Study) -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    from mil.config import conf_dir

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        study.config(seed=3)
        assert GlobalHydra.instance().hydra is outer


def test_every_name_of_the_api_exists() -> None:
    assert all(getattr(mil, name) is not None for name in mil.__all__)
    assert set(mil.__all__) <= set(dir(mil))
    with pytest.raises(MilError, match="neither a checkpoint folder nor a released tool"):
        mil.load("no-such-tool")
    for package, name in ((mil.endpoints, "Cox"), (mil.splits, "SitePreserved")):
        assert name in dir(package)
        with pytest.raises(AttributeError):
            package.__getattr__("Nothing")


def test_import_of_the_package_loads_no_torch_or_wandb() -> None:
    code = "import sys, mil; sys.exit(','.join({'torch', 'wandb', 'hydra', 'pydantic'} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

"""A classifier and a survival tool learn a clear signal within seconds, and nothing from permuted labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from sklearn.metrics import roc_auc_score

from tests.conftest import run_quietly

CLEAR = [
    "experiment=quick",
    "data.workers=0",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=12",
    "baseline=false",
    "figures=false",
    "resamples=20",
    "split=holdout",
    "split.report=0.5",
    "simulation.contrast=2",
    "simulation.patients=200",
    "simulation.tiles=40",
    "simulation.width=32",
    "simulation.slides=1",
    "model.embed_dim=32",
    "model.attention_dim=16",
    "optimizer.lr=2e-3",
    "++tool.novelty=null",
]
"""100 report patients with tissue that the simulated encoder separates well; the oracles reach 0.90 and 0.72."""
BINARY = ["tool=binary", *CLEAR, "data.batch_bags=8", "simulation.target.prevalence=0.5"]


def reported(run: Path) -> pd.DataFrame:
    table = pd.read_csv(run / "predictions.csv", dtype={"patient": str})
    return table[table["role"] == "report"]


def test_classifier_learns_a_clear_signal(tmp_path: Path) -> None:
    patients = reported(run_quietly("train", *BINARY, f"hydra.run.dir={tmp_path}"))
    assert len(patients) == 100
    assert roc_auc_score(patients["label"], patients["p_1"]) > 0.8


def test_survival_tool_learns_a_clear_signal(tmp_path: Path) -> None:
    words = ["tool=survival", *CLEAR, "data.batch_bags=32", "simulation.target.event_rate=0.6"]
    patients = reported(run_quietly("train", *words, f"hydra.run.dir={tmp_path}"))
    assert len(patients) == 100
    assert concordance_index(patients["time"], -patients["log_hazard"], patients["event"]) > 0.62


def test_permuted_labels_are_not_learnt(tmp_path: Path) -> None:
    cohort = run_quietly("simulate", tmp_path / "cohort", *(word for word in BINARY if word[:4] in ("tool", "simu")))
    table = pd.read_csv(cohort / "cohort.csv", dtype=str)
    table["label"] = np.random.default_rng(0).permutation(table["label"])  # one slide per patient
    table.to_csv(tmp_path / "permuted.csv", index=False)
    data = [f"data.cohort={tmp_path}/permuted.csv", f"data.features={cohort}/features"]
    patients = reported(run_quietly("train", *BINARY, *data, f"hydra.run.dir={tmp_path}/run"))
    area = roc_auc_score(patients["label"], patients["p_1"])
    assert area == pytest.approx(0.5, abs=0.17), "three standard errors of 100 patients"

"""A run of every kind of tool, from its simulated cohort to its card."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from mil.checkpoint import load
from tests.conftest import QUICK, SMALL, Mil

TOOLS = {
    "multilabel": ("auroc", ["p_first", "p_second"], "p_first rises with the probability of first being 1."),
    "ordinal": ("qwk", ["p_1", "p_2", "p_3", "p_4", "expected"], "expected is the mean grade, from 0 (1) to 3 (4)."),
    "regression": ("r2", ["value"], "value is the predicted score."),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_trained_on_its_own_cohort_and_describes_itself(tool: str, tmp_path: Path, mil: Mil) -> None:
    metric, columns, meaning = TOOLS[tool]
    words = [f"tool={tool}", *QUICK, "split=holdout", "split.report=0.4", *SMALL, "simulation.patients=40"]
    said = mil("train", *words, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["sections"]["oracle"]["metrics"][metric]["value"] > 0.4
    assert metric in report["metrics"]
    assert metric in report["sections"]["baseline"]["difference"]
    card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert meaning in card
    assert f"- {'regression' if tool == 'regression' else 'classification'}\n" in card
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    found = load(tmp_path / "run" / "checkpoint").endpoint
    assert list(found.decode(torch.zeros(1, found.out_dim))) == columns
    assert table[columns].notna().all(axis=None)
    assert not set(columns) & set(found.columns)

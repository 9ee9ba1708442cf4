"""Every generic survival tool, from simulated patients to the model card."""

import csv
from pathlib import Path

import pytest

from mil import checkpoint
from mil.files import read_json
from tests.conftest import QUICK, SMALL, run_quietly

HORIZONS = "tool.endpoint.horizons={1y: 12, 3y: 36}"
RISKS = ["risk_1y", "risk_3y"]
TOOLS = {
    "survival": (["tool.endpoint.strata=site"], ["log_hazard", *RISKS], "kaplan_meier.png"),
    "survival_discrete": (["tool.endpoint.intervals=3"], ["risk", *RISKS], "kaplan_meier.png"),
    "survival_weibull": ([], ["risk", *RISKS], "kaplan_meier.png"),
    "survival_lognormal": ([], ["risk", *RISKS], "kaplan_meier.png"),
    "competing_risks": (
        ["tool.endpoint.intervals=3", "tool.endpoint.causes=[relapse,death]"],
        ["risk", *(f"risk_{cause}_{at}" for cause in ("relapse", "death") for at in ("1y", "3y"))],
        "incidence.png",
    ),
}


@pytest.mark.parametrize(
    "tool", [pytest.param(name, marks=[pytest.mark.slow] if "lognormal" in name else []) for name in TOOLS]
)
def test_run_ends_with_predictions_report_and_card(tool: str, tmp_path: Path) -> None:
    words, columns, figure = TOOLS[tool]
    rates = ["simulation.target.event_rate=0.5"]
    where = f"hydra.run.dir={tmp_path}/run"
    run = run_quietly(
        "train", *QUICK, f"tool={tool}", "split=holdout", *SMALL, "figures=true", *words, *rates, HORIZONS, where
    )
    with (run / "predictions.csv").open() as file:
        header = next(csv.reader(file))
    assert header[-len(columns) - 1 :] == [*columns, "simulated"]
    report = read_json(run / "report.json")
    assert set(report["metrics"]) == {"c_index"}
    assert report["sections"]["baseline"]["metrics"]["c_index"]["value"] is not None
    assert report["sections"]["oracle"]["metrics"]["c_index"]["value"] > 0.5
    assert (run / "figures" / figure).is_file()
    assert all(column in (run / "checkpoint" / "README.md").read_text() for column in columns)
    endpoint = checkpoint.load(run / "checkpoint").endpoint
    assert endpoint.state()

"""`mil calibrate --calibration`: risks put right by a new hospital's outcomes, as a user asks for it."""

from pathlib import Path

import pandas as pd
import pytest

from mil.simulation.simulated_cohort import write
from mil.study import build
from mil.study.compose import compose
from tests.conftest import Mil

RELEASED = Path(__file__).parents[1] / "zoo" / "released" / "schema_1"


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital") / "cohort"
    words = ["simulation.width=8", "simulation.patients=120", "simulation.tiles=20", "simulation.seed=3"]
    write(build.simulation(compose(["tool=surv-crc", *words, "simulation.target.event_rate=0.6"])), folder)
    return folder


def words(hospital: Path, out: Path, *more: str, tool: str = "surv-crc") -> list[str | Path]:
    given: list[str | Path] = ["--cohort", hospital / "cohort.csv", "--features", hospital / "features", "--out", out]
    return ["calibrate", RELEASED / tool, *given, *more]


def test_risks_are_put_right_and_predicted_so(mil: Mil, hospital: Path, tmp_path: Path) -> None:
    said = mil(*words(hospital, tmp_path / "here", "--calibration", "baseline"))
    assert said.code == 0, said.err
    first, *_, told, place = said.out.splitlines()
    assert first.startswith("risk_3y  mean 0.")
    assert (told, place) == ("calibration by baseline, fitted to 120 patients", str(tmp_path / "here"))
    table = tmp_path / "scores.csv"
    said = mil("predict", tmp_path / "here", "--features", hospital / "features", "--out", table)
    assert said.code == 0, said.err
    scores = pd.read_csv(table)
    assert f"now {scores['calibrated_risk_3y'].mean():.1f}" in first
    assert (scores["calibrated_risk_5y"] >= scores["calibrated_risk_3y"]).all()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--calibration", "platt"], "method 'platt', expected one of baseline, baseline_slope or null"),
        (["--calibration", "baseline", "--sensitivity", "0.9"], "given with --sensitivity, expected one"),
        ([], "decision not named, expected one of none"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    mil: Mil, hospital: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    found = mil(*words(hospital, tmp_path / "here", *more))
    assert found.code == 2
    assert said in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert not (tmp_path / "here").exists()

"""`mil compare`: what is printed, and what is written."""

from pathlib import Path

import pandas as pd
import pytest

from mil import files
from mil.cli.compare_command import compare
from mil.errors import ConfigError, PredictionsError
from tests.report.tables import binary
from tests.runs.test_run import folder_of


def of_noise(noise: float) -> pd.DataFrame:
    return binary(patients=200, folds=5, noise=noise)


def runs_in(folder: Path) -> list[Path]:
    """Two good and a bad one, the last with a baseline."""
    noises = {"good": 0.1, "fair": 1.0, "bad": 5.0}
    paths = [folder_of(folder / name, table=of_noise(noise)) for name, noise in noises.items()]
    files.write(paths[-1] / "baseline.csv", of_noise(1.5).to_csv(index=False))
    return paths


def test_two_runs_get_a_table_and_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, _, bad = runs_in(tmp_path)
    compare([bad, good])
    said = capsys.readouterr().out.splitlines()
    positives = int(of_noise(1.0).drop_duplicates("patient")["label"].sum())
    assert said[0].rstrip() == f"binary, abmil_gated, auto, auroc, n 200, 0 {200 - positives}, 1 {positives}"
    assert said[1].split()[:2] == ["rank", "run"]
    assert [line.split()[:2] for line in said[2:4]] == [["1", "good"], ["2", "bad"]]
    assert said[-1].startswith("good is better than bad by ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "fair", "good"]


def test_many_runs_are_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(runs_in(tmp_path / "runs"), tmp_path / "out", resamples=20)
    table = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert table["run"].tolist() == ["good", "fair", "bad"]
    found = files.read_json(tmp_path / "out" / "comparison.json")
    assert [one["names"] for one in found["comparisons"]] == [["good", "fair"], ["good", "bad"]]
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [one["verdict"] for one in found["comparisons"]]
    assert all("studentised range of all pairs" in line for line in said[-2:])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("comparison.json", "leaderboard.csv", "leaderboard.png", "leaderboard.svg"),
    }


def test_the_same_runs_give_the_same_files(tmp_path: Path) -> None:
    runs = runs_in(tmp_path / "runs")
    for name in ("one", "two"):
        compare(runs, tmp_path / name, resamples=10)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path


def test_two_runs_that_share_some_patients_are_compared_on_those(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = folder_of(tmp_path / "one")
    other = folder_of(tmp_path / "other", table=binary(noise=2.0).query("patient > '019'"))
    compare([one, other], tmp_path / "out")
    said = capsys.readouterr().out
    assert "2 groups of different patients or targets: no rank holds across them." in said
    (found,) = files.read_json(tmp_path / "out" / "comparison.json")["comparisons"]
    assert (found["n"], found["left_out"]) == (100, {"one": 20, "other": 0})


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    good, fair, _ = runs_in(tmp_path)
    with pytest.raises(ConfigError, match="mil compare: 1 runs"):
        compare([good])
    with pytest.raises(ConfigError, match="mil compare: 2 runs, 1 of them different"):
        compare([good, good])
    with pytest.raises(ConfigError, match=r"holds no config\.yaml"):
        compare([good, tmp_path])
    silent = folder_of(tmp_path / "silent", table=binary().assign(role="train"))
    with pytest.raises(ConfigError, match="reports nobody"):
        compare([good, silent])
    turned = folder_of(tmp_path / "turned", table=binary().assign(label=1 - binary()["label"]))
    with pytest.raises(PredictionsError, match="targets differ"):
        compare([fair, turned])

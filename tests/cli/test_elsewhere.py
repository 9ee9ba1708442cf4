"""A checkpoint at another hospital, as a user types it: `mil evaluate --cohort`, `mil calibrate`, `mil predict` of two.

The checkpoint is one that an earlier version wrote, so that nothing has to be trained.
"""

from pathlib import Path

import pandas as pd
import pytest
import torch

from mil import checkpoint, files
from mil.fitted.decision import Decision
from mil.manifest import DataRecord, EncoderRecord
from mil.models.pooling import Pooling
from mil.simulation.simulated_cohort import write
from mil.study import build
from mil.study.compose import compose
from tests.conftest import Mil
from tests.report.tables import binary
from tests.runs.test_run import folder_of
from tests.zoo.checkpoints import described

RELEASED = Path(__file__).parents[1] / "zoo" / "released" / "schema_1" / "msi-crc"
POSITIVES = 30


@pytest.fixture(scope="module")
def abroad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another hospital's cohort.csv and features, with thirty known positives."""
    folder = tmp_path_factory.mktemp("abroad") / "cohort"
    size = ["simulation.width=8", "simulation.patients=80", "simulation.tiles=20", "simulation.seed=5"]
    write(build.simulation(compose(["tool=msi-crc", *size, "simulation.target.prevalence=0.5"])), folder)
    table = pd.read_csv(folder / "cohort.csv", dtype=str)
    positive = table.loc[table["MSI"] == "MSI-H", "patient"].unique()
    kept = ~table["patient"].isin(positive[POSITIVES:])
    table[kept].to_csv(folder / "cohort.csv", index=False)
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, which take most of the time."""
    monkeypatch.setattr("mil.runs.describe.draw", lambda *_: None)


def given(abroad: Path, out: Path) -> list[str | Path]:
    return ["--cohort", abroad / "cohort.csv", "--features", abroad / "features", "--out", out]


def toy(folder: Path, seed: int = 0) -> Path:
    """A checkpoint of random weights that reads the same features."""
    torch.manual_seed(seed)
    encoder = EncoderRecord(name="simulated", dim=8, verified=True)
    data = DataRecord.model_validate({"bag": "patient", "simulated": True, "split": {"fold": 0}, "patients": {}})
    checkpoint.save(folder, Pooling(8, 1, embed_dim=4), described(encoder=encoder, data=data))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def decision(folder: Path) -> Decision:
    (decision,) = checkpoint.load(folder).manifest.fitted.decisions
    return decision


@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_is_evaluated_elsewhere_by_what_was_frozen_and_each_look_is_counted(
    abroad: Path, mil: Mil, tmp_path: Path
) -> None:
    words = ["evaluate", RELEASED, *given(abroad, tmp_path / "out"), "--resamples", "10"]
    before, said = contents(RELEASED), mil(*words)
    assert said.code == 0, said.err
    assert said.out.splitlines()[-2:] == ["withheld: 0", str(tmp_path / "out")]
    report = files.read_json(tmp_path / "out" / "report.json")
    assert report["sections"]["operating_points"]["decisions"][0]["cuts"] == [list(decision(RELEASED).cuts)]
    assert report["patients"]["MSI-H"] == POSITIVES
    assert f"AUROC {report['metrics']['auroc']['value']:.3f}" in said.out
    assert mil(*words).code == 0
    assert [look["what"] for look in files.read_json(tmp_path / "out" / "looks.json")] == 2 * ["evaluate --cohort"]
    assert files.read_json(tmp_path / "out" / "report.json") == report, "the same predictions tell nothing new"
    assert contents(RELEASED) == before


@pytest.mark.usefixtures("undrawn")
def test_another_checkpoint_on_the_same_cohort_is_another_look(abroad: Path, mil: Mil, tmp_path: Path) -> None:
    for number, place in enumerate((RELEASED, toy(tmp_path / "toy")), 1):
        assert mil("evaluate", place, *given(abroad, tmp_path / "out"), "--resamples", "5").code == 0
        assert files.read_json(tmp_path / "out" / "report.json")["looks"] == number


def test_a_cohort_without_the_endpoints_column_or_an_odd_folder_is_refused(
    abroad: Path, mil: Mil, tmp_path: Path
) -> None:
    pd.read_csv(abroad / "cohort.csv", dtype=str).drop(columns="MSI").to_csv(tmp_path / "bare.csv", index=False)
    words = ["evaluate", RELEASED, "--features", abroad / "features"]
    for more, expected in (
        (["--cohort", tmp_path / "bare.csv", "--out", tmp_path / "out"], "MSI"),
        (["--cohort", abroad / "cohort.csv", "--out", tmp_path], f"{tmp_path}: is there already, expected a new"),
        (["--cohort", abroad / "cohort.csv"], "--cohort: expected --features and --out beside it"),
        (["--cohort", abroad / "cohort.csv", "--out", tmp_path / "out", "--score", "p"], "--score: is of a table"),
    ):
        said = mil(*words, *more)
        assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert expected in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["bare.csv"]


def test_thirty_positives_set_a_cut_and_its_promise_is_printed(abroad: Path, mil: Mil, tmp_path: Path) -> None:
    said = mil("calibrate", RELEASED, *given(abroad, tmp_path / "here"), "--sensitivity", "0.9")
    assert said.code == 0, said.err
    promise, place = said.out.splitlines()
    assert place == str(tmp_path / "here")
    assert "lowest score of 30 known positives" in promise
    assert "sensitivity of 0.967 is to be expected" in promise
    assert "95% confidence it is at least 0.904" in promise
    words = ["--features", abroad / "features", "--cohort", abroad / "cohort.csv", "--out", tmp_path / "scores.csv"]
    assert mil("predict", tmp_path / "here", *words).code == 0
    cohort = pd.read_csv(abroad / "cohort.csv", dtype=str).drop_duplicates("patient").set_index("patient")
    scores = pd.read_csv(tmp_path / "scores.csv", dtype={"patient": str}).set_index("patient").join(cohort["MSI"])
    positives = scores[scores["MSI"] == "MSI-H"]
    assert list(decision(tmp_path / "here").cuts) == pytest.approx([positives["p_MSI-H"].min()], abs=1e-12)
    assert (positives["call"] == decision(tmp_path / "here").calls[-1]).all()


def test_a_promise_that_thirty_positives_cannot_carry_is_refused(abroad: Path, mil: Mil, tmp_path: Path) -> None:
    said = mil("calibrate", RELEASED, *given(abroad, tmp_path / "here"), "--sensitivity", "0.95")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "expected 59 or more" in said.err
    other = mil("calibrate", RELEASED, *given(abroad, tmp_path / "here"), "--decision", "BRAF")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == []


def test_two_checkpoints_predict_their_mean_and_their_spread(abroad: Path, mil: Mil, tmp_path: Path) -> None:
    places = [toy(tmp_path / str(seed), seed) for seed in (0, 1)]
    read = ["--features", abroad / "features", "--cohort", abroad / "cohort.csv"]
    tables = []
    for number, members in enumerate((places[:1], places[1:], places)):
        out = tmp_path / f"{number}.csv"
        assert mil("predict", *members, *read, "--out", out).out == f"{out}\n"
        tables.append(pd.read_csv(out, dtype={"patient": str}).set_index("patient"))
    one, other, both = (table["p_MSI-H"] for table in tables)
    assert not one.equals(other)
    assert both.to_numpy() == pytest.approx(((one + other) / 2).to_numpy(), abs=1e-12)
    spread = tables[2]["spread_p_MSI-H"].to_numpy()
    assert spread == pytest.approx(((one - other).abs() / 2**0.5).to_numpy(), abs=1e-12)
    tiles = mil("predict", *places, *read, "--out", tmp_path / "x.csv", "--tiles", tmp_path / "tiles")
    assert tiles.code == 2
    assert "expected one checkpoint" in tiles.err
    assert not (tmp_path / "x.csv").exists()


def test_what_cannot_be_compared_or_chosen_from_is_refused_in_one_line(mil: Mil, tmp_path: Path) -> None:
    run = folder_of(tmp_path / "sweep" / "0")
    changed = folder_of(tmp_path / "changed", table=binary().assign(label=1 - binary()["label"]))
    for words, expected in (
        (["compare", run], "1 runs, 1 of them different, expected two or more"),
        (["compare", run, tmp_path], "holds no config.yaml, expected a finished run"),
        (["compare", run, changed], "targets differ"),
        (["select", tmp_path / "sweep"], "holds 1 runs, expected two or more"),
        (["select", tmp_path / "nothing"], "holds 0 runs, expected two or more"),
    ):
        said = mil(*words)
        assert (said.code, said.out) == (2, "")
        (line,) = (line for line in said.err.splitlines() if line.startswith("mil: "))
        assert expected in line
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["0"]


@pytest.mark.parametrize(
    ("folds", "verdict"),
    [  # folds that train on the same patients say less than as many patients: a gain in three of them is no proof
        (3, "No difference is shown: good is ahead of bad by 0.357 AUROC (-0.026 to 0.741), n 120, "),
        (5, "good is better than bad by 0.279 AUROC (0.104 to 0.454), n 120, "),
    ],
)
def test_two_runs_are_compared_in_words(folds: int, verdict: str, mil: Mil, tmp_path: Path) -> None:
    tables = {name: binary(noise=noise, folds=folds) for name, noise in (("good", 0.1), ("bad", 5.0))}
    good, bad = (folder_of(tmp_path / name, table=table) for name, table in tables.items())
    said = mil("compare", bad, good, "--resamples", "20", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1].startswith(verdict)
    assert (tmp_path / "out" / "leaderboard.csv").is_file()

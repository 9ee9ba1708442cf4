"""A search never sees report patients, goes on where it was stopped, and gives options to train with."""

from pathlib import Path

import pandas as pd
import pytest

from mil.errors import ConfigError
from mil.interruption import Interrupted
from mil.report.report_files import read_report
from mil.runs import tuning
from mil.runs.tuning import Tuned, TuneOptions, tune
from mil.study.compose import compose
from tests.conftest import SMALL, Mil, run_quietly

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SPACE = ["model=simlp,mean", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
OPTIONS = TuneOptions(trials=3, seed=5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 24 patients, every fourth of whom is reported and every fourth of whom selects."""
    place = run_quietly("simulate", tmp_path_factory.mktemp("tuned") / "cohort", "tool=msi-crc", *SMALL[2:5])
    patients = sorted(set(pd.read_csv(place / "cohort.csv")["patient"]))
    table = pd.read_csv(place / "cohort.csv").assign(MSI=lambda rows: rows["patient"].map(_label))
    table.to_csv(place / "cohort.csv", index=False)
    roles = [("report", "select", "train", "train")[at // 2 % 4] for at in range(len(patients))]
    pd.DataFrame({"patient": patients, "role": roles}).to_csv(place / "roles.csv", index=False)
    return place


def _label(patient: str) -> str:
    return ("MSS", "MSI-H")[int(patient.removeprefix("P")) % 2]


def words(cohort: Path, table: str = "cohort.csv") -> list[str]:
    data = [f"data.cohort={cohort / table}", f"data.features={cohort / 'features'}", "data.workers=0"]
    split = ["split=fixed", f"split.file={cohort / 'roles.csv'}", "baseline=false", "trainer.max_epochs=1"]
    return ["tool=msi-crc", *data, *split, *SMALL[5:], "trainer.enable_progress_bar=false", *SPACE]


@pytest.fixture(scope="module")
def tuned(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A search of three trials."""
    return tune(words(cohort), tmp_path_factory.mktemp("search") / "out", OPTIONS)


def trials_of(result: Tuned) -> pd.DataFrame:
    return pd.read_csv(result.run.parent / "trials.csv").drop(columns="seconds")


def test_labels_of_report_patients_change_nothing_that_is_chosen(cohort: Path, tuned: Tuned, tmp_path: Path) -> None:
    table, roles = pd.read_csv(cohort / "cohort.csv"), pd.read_csv(cohort / "roles.csv").set_index("patient")["role"]
    is_reported = table["patient"].map(roles) == "report"
    assert is_reported.any()
    swapped = table["MSI"].map({"MSS": "MSI-H", "MSI-H": "MSS"})
    table.assign(MSI=table["MSI"].where(~is_reported, swapped)).to_csv(cohort / "swapped.csv", index=False)
    again = tune(words(cohort, "swapped.csv"), tmp_path / "out", OPTIONS)
    pd.testing.assert_frame_equal(trials_of(again), trials_of(tuned))
    assert again.values == tuned.values
    assert again.chosen["fold_0"][-2:] == tuned.chosen["fold_0"][-2:]
    before, after = (read_report(each.run / "report.json").metrics["auroc"].value for each in (tuned, again))
    assert before is not None
    assert after == pytest.approx(1 - before)


def test_the_choice_is_the_trial_that_select_patients_judge_best(cohort: Path, tuned: Tuned) -> None:
    trials = trials_of(tuned)
    assert len(trials) == 3
    assert tuned.values["fold_0"] == pytest.approx(trials["value"].max())
    best = trials.sort_values("value", ascending=False).iloc[0]
    assert f"model={best['model']}" in tuned.chosen["fold_0"]
    table = pd.read_csv(tuned.run / "predictions.csv").set_index("patient")
    roles = pd.read_csv(cohort / "roles.csv").set_index("patient")["role"]
    assert table["role"].to_dict() == roles.to_dict()
    assert (tuned.run / "checkpoint" / "manifest.json").is_file()


def test_the_options_are_a_file_to_train_with(tuned: Tuned) -> None:
    best = trials_of(tuned).sort_values("value", ascending=False).iloc[0]
    config = compose(["tool=msi-crc", "experiment=tuned"], tuned.options.parents[1])
    assert config.optimizer.options.lr == pytest.approx(best["optimizer.lr"])
    assert config.trainer.options.max_epochs == 1
    assert config.model.target == compose([f"model={best['model']}"]).model.target


def test_a_search_that_was_stopped_goes_on_with_the_same_trials(
    cohort: Path, tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, calls = tuning._judged, list[int]()

    def stopping(*arguments: object) -> float | None:
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted(15)
        return judged(*arguments)  # type: ignore[arg-type]  # as they come

    monkeypatch.setattr(tuning, "_judged", stopping)
    with pytest.raises(Interrupted):
        tune(words(cohort), tmp_path / "out", OPTIONS)
    monkeypatch.setattr(tuning, "_judged", judged)
    again = tune(words(cohort), tmp_path / "out", OPTIONS)
    pd.testing.assert_frame_equal(trials_of(again), trials_of(tuned))
    with pytest.raises(ConfigError, match="holds a search with seed 5, found 6; expected a new folder"):
        tune(words(cohort), tmp_path / "out", TuneOptions(trials=3, seed=6))


def test_no_trial_begins_once_the_time_is_over_and_failures_are_no_choice(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_judged", lambda search, params: None)
    with pytest.raises(Exception, match="none of 1 trials could be judged by auroc") as raised:
        tune(words(cohort), tmp_path / "out", TuneOptions(trials=50, minutes=1e-9))
    assert type(raised.value).__name__ == "TrainingError"


def test_folders_of_something_else_and_missing_optuna_are_refused(
    cohort: Path, tmp_path: Path, mil: Mil, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").touch()
    refused = mil("tune", tmp_path, *words(cohort))
    assert refused.code == 2
    assert "is there already, expected a new folder" in refused.err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="mil tune needs optuna: pip install 'mil-zoo"):
        tune(words(cohort), tmp_path / "out")


@pytest.mark.slow
def test_several_outer_folds_are_searched_apart_and_reported_as_one_run(cohort: Path, tmp_path: Path, mil: Mil) -> None:
    given = [word for word in words(cohort) if not word.startswith("split")]
    out = mil("tune", tmp_path / "out", *given, "split.folds=2", "--trials", "2", "--inner", "2")
    assert out.code == 0, out.err
    run = Path(out.out.splitlines()[-1])
    assert run == tmp_path / "out" / "run"
    assert out.out.splitlines()[-2].startswith("train with it: mil train tool=msi-crc ")
    table = pd.read_csv(run / "predictions.csv")
    assert sorted(set(table["fold"])) == [0, 1]
    assert table.query("role == 'report'")["patient"].is_unique
    names = set(pd.read_csv(tmp_path / "out" / "trials.csv")["search"])
    assert names == {"fold_0", "fold_1", "all"}
    assert read_report(run / "report.json").patients["n"] == 24

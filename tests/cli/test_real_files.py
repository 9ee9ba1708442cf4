"""Real feature files and tables as hospitals have them: what is refused, in which words, and what is left out."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from mil import files
from mil.report.prediction_files import read
from tests.conftest import HOSPITAL, SMALL, Mil, run_quietly
from tests.features.conftest import random_features, write_clam, write_trident

Change = Callable[[pd.DataFrame], pd.DataFrame]
SURVIVAL = ["tool=survival"]


@pytest.fixture
def table(hospital: Path) -> pd.DataFrame:
    return pd.read_csv(hospital / "cohort.csv", dtype=str)


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort as CLAM writes it: no file names its encoder."""
    words = [word for word in SMALL if word.startswith("simulation.")]
    words += ["simulation.target.prevalence=0.4", "simulation.layout=clam"]
    return run_quietly("simulate", tmp_path_factory.mktemp("clam") / "site", *words)


def given(hospital: Path, cohort: Path | None = None, features: Path | None = None) -> list[str]:
    return [f"data.cohort={cohort or hospital / 'cohort.csv'}", f"data.features={features or hospital / 'features'}"]


def refusal(mil: Mil, *words: str, verb: str = "check") -> str:
    """The one line that is said of these words."""
    said = mil(verb, *HOSPITAL, *words)
    assert said.code == 2, said.err
    last = said.err.splitlines()[-1]
    assert last.startswith("mil: ")
    assert all(line.startswith(("warning: ", "fold ", "epoch ")) for line in said.err.splitlines()[:-1]), said.err
    return last


def with_labels(hospital: Path, folder: Path, table: pd.DataFrame) -> list[str]:
    table.to_csv(folder / "changed.csv", index=False)
    return given(hospital, folder / "changed.csv")


def copied(hospital: Path, folder: Path) -> Path:
    return shutil.copytree(hospital / "features", folder / "features")


def test_check_says_what_it_found(hospital: Path, mil: Mil, table: pd.DataFrame) -> None:
    said = mil("check", *HOSPITAL, "split=holdout", *given(hospital))
    assert said.code == 0
    text = " ".join(said.out.split())
    assert f"patients n {table['patient'].nunique()}, MSS" in text
    assert f"slides {len(table)}" in text
    assert "simulated, 16 wide (the files say so)" in text
    assert "fold 0: train" in text


def test_one_of_cohort_and_features_without_the_other_is_refused(hospital: Path, mil: Mil) -> None:
    cohort, features = given(hospital)
    assert "data.cohort is given without data.features" in refusal(mil, cohort)
    assert "data.features is given without data.cohort" in refusal(mil, features)


def test_silent_files_ask_for_their_encoder_and_train_once_it_is_given(silent: Path, mil: Mil, tmp_path: Path) -> None:
    assert "do not name their encoder: give encoder=" in refusal(mil, *given(silent))
    named = ["encoder=custom", "encoder.name=ours", "encoder.dim=16"]
    said = mil("train", *HOSPITAL, "split=holdout", *given(silent), *named, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    manifest = files.read_json(tmp_path / "run" / "checkpoint" / "manifest.json")
    assert (manifest["encoder"]["name"], manifest["encoder"]["verified"]) == ("ours", False)
    assert "not verified" in (tmp_path / "run" / "checkpoint" / "README.md").read_text()


def test_features_of_another_encoder_or_width_are_refused_by_name(hospital: Path, silent: Path, mil: Mil) -> None:
    said = refusal(mil, *given(hospital), "encoder=uni")
    assert "'simulated'" in said
    assert "'uni'" in said
    said = refusal(mil, *given(silent), "encoder=virchow2")
    assert "16 wide" in said
    assert "'virchow2' has 2560" in said


def test_slides_without_files_are_listed_or_left_out_with_a_count(
    hospital: Path, table: pd.DataFrame, mil: Mil, tmp_path: Path
) -> None:
    features = copied(hospital, tmp_path)
    gone = table["slide"].iloc[:3].tolist()
    for slide in gone:
        (features / f"{slide}.h5").unlink()
    said = refusal(mil, *given(hospital, features=features))
    assert f"3 of {len(table)} slides have no feature file" in said
    assert all(slide in said for slide in gone)
    skipped = mil("check", *HOSPITAL, *given(hospital, features=features), "data.on_missing=skip", "split=holdout")
    assert skipped.code == 1
    assert f"warning: 3 of {len(table)} slides have no feature file" in skipped.out


def first_label(word: str) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        patient = table["patient"].iloc[0]
        return table.assign(MSI=table["MSI"].mask(table["patient"] == patient, word))

    return change


def sides(table: pd.DataFrame) -> pd.DataFrame:
    several = table["patient"].duplicated(keep="first")
    return table.assign(side=np.where(several, "test", np.where(table.index % 3 > 0, "train", "val")))


def survival(time: str = "3.5", event: str = "1") -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        order = table.groupby("patient", sort=False).ngroup()
        changed = table.assign(time=(order + 1).astype(str), event=(order % 2).astype(str))
        changed.loc[order == 0, ["time", "event"]] = [time, event]
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (lambda table: pd.concat([table, table.iloc[:1]]), [], ["1 slides have several rows"]),
        (first_label("MSI-low"), [], ["column MSI", "'MSI-low'", "expected one of MSS, MSI-H"]),
        (lambda table: table.assign(MSI="MSS"), [], ["all 24 training patients are 'MSS'"]),
        (lambda table: table.assign(MSI=""), [], ["no patient has a value in 'MSI'"]),
        (lambda table: table.drop(columns="MSI"), [], ["has no column 'MSI'"]),
        (sides, ["split=fixed", "split.column=side"], ["stand on two sides of one fold"]),
        (lambda table: table, ["split=fixed"], ["split.column=NAME or split.file=PATH"]),
        (lambda table: table, ["split.folds=13"], ["expected at least 13 for 13 folds"]),
        (survival(time="0"), SURVIVAL, ["column time", "'0'", "expected a positive number"]),
        (survival(time="-3"), SURVIVAL, ["column time", "'-3'"]),
        (survival(event="2"), SURVIVAL, ["column event", "'2'", "expected 0, no, false, censored"]),
        (lambda t: survival()(t).assign(event="0"), SURVIVAL, ["all 24 training patients are censored"]),
        (survival(), [*SURVIVAL, "data.balance=loss"], ["survival has no classes to balance"]),
        (survival(), [*SURVIVAL, "data.balance=sampling"], ["survival has no classes to balance"]),
    ],
)
def test_a_table_that_cannot_be_learnt_from_is_refused(
    change: Change,
    words: Sequence[str],
    said: Sequence[str],
    hospital: Path,
    table: pd.DataFrame,
    mil: Mil,
    tmp_path: Path,
) -> None:
    found = refusal(mil, *with_labels(hospital, tmp_path, change(table)), *words)
    assert all(word in found for word in said), found


def test_a_refused_cohort_leaves_no_run_folder(hospital: Path, table: pd.DataFrame, mil: Mil, tmp_path: Path) -> None:
    words = with_labels(hospital, tmp_path, first_label("MSI-low")(table))
    refusal(mil, *words, f"hydra.run.dir={tmp_path}/new/run", verb="train")
    assert not (tmp_path / "new").exists()


def test_patients_without_a_label_are_left_out_with_a_count(
    hospital: Path, table: pd.DataFrame, mil: Mil, tmp_path: Path
) -> None:
    said = mil("check", *HOSPITAL, "split=holdout", *with_labels(hospital, tmp_path, first_label("n/a")(table)))
    assert said.code == 1
    assert "warning: 1 of 24 patients are left out as they lack a label (MSI 1)" in said.out
    assert "patients n 23" in " ".join(said.out.split())


def test_a_training_fold_of_one_class_is_refused_and_a_select_fold_of_one_is_warned_of(
    hospital: Path, table: pd.DataFrame, mil: Mil, tmp_path: Path
) -> None:
    patients = table.drop_duplicates("patient").reset_index(drop=True)
    negative = patients.index[patients["MSI"] == "MSS"]
    role = pd.Series("train", index=patients.index)
    role[negative[:3]] = "select"
    role[negative[3:5]] = "report"
    split = pd.DataFrame({"patient": patients["patient"], "role": role})
    split.to_csv(tmp_path / "split.csv", index=False)
    words = [*HOSPITAL, *given(hospital), "split=fixed", f"split.file={tmp_path}/split.csv"]
    said = mil("train", *words, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    assert "warning: no decision: decision sensitivity: 0 positives among 3 select patients" in said.err
    report = files.read_json(tmp_path / "run" / "report.json")
    assert report["metrics"]["auroc"]["value"] is None
    assert report["metrics"]["auroc"]["counts"] == {"n": 2, "MSS": 2, "MSI-H": 0}
    assert "not estimable" in (tmp_path / "run" / "checkpoint" / "README.md").read_text()

    split["role"] = np.where(patients["MSI"] == "MSS", "train", "report")
    split.to_csv(tmp_path / "split.csv", index=False)
    found = refusal(mil, *words, f"hydra.run.dir={tmp_path}/other", verb="train")
    assert "training patients are 'MSS'" in found
    assert not (tmp_path / "other").exists()


@pytest.fixture
def spoilt(hospital: Path, table: pd.DataFrame, tmp_path: Path) -> tuple[Path, str, str]:
    """Features of which one slide has NaN, and one no tile; and which those are."""
    features = copied(hospital, tmp_path)
    alone = table.loc[~table["patient"].duplicated(keep=False), "slide"].tolist()
    with h5py.File(features / f"{alone[0]}.h5", "r+") as file:
        file["features"][1, 2] = np.nan
    write_trident(features / f"{alone[1]}.h5", np.zeros((0, 16), "float16"), encoder="simulated")
    return features, alone[0], alone[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slide_with_nan_stops_the_run_in_one_line_that_names_it(
    workers: int, hospital: Path, spoilt: tuple[Path, str, str], mil: Mil, tmp_path: Path
) -> None:
    features, nan, empty = spoilt
    shutil.copy(hospital / "features" / f"{empty}.h5", features / f"{empty}.h5")
    words = [*given(hospital, features=features), "split=none", "baseline=false", f"data.workers={workers}"]
    found = refusal(mil, *words, f"hydra.run.dir={tmp_path}/run", verb="train")
    assert f"{nan}.h5: 1 of " in found
    assert "tiles have NaN or infinite values" in found
    assert len(found) < 300
    assert not (tmp_path / "run").exists()


def test_a_slide_without_tiles_is_refused_before_any_work(
    hospital: Path, spoilt: tuple[Path, str, str], mil: Mil
) -> None:
    features, _, empty = spoilt
    found = refusal(mil, *given(hospital, features=features))
    assert f"slides have zero tiles, expected at least one (data.on_bad_bag=skip leaves them out): '{empty}'" in found


def test_unusable_slides_are_left_out_with_a_count_where_that_is_asked_for(
    hospital: Path, spoilt: tuple[Path, str, str], table: pd.DataFrame, mil: Mil, tmp_path: Path
) -> None:
    features, nan, empty = spoilt
    words = [*given(hospital, features=features), "data.on_bad_bag=skip", "split=holdout", "baseline=false"]
    said = mil("train", *HOSPITAL, *words, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    assert f"warning: 2 of {len(table)} slides cannot be used" in said.err
    assert "with them 2 patients" in said.err
    lost = set(table.loc[table["slide"].isin([nan, empty]), "patient"])
    assert set(read(tmp_path / "run" / "predictions.csv")["patient"]) == set(table["patient"]) - lost


@pytest.mark.parametrize(
    "words",
    [
        ["data.bag=slide", "data.balance=loss"],
        ["data.balance=sampling", "data.max_tiles=10", "data.tiles_per_batch=25"],
    ],
)
def test_bags_of_slides_balance_and_budgets_train_and_predict_every_patient(
    words: list[str], hospital: Path, table: pd.DataFrame, mil: Mil, tmp_path: Path
) -> None:
    said = mil(
        "train", *HOSPITAL, "split=holdout", "baseline=false", *given(hospital), *words, f"hydra.run.dir={tmp_path}/run"
    )
    assert said.code == 0, said.err
    assert sorted(read(tmp_path / "run" / "predictions.csv")["patient"]) == sorted(set(table["patient"]))
    manifest = files.read_json(tmp_path / "run" / "checkpoint" / "manifest.json")
    assert (manifest["fitted"]["endpoint"]["class_weight"] is not None) == ("data.balance=loss" in words)
    assert manifest["data"]["bag"] == ("slide" if "data.bag=slide" in words else "patient")


def test_columns_by_another_name_a_question_of_ones_own_and_youdens_rule_work(
    hospital: Path, table: pd.DataFrame, mil: Mil, tmp_path: Path
) -> None:
    named = table.rename(columns={"patient": "Fall", "slide": "Schnitt", "MSI": "ER"})
    words = with_labels(hospital, tmp_path, named)
    words += ["data.columns.patient=Fall", "data.columns.slide=Schnitt"]
    words += ["tool=binary", "tool.endpoint.column=ER", "tool.endpoint.classes=[MSS,MSI-H]", "split=holdout"]
    said = mil("train", *HOSPITAL, *words, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    assert "youden" in (tmp_path / "run" / "checkpoint" / "README.md").read_text()


def test_files_of_two_encoders_or_two_producers_are_told_apart(mil: Mil, tmp_path: Path) -> None:
    features = tmp_path / "features"
    write_trident(features / "a.h5", random_features(5, 16), encoder="uni")
    write_trident(features / "b.h5", random_features(6, 16), encoder="virchow2")
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("patient,slide,MSI\n001,a,MSS\n1E5,b,MSI-H\n")
    words = given(tmp_path, cohort, features)
    found = refusal(mil, *words)
    assert "'uni' (1, e.g. slide 'a')" in found
    assert "'virchow2' (1, e.g. slide 'b')" in found
    write_clam(features / "b.h5", random_features(6, 24, "float32"))
    assert "differ in width: '16'" in refusal(mil, *words)

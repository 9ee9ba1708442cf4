"""The clinical tables that a hospital may have, as words of the command line."""

from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from mil import files
from mil.errors import ConfigError
from mil.study.compose import compose
from mil.study.pipeline import read_study
from tests.conftest import HOSPITAL, Mil


@pytest.fixture
def table(hospital: Path) -> pd.DataFrame:
    return pd.read_csv(hospital / "cohort.csv", dtype=str)


def stamp(folder: Path, table: pd.DataFrame) -> list[str]:
    """A clinical workbook and a table of slide files, in other words than the tool's."""
    book = openpyxl.Workbook()
    book.worksheets[0].append(["PATIENT", "MSI", "centre"])
    labels = table["MSI"].map({"MSI-H": "dMMR", "MSS": "pMMR"})
    for row in table.assign(MSI=labels).drop_duplicates("patient")[["patient", "MSI", "site"]].to_numpy():
        book.worksheets[0].append(list(row))
    book.save(folder / "clini, all.xlsx")
    slides = pd.DataFrame({"FILENAME": "a/" + table["slide"] + ".h5", "PATIENT": table["patient"]})
    slides.to_csv(folder / "slide.csv", sep=";", index=False)
    return [f"data.cohort={folder}/clini, all.xlsx", f"data.slides={folder}/slide.csv"]


def test_a_workbook_with_a_table_of_slides_is_the_same_study_as_one_table(
    hospital: Path, tmp_path: Path, table: pd.DataFrame
) -> None:
    features = f"data.features={hospital}/features"
    meanings = ["+data.labels.MSI.dMMR=MSI-H", "+data.labels.MSI.pMMR=MSS"]
    one, two = (
        read_study(compose([*HOSPITAL, features, *words]))
        for words in ([f"data.cohort={hospital}/cohort.csv"], [*stamp(tmp_path, table), *meanings])
    )
    pd.testing.assert_frame_equal(two.patients, one.patients[two.patients.columns])
    assert two.target.tolist() == one.target.tolist()
    pd.testing.assert_frame_equal(two.bags, one.bags)


def test_a_checkpoint_says_which_tables_it_learnt_from_and_not_where_they_lie(
    hospital: Path, tmp_path: Path, table: pd.DataFrame, mil: Mil
) -> None:
    words = [*stamp(tmp_path, table), "+data.labels.MSI.dMMR=MSI-H", "+data.labels.MSI.pMMR=MSS"]
    place = [f"data.features={hospital}/features", "split=holdout", f"hydra.run.dir={tmp_path}/run"]
    assert mil("train", *HOSPITAL, *words, *place).code == 0
    checkpoint = tmp_path / "run" / "checkpoint"
    data = files.read_json(checkpoint / "manifest.json")["data"]
    assert data["cohort_sha256"] == files.sha256(tmp_path / "clini, all.xlsx")
    assert data["slides_sha256"] == files.sha256(tmp_path / "slide.csv")
    for name in ("manifest.json", "report.json", "README.md"):
        said = (checkpoint / name).read_text()
        assert str(tmp_path) not in said
        assert str(hospital) not in said


def test_words_that_no_class_of_the_tool_has_are_refused_by_their_row(
    hospital: Path, tmp_path: Path, table: pd.DataFrame, mil: Mil
) -> None:
    words = [*HOSPITAL, *stamp(tmp_path, table), f"data.features={hospital}/features"]
    said = mil("check", *words, "+data.labels.MSI.dMMR=MSI-H")
    assert said.code == 2
    assert "label 'pMMR', expected one of MSS, MSI-H" in said.err.splitlines()[-1]
    assert "column 'centre' is taken for the site" in said.err
    said = mil("check", *words, "+data.labels.msi.dMMR=MSI-H")
    assert said.err.splitlines()[-1].startswith("mil: data.labels.msi: 'msi' is neither a label nor a covariate")


def test_a_table_of_slides_without_a_clinical_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.slides is given without data\.cohort"):
        read_study(compose(["data.slides=x"]))

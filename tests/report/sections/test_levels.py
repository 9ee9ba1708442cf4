"""Every reported patient is in one level of every subgroup, whatever the clinical table calls its columns and words."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.endpoints.classification import Binary
from mil.report.evaluation import Evaluation
from mil.report.sections.levels import banded, levels, order, used_columns
from mil.study.tool import Tool
from tests.report.tables import binary, names, refitted

WORDS = st.sampled_from(["", "NA", "unknown", "male", "Male", "62", ">89", "<50", "Stage IIA", "3", "x"])


def text(*cells: str) -> "pd.Series[str]":
    return pd.Series(cells, index=names(len(cells)), dtype=str)


def evaluated(patients: pd.DataFrame | None, **tool: object) -> Evaluation:
    return refitted(binary(patients=30), Binary(), tool, patients)


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("age", ["49.9", "50", "64", "65", "74", "75", "90+", ">89", "<50", "67 years", "NA"],
         ["<50", "50-64", "50-64", "65-74", "65-74", ">=75", ">=75", ">=75", "<50", "65-74", "missing"]),
        ("age", ["18000", "25000", "30000"], ["<50", "65-74", ">=75"]),
        ("age", ["50-59", "60-69"], ["50-59", "60-69"]),
        ("stage", ["Stage IIA", "iiib", "IV", "1", "2.0", "pT3", "[Not Available]"],
         ["II", "III", "IV", "I", "II", "pT3", "missing"]),
        ("sex", ["Male", "male", "male", "F", " ", "n/a"], ["male", "male", "male", "F", "missing", "missing"]),
    ],
)  # fmt: skip
def test_cells_become_levels(name: str, cells: list[str], expected: list[str]) -> None:
    assert banded(name, text(*cells)).tolist() == expected


def test_many_different_numbers_are_split_in_thirds_of_all_patients() -> None:
    split = banded("purity", text(*(str(at) for at in range(30))))
    assert split.value_counts().to_dict() == {"low third": 10, "middle third": 10, "high third": 10}
    assert (split.iloc[0], split.iloc[15], split.iloc[29]) == ("low third", "middle third", "high third")
    assert set(banded("copies", text("1", "2", "2", "3"))) == {"1", "2", "3"}


def test_columns_are_found_under_their_usual_names_and_others_are_told_absent() -> None:
    clinical = pd.DataFrame({"Gender": "f", "AGE_AT_DIAGNOSIS": "60", "Tumour grade": "2"}, index=names(30))
    by_variable, absent = levels(evaluated(clinical, subgroups=["tumour_grade", "sex", "centre", "smoking"]))
    assert list(by_variable) == ["sex", "age", "tumour_grade"]
    assert absent == ["stage", "site", "scanner", "specimen", "smoking"]


def test_patients_whom_the_clinical_table_lacks_are_missing() -> None:
    by_variable, _ = levels(evaluated(pd.DataFrame({"sex": ["m"] * 10}, index=names(10))))
    assert by_variable["sex"].value_counts().to_dict() == {"missing": 20, "m": 10}
    assert levels(evaluated(None))[0] == {}


def test_levels_are_listed_by_age_and_name_with_the_missing_last() -> None:
    assert order(["missing", ">=75", "<50", "65-74"]) == ["<50", "65-74", ">=75", "missing"]
    assert order(["b", "missing", "a"]) == ["a", "b", "missing"]


@settings(deadline=None, max_examples=40)
@given(st.lists(WORDS, min_size=30, max_size=30), st.sampled_from(["age", "sex", "stage", "other"]))
def test_every_patient_is_in_one_level(cells: list[str], column: str) -> None:
    by_variable, _ = levels(evaluated(pd.DataFrame({column: cells}, index=names(30)), subgroups=[column]))
    kinds = by_variable[column]
    assert sorted(kinds.index) == names(30)
    assert kinds.map(lambda level: isinstance(level, str) and level != "").all()


@pytest.mark.parametrize(
    "header",
    [
        ["age_at_initial_pathologic_diagnosis", "gender", "ajcc_pathologic_tumor_stage"],
        ["ajcc_pathologic_stage", "gender"],
        ["Diagnosis Age", "Neoplasm Disease Stage American Joint Committee on Cancer Code", "Sex"],
        ["Age at initial pathologic diagnosis", "Gender", "Pathologic Stage"],
        ["demographic.age_at_index", "demographic.gender", "diagnoses.ajcc_pathologic_stage"],
    ],
    ids=["TCGA-CDR", "STAMP's CLINI", "cBioPortal", "Liu 2018", "GDC"],
)
def test_age_sex_and_stage_of_public_tables_are_variables_of_the_report(header: list[str]) -> None:
    assert used_columns(["barcode", *header, "OS.time"], Tool()) == header

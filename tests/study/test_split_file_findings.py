"""Split files of other software, checked without a cohort."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.errors import SplitError
from mil.study import split_file_findings


def write_table(folder: Path, text: str, name: str = "split.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def patients_on_both_sides(path: Path, column: str | None = None) -> dict[str, set[str]]:
    return {
        fold.fold: {patient for patients in fold.both.values() for patient in patients}
        for fold in split_file_findings.read(path, column)
    }


def test_one_role_column_per_fold_is_read(tmp_path: Path) -> None:
    text = (
        "patient,slide,label,fold_0,fold_1\np1,a,x,train,test\np1,b,x,test,test\np2,c,y,val,train\np3,d,y,,Training\n"
    )
    path = write_table(tmp_path, text)
    assert (
        patients_on_both_sides(path, "patient") == patients_on_both_sides(path) == {"fold_0": {"p1"}, "fold_1": set()}
    )
    first, second = split_file_findings.read(path)
    assert first.patients == {"train": 1, "select": 1, "report": 1}
    assert second.patients == {"train": 2, "select": 0, "report": 1}
    (finding,) = split_file_findings.findings([first, second])
    assert (finding.severity, finding.count, finding.first) == ("error", 1, ("p1",))
    assert "fold fold_0: 1 patients stand on both sides (train and report 1)" in finding.message


def test_fold_and_role_columns_are_read(tmp_path: Path) -> None:
    path = write_table(tmp_path, "patient,fold,role\np1,0,train\np2,0,report\np1,1,report\np1,1,train\np2,1,train\n")
    assert patients_on_both_sides(path) == {"0": set(), "1": {"p1"}}


def test_column_of_fold_numbers_is_read(tmp_path: Path) -> None:
    path = write_table(tmp_path, "case_id,slide_id,fold\np1,a,0\np1,b,1\np2,c,1\np3,d,2\n")
    assert patients_on_both_sides(path) == {"0": {"p1"}, "1": {"p1"}, "2": set()}


def test_patients_are_taken_from_tcga_barcodes(tmp_path: Path) -> None:
    rows = ["TCGA-AA-0001-01Z-00-DX1.svs,train", "TCGA-AA-0001-01Z-00-DX2.svs,test", "TCGA-AA-0002-01Z-00-DX1,test"]
    path = write_table(tmp_path, "\n".join(["slide,set", *rows]))
    assert patients_on_both_sides(path, "slide") == {"set": {"TCGA-AA-0001"}}


CLAM = (
    ",train,val,test\n0,TCGA-AA-0001-01Z-00-DX1,TCGA-AA-0002-01Z,TCGA-AA-0001-01Z-00-DX2\n1,00123,00124,\n2,00125,,\n"
)


def test_ragged_clam_lists_are_read_one_file_per_fold(tmp_path: Path) -> None:
    path = write_table(tmp_path, CLAM, "splits_0.csv")
    (fold,) = split_file_findings.read(path)
    assert fold.patients == {"train": 3, "select": 2, "report": 1}
    assert fold.both == {"train and report": ["TCGA-AA-0001"]}
    write_table(tmp_path, ",train,val,test\n0,a,b,c\n", "splits_10.csv")
    write_table(tmp_path, ",train,val,test\na,True,False,False\nb,False,True,False\n", "splits_0_bool.csv")
    assert patients_on_both_sides(tmp_path) == {"0": {"TCGA-AA-0001"}, "10": set()}


def test_clam_boolean_table_is_read(tmp_path: Path) -> None:
    rows = ["TCGA-AA-0001-01Z,True,False,False", "TCGA-AA-0001-02Z,False,False,True", "x,False,True,False"]
    path = write_table(tmp_path, "\n".join([",train,val,test", *rows]))
    (fold,) = split_file_findings.read(path)
    assert fold.patients == {"train": 1, "select": 1, "report": 1}
    assert fold.both == {"train and report": ["TCGA-AA-0001"]}


def test_mil_baseline_lists_are_read_with_camelyon_patients(tmp_path: Path) -> None:
    header = "train_slide_path,train_label,val_slide_path,val_label,test_slide_path,test_label"
    rows = [
        "/a/patient_001_node_0.pt,0,/a/patient_001_node_1.pt,0.0,/a/patient_003_node_1.pt,0.0",
        "/a/patient_002_node_0.pt,1,/a/patient_003_node_0.pt,1.0,,",
        "/a/normal_001.pt,1,,,,",
    ]
    path = write_table(tmp_path, "\n".join([header, *rows]))
    (fold,) = split_file_findings.read(path)
    assert fold.patients == {"train": 3, "select": 2, "report": 1}
    assert fold.both == {"train and select": ["patient_001"], "select and report": ["patient_003"]}


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("slide,role\na,train\n", "patient", "no column 'patient'"),
        ("thing,role\na,train\n", None, "give --id COLUMN"),
        ("patient,label\na,x\n", "patient", "no column of 'patient', 'label' holds roles"),
        ("patient\n", "patient", "no rows"),
    ],
)
def test_unknown_table_format_is_refused(text: str, column: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match=message):
        split_file_findings.read(write_table(tmp_path, text), column)


def test_folder_without_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match=r"no file splits_0\.csv"):
        split_file_findings.read(tmp_path)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["train", "val", "test"])), min_size=2, max_size=30))
def test_patients_with_two_roles_are_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]]
) -> None:
    table = pd.DataFrame(rows, columns=["who", "role"]).assign(who=lambda rows: "p" + rows["who"].astype(str))
    path = tmp_path_factory.mktemp("split") / "split.csv"
    table.assign(item=range(len(table))).to_csv(path, index=False)
    roles = {who: set(rows["role"]) for who, rows in table.groupby("who")}
    assert patients_on_both_sides(path, "who") == {"role": {who for who, names in roles.items() if len(names) > 1}}

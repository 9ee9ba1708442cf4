import hashlib
from pathlib import Path

import pandas as pd
import pytest

from mil.errors import SplitError
from mil.splits.roles import Split


def split(*rows: tuple[str, int, str]) -> Split:
    return Split(pd.DataFrame(rows, columns=["patient", "fold", "role"]))


def test_folds_and_patients_are_listed_in_order() -> None:
    both = split(
        ("b", 1, "train"),
        ("b", 0, "train"),
        ("a", 0, "train"),
        ("c", 0, "report"),
        ("a", 1, "report"),
        ("c", 1, "train"),
    )
    assert both.folds == [0, 1]
    assert both.patients(0, "train") == ["a", "b"]
    assert both.patients(1, "report") == ["a"]
    assert both.patients(1, "select") == []


def test_error_names_the_patient_on_two_sides() -> None:
    with pytest.raises(SplitError, match=r"1 patients stand on two sides of one fold: 'a'$"):
        split(("a", 0, "train"), ("b", 0, "train"), ("a", 0, "report"))


def test_error_names_ten_of_many_patients_on_two_sides() -> None:
    rows = [(f"p{number:02}", 0, role) for number in range(12) for role in ("train", "select")]
    with pytest.raises(SplitError, match=r"12 patients .*'p00', .*'p09' and 2 more$"):
        split(*rows)


def test_unknown_role_is_refused() -> None:
    with pytest.raises(SplitError, match="role 'test' is unknown, expected one of train, select, report"):
        split(("a", 0, "train"), ("b", 0, "test"))


def test_fold_without_training_patients_is_refused() -> None:
    with pytest.raises(SplitError, match="nobody trains in fold 1"):
        split(("a", 0, "train"), ("a", 1, "report"))
    with pytest.raises(SplitError, match="nobody trains"):
        split()


def test_patients_are_reported_equally_often() -> None:
    rows = [(name, fold, "train") for fold in (0, 1) for name in ("x", "y")]
    assert split(*rows, ("a", 0, "report"), ("b", 0, "report"), ("a", 1, "report"), ("b", 1, "report")).folds == [0, 1]
    with pytest.raises(SplitError, match="1 patients are reported in more folds than others: 'a'"):
        split(*rows, ("a", 0, "report"), ("b", 0, "report"), ("a", 1, "report"), ("b", 1, "train"))


def test_split_survives_a_file_and_its_digest_is_that_of_the_file(tmp_path: Path) -> None:
    written = split(("1E5", 0, "train"), ("001", 0, "select"), ('a "b", c;', 0, "report"))
    written.write(tmp_path / "split.csv")
    back = Split.read(tmp_path / "split.csv", ["001", "1E5", 'a "b", c;'])
    pd.testing.assert_frame_equal(back.table, written.table)
    assert back.digest() == written.digest() == hashlib.sha256((tmp_path / "split.csv").read_bytes()).hexdigest()


def test_digest_depends_on_roles_not_on_order() -> None:
    rows = [("a", 0, "train"), ("b", 0, "select"), ("c", 0, "report")]
    assert split(*rows).digest() == split(*reversed(rows)).digest()
    assert split(*rows).digest() != split(*rows[:2], ("c", 0, "train")).digest()


def read(folder: Path, content: str, patients: list[str]) -> Split:
    (folder / "split.csv").write_text(content)
    return Split.read(folder / "split.csv", patients)


def test_split_file_may_omit_folds_and_use_the_usual_words(tmp_path: Path) -> None:
    roles = read(tmp_path, "role;patient\nTraining;001\nval;b\n TEST ;c\n", ["001", "b", "c"])
    assert roles.table.to_dict("list") == {
        "patient": ["001", "b", "c"],
        "fold": [0, 0, 0],
        "role": ["train", "select", "report"],
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("patient,fold\na,0\n", "no column 'role'"),
        ("patient,fold,role\na,0,train\nb,0,train\nx,0,report\n", "names 1 patients that are not in the cohort: 'x'"),
        ("patient,fold,role\na,0,train\n", "fold 0 gives 1 patients no role: 'b'"),
        ("patient,fold,role\na,0,train\nb,0,report\nb,1,train\n", "fold 1 gives 1 patients no role: 'a'"),
        ("patient,fold,role\na,0,train\nb,0,train\na,0,test\n", "1 patients stand on two sides of one fold: 'a'"),
        ("patient,fold,role\na,0,train\nb,one,train\n", "row 2: fold 'one', expected a number"),
        ("patient,fold,role\na,0,train\nb,0,holdback\n", "role 'holdback' is unknown"),
    ],
)
def test_inconsistent_split_file_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(SplitError, match=reason):
        read(tmp_path, content, ["a", "b"])

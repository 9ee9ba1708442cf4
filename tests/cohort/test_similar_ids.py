"""Ids that are spelled in two ways, and slides with the name of another patient."""

from pathlib import Path

import pandas as pd
import pytest

from mil.cohort.similar_ids import described, difference, findings_of, similar

TABLE = Path("cohort.csv")


def table(*rows: tuple[str, str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["patient", "slide"]).assign(**columns)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("P0", "p0", "upper and lower case"),
        ("001", "1", "leading zeros or a trailing .0"),
        ("P-7-02", "P-07-2", "leading zeros or a trailing .0"),
        ("123", "123.0", "leading zeros or a trailing .0"),
        ("P0", "P0\u200b", "spaces or characters without a width"),
        ("P 0", "P\u00a00", "the form of Unicode"),
        ("P0", "P 0", "spaces or characters without a width"),
        ("M\u00fcller", "Mu\u0308ller", "the form of Unicode"),
        ("P0", "P0\u3164", "spaces or characters without a width"),
        ("P0", "P0\ufe0f", "spaces or characters without a width"),
        ("PA 1", "P\u0410 1", "letters of another script that look the same"),
        ("P-1", "P\u20131", "dashes, dots or underscores"),
        ("P-1", "P\u20111", "dashes, dots or underscores"),
        ("TCGA.A1.A0SB", "TCGA-A1-A0SB", "dashes, dots or underscores"),
        ("E_1", "E-1", "dashes, dots or underscores"),
    ],
)
def test_ids_that_differ_in_spelling_only_are_similar(first: str, second: str, what: str) -> None:
    assert similar([second, "Q9", first, first]) == [tuple(sorted((first, second)))]
    assert difference(first, second) == difference(second, first) == what


@pytest.mark.parametrize(
    ("first", "second"),
    [("P1", "P10"), ("1", "11"), ("0", "10"), ("a-1", "b-1"), ("1.5", "1.50"), ("P-1", "P1"), ("O1", "01")],
)
def test_different_ids_are_not_similar(first: str, second: str) -> None:
    assert similar([first, second]) == []


def test_characters_that_cannot_be_seen_are_escaped() -> None:
    assert described([("P0", "P0\u200b")]) == r"'P0' and 'P0\u200b' (spaces or characters without a width)"
    assert described([("M\u00fc", "m\u00fc")]) == "'Mü' and 'mü' (upper and lower case)"


def test_only_the_first_groups_are_described() -> None:
    text = described([(f"P{at}", f"p{at}") for at in range(7)])
    assert text.count("upper and lower case") == 5
    assert text.endswith(" and 2 more")


def test_patients_slides_and_sites_are_compared_within_their_columns() -> None:
    rows = table(("P1", "S1"), ("p1", "s1"), ("S1", "x"), site=["Köln", "köln", ""])
    case = "(upper and lower case)"
    assert [(finding.code, finding.message.partition("in all: ")[2]) for finding in findings_of(TABLE, rows)] == [
        ("similar-patient", f"'P1' and 'p1' {case}"),
        ("similar-slide", f"'S1' and 's1' {case}"),
        ("similar-site", f"'Köln' and 'köln' {case}"),
    ]


def test_a_slide_named_after_another_patient_is_reported() -> None:
    rows = table(("A1", "A1-01"), ("A1", "A2_x"), ("A2", "A2-01"), ("A3", "a3-1"))
    [finding] = findings_of(TABLE, rows)
    assert finding.code == "slide-of-another"
    assert finding.first == ("A2_x",)
    assert "'A2_x' of 'A1' names 'A2'" in finding.message


def test_slides_numbered_for_themselves_are_not_compared_with_patients() -> None:
    assert findings_of(TABLE, table(("1", "3"), ("2", "1"), ("3", "2"), ("4", "4"), ("5", "17"))) == []


def test_a_public_barcode_names_the_patient() -> None:
    rows = table(("TCGA-AA-0001", "TCGA-AA-0002-01Z-00-DX1"), ("TCGA-AA-0003-01", "TCGA-AA-0003-01Z-00-DX1"))
    [finding] = findings_of(TABLE, rows)
    assert finding.first == ("TCGA-AA-0002-01Z-00-DX1",)
    assert "names 'TCGA-AA-0002'" in finding.message

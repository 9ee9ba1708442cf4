"""Splits that separate patients by id but leak in other ways."""

import pandas as pd

from mil.splits.folds import Split
from mil.study.split_findings import apart, of_one_class, same_person, similar_sites

A, B = "TCGA-AA-0001", "TCGA-AA-0002"


def split(**roles: str) -> Split:
    return Split(pd.DataFrame({"patient": list(roles), "fold": 0, "role": list(roles.values())}))


def test_person_with_two_ids_on_two_sides_is_an_error() -> None:
    table = pd.DataFrame({"patient": ["p1", "p2", "p3"], "slide": [f"{A}-01Z-DX1", f"{A}-01Z-DX2", f"{B}-01Z-DX1"]})
    (finding,) = same_person(split(p1="train", p2="report", p3="report"), table)
    assert (finding.severity, finding.code, finding.first) == ("error", "two-sides", (A,))
    assert same_person(split(p1="train", p2="train", p3="report"), table) == []
    plain = table.assign(slide=["a", "b", "c"])
    assert same_person(split(p1="train", p2="report", p3="report"), plain) == []


def test_slides_are_apart_if_their_patients_have_different_roles() -> None:
    given = split(p1="train", p2="select", p3="train")
    owner = {"a": "p1", "b": "p2", "c": "p3", "d": "p1", "e": "left out"}
    groups = [["a", "b"], ["a", "c"], ["a", "d"], ["a", "e"]]
    assert apart(groups, given, owner) == [["a", "b"]]
    assert apart(groups, None, owner) == []


def test_select_role_of_one_class_gives_a_warning() -> None:
    given = split(p1="train", p2="train", p3="select", p4="report", p5="report")
    strata = pd.Series([0, 1, 0, 0, 1], [f"p{number}" for number in range(1, 6)])
    (finding,) = of_one_class(given, strata)
    assert (finding.severity, finding.message.startswith("fold 0: all 1 select patients")) == ("warning", True)
    assert of_one_class(given, strata * 0) == [], "no warning if the whole cohort has one class"


def test_report_role_of_one_class_gives_a_warning() -> None:
    given = split(p1="train", p2="train", p3="select", p4="select", p5="report", p6="report")
    strata = pd.Series([0, 1, 0, 1, 1, 1], [f"p{number}" for number in range(1, 7)])
    (warning,) = of_one_class(given, strata)
    assert (warning.severity, warning.code) == ("warning", "one-class")
    assert warning.message.startswith("fold 0: all 2 report patients are of one class")


def test_sites_of_one_name_that_are_kept_apart_are_an_error() -> None:
    sites = {"p1": "Koeln", "p2": "koeln", "p3": "Bonn"}
    table = pd.DataFrame({"patient": list(sites), "slide": ["a", "b", "c"], "site": list(sites.values())})
    (finding,) = similar_sites(split(p1="report", p2="train", p3="select"), table)
    assert (finding.severity, finding.code) == ("error", "two-sides")
    assert "'Koeln' and 'koeln' (upper and lower case)" in finding.message
    assert similar_sites(split(p1="train", p2="select", p3="report"), table) == []
    mixed = pd.concat([table, pd.DataFrame({"patient": ["p4"], "slide": ["d"], "site": ["Koeln"]})])
    assert similar_sites(split(p1="report", p2="train", p3="select", p4="train"), mixed) == []
    assert similar_sites(split(p1="report", p2="train", p3="select"), table.drop(columns="site")) == []

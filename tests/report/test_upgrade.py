"""Reports of schemas 1 and 2 load as reports of today, and none of their numbers is lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mil.errors import ReportError
from mil.report.report_files import read_report, write_report
from mil.report.schema import Estimate, Model
from mil.report.upgrade import upgrade, upgraded

HERE = Path(__file__).parent
SCHEMA_1 = sorted((HERE.parent / "zoo" / "released" / "schema_1").glob("*/report.json"))
SCHEMA_2 = sorted((HERE / "schema_2").glob("*.json"))
SCHEMA_3 = sorted((HERE / "schema_3").glob("*.json"))
"""As the first writers of schema 3 left them."""


def numbers(value: Any) -> Iterator[float]:
    """Yield all numbers of a JSON document."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


@pytest.mark.parametrize("path", [*SCHEMA_1, *SCHEMA_2, *SCHEMA_3], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_number_of_an_old_report_is_in_the_new_one(path: Path) -> None:
    old = json.loads(path.read_text(encoding="utf-8"))
    for report in (old, *(old.get("parts") or {}).values()):
        report.pop("schema", None)
        report.pop("schema_version", None)
    new = json.loads(read_report(path).model_dump_json())
    assert set(numbers(old)) <= set(numbers(new))


@pytest.mark.parametrize("path", SCHEMA_2, ids=lambda path: path.stem)
def test_a_written_report_is_read_as_it_was(path: Path, tmp_path: Path) -> None:
    report = read_report(path)
    write_report(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["schema_version"] == 3


@pytest.mark.parametrize(("model", "expected"), [("not ours", None), ("abmil", False)])
def test_the_no_of_an_old_report_stays_only_where_somebody_stated_it(model: str, expected: bool | None) -> None:
    about = upgrade({"schema_version": 3, "about": {"model": model, "external": False, "simulated": False}}).about
    assert (about.external, about.simulated) == (expected, expected)
    old = upgrade({"schema": 2, "model": model, "metrics": {}}).about
    assert (old.external, old.simulated) == (expected, None)


def test_counts_beside_a_number_are_its_counts() -> None:
    report = read_report(HERE / "schema_2" / "msi-crc.json")
    old = json.loads((HERE / "schema_2" / "msi-crc.json").read_text(encoding="utf-8"))
    [decision] = report.operating_points.decisions
    [old_decision] = old["operating_points"]["decisions"]
    sensitivity, expected = decision.at_cuts[0].sensitivity, old_decision["sensitivity"]
    assert (sensitivity.value, sensitivity.low, sensitivity.high) == tuple(
        expected[key] for key in ("value", "low", "high")
    )
    assert sensitivity.counts == {"n": expected["n"], "successes": expected["successes"]}
    assert sensitivity.second.method == expected["exact"]["method"]
    assert report.gates[0].sentence == old["gates"][0]["said"]


def test_two_cuts_of_one_row_are_taken_apart() -> None:
    """0.941 and 1.000 stood in one row, though the positive call finds 1 of 34 and 164 of 240 are undecided."""
    report = read_report(HERE / "schema_3" / "egfr-luad.json")
    [point] = report.operating_points.decisions
    lower, upper = point.at_cuts
    assert point.undecided.counts == {"n": 240, "successes": 164}
    assert [at.cut for at in point.at_cuts] == list(point.cuts[0])
    counts = [(at.sensitivity.counts["successes"], at.specificity.counts["successes"]) for at in (lower, upper)]
    assert counts == [(32, 73), (1, 206)]
    assert [at.sensitivity.n for at in (lower, upper)] == [34, 34]
    assert (lower.npv.counts["successes"], upper.ppv.counts["successes"]) == (73, 1)
    assert lower.ppv is upper.npv is None
    row = report.subgroups.rows[0]
    assert (row.sensitivity.population, row.specificity) == ("32 of 34", None)
    assert row.upper_specificity.population == "206 of 206"


def test_a_key_without_a_place_is_an_error() -> None:
    class Shape(Model):
        estimate: Estimate

    with pytest.raises(ReportError, match=r"site\.shape: colour has no place"):
        upgraded(Shape, {"estimate": {"value": 1.0}, "colour": "red"}, "site.shape")
    with pytest.raises(ReportError, match=r"site\.shape\.estimate: colour of a number"):
        upgraded(Shape, {"value": 1.0, "colour": "red"}, "site.shape")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list, expected a report"),
        ('{"schema": 7, "metrics": {}}', "schema 7, expected 1, 2 or 3"),
        ('{"schema_version": 3, "folds": "many"}', "folds: Input should be a valid integer"),
        (
            '{"schema_version": 3, "sections": {"roc": {}}}',
            "section 'roc', expected one of patient_flow, patient_table, discrimination",
        ),
        ('{"schema": 2}', "metrics"),
    ],
)
def test_a_file_that_is_no_report_says_why(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ReportError, match=message) as caught:
        read_report(path)
    assert str(path) in str(caught.value)

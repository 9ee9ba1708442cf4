"""A report as tables: no number is lost, whatever its shape."""

from collections.abc import Iterator
from typing import Any

import pytest

from mil.report.page.untyped_outline import Part, part
from mil.report.page.words import estimate, named, population, written
from tests.report.figures.cases import CASES, evaluated

NUMBER = {"value": 0.5, "low": 0.4, "high": 0.6, "level": 0.95, "method": "Wilson", "n": 20, "positives": 8}


def test_a_number_is_a_row_with_interval_population_and_method() -> None:
    (table,) = part("Result", {"auroc": NUMBER}).tables
    assert list(table.rows) == [("AUROC", "0.500 (0.400 to 0.600)", "n 20, positives 8", "Wilson")]


def test_a_number_that_is_not_estimable_says_why() -> None:
    (table,) = part("Result", {"auroc": {"value": None, "reason": "not estimable: 3 positives", "n": 9}}).tables
    assert table.rows[0][1:3] == ("not estimable: 3 positives", "n 9")


def test_records_are_a_table_and_numbers_among_them_cells() -> None:
    rows = [{"level": name, "n": 20, "auroc": NUMBER, "note": None} for name in ("female", "male")]
    (table,) = part("Rows", rows).tables
    assert table.columns == ["Level", "n", "AUROC"]
    assert table.rows[0] == ["female", "20", "0.500 (0.400 to 0.600)"]
    assert table.note == "95% intervals: Wilson."


def test_a_record_that_is_a_number_has_one_cell_for_it() -> None:
    (table,) = part("Sites", [NUMBER | {"site": "A"}, NUMBER | {"site": "B", "value": None, "reason": "few"}]).tables
    assert dict(zip(table.columns, table.rows[1], strict=True))["Value"] == "not estimable: few"


def test_few_records_with_many_columns_are_turned() -> None:
    (table,) = part("Wide", [{"name": name} | {f"k{at}": at for at in range(9)} for name in "ab"]).tables
    assert list(table.columns) == ["Name", "a", "b"]
    assert len(table.rows) == 9


def test_curves_are_left_to_the_figures() -> None:
    curve = {"predicted": [0.1] * 25, "observed": [0.2] * 25}
    assert not part("Curve", {"curve": curve})
    assert not part("Nothing", None)


def test_a_confusion_matrix_is_crossed() -> None:
    (table,) = part(
        "Confusion", {"classes": ["a", "b"], "calls": ["a", "b", "?"], "rows": [[1, 2, 0], [3, 4, 1]]}
    ).tables
    assert table.columns == ["True, called:", "a", "b", "?"]
    assert table.rows[1] == ["b", "3", "4", "1"]


@pytest.mark.parametrize("name", CASES)
def test_no_number_of_a_report_is_lost(name: str) -> None:
    _, report = evaluated(name)
    for section in ("discrimination", "operating_points", "calibration", "survival", "groups", "subgroups"):
        shown = "\n".join(_cells(part(section, report[section])))
        lost = [words for words in _numbers(report[section]) if words not in shown]
        assert lost == [], section


@pytest.mark.parametrize(
    ("value", "key", "words"),
    [
        (0.12345, "", "0.123"),
        (0.00012345, "", "0.00012"),
        (8.7e-19, "", "0.000"),
        (1234.5, "", "1234.5"),
        (1e-9, "log_rank_p", "< 0.001"),
        (0.05, "p", "0.050"),
        (True, "", "yes"),
        (None, "", "–"),
        (7, "", "7"),
    ],
)
def test_values_are_written_for_people(value: Any, key: str, words: str) -> None:
    assert written(value, key) == words


def test_names_of_classes_are_left_as_they_are() -> None:
    assert (named("auroc"), named("auroc_BRAF"), named("auroc_from_3+4")) == ("AUROC", "AUROC, BRAF", "AUROC, from 3+4")
    assert (named("MSI-H"), named("MSI_H"), named("net_benefit")) == ("MSI-H", "MSI_H", "Net benefit")
    assert population({"value": 1, "counts": {"n": 3, "MSI-H": 1}, "p": 0.0001}) == "n 3, MSI-H 1, p < 0.001"
    assert estimate({"value": 0.5, "low": 0.1, "high": None}) == "0.500 (0.100 to …)"


def _cells(found: Part) -> Iterator[str]:
    yield from found.sentences
    for table in found.tables:
        yield from (cell for row in [table.columns, *table.rows] for cell in row)
    for below in found.parts:
        yield from _cells(below)


def _numbers(found: Any) -> Iterator[str]:
    """How each number with an interval is written."""
    if isinstance(found, dict):
        if isinstance(found.get("value"), float) and found.get("low") is not None:
            yield estimate(found)
        for item in found.values():
            yield from _numbers(item)
    elif isinstance(found, list):
        for item in found:
            yield from _numbers(item)

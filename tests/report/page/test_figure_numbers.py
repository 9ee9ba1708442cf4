"""A figure's text has its numbers, so that who cannot see the picture can read them."""

import pytest

from mil.report.page.figure_numbers import MOST, figure_numbers
from mil.report.page.html import figure_text
from tests.report.figures.cases import CASES, evaluated


@pytest.mark.parametrize("name", CASES)
def test_every_figure_of_every_kind_of_endpoint_has_numbers(name: str) -> None:
    report = evaluated(name)[1]
    for figure in CASES[name]().figures:
        text = figure_numbers(figure, report)
        assert any(letter.isdigit() for letter in text), figure
        assert text.count(";") <= MOST * 2
        assert text in figure_text(figure, report)


def test_a_matrix_is_read_row_by_row() -> None:
    report = evaluated("ordinal")[1]
    matrix = report.discrimination.confusion
    first = ", ".join(f"{count} called {call}" for call, count in zip(matrix.calls, matrix.rows[0], strict=True))
    assert figure_numbers("class_confusion", report).startswith(f"of {sum(matrix.rows[0])} truly 0 {first}; ")


def test_curves_of_groups_say_who_is_in_them_and_how_they_differ() -> None:
    report = evaluated("survival")[1]
    text = figure_numbers("kaplan_meier", report)
    low = report.groups.groups[0]
    assert f"low risk: n {low.n}, events {low.events}, free of the event at 60 months" in text
    assert f"hazard ratio of high against intermediate {report.groups.next_hazard_ratios[0].estimate}" in text


def test_scores_say_where_the_cut_is_and_an_unknown_figure_says_nothing() -> None:
    report = evaluated("binary")[1]
    assert " positive" in figure_numbers("score_distribution", report)
    assert figure_numbers("my_own", report) == ""

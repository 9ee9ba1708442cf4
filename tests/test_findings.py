"""Findings become exceptions or log lines only if a caller asks for it."""

import pytest

from mil.errors import CohortError, FeatureError, MilError
from mil.findings import Checked, Finding, attempt, log_warnings, raise_first_error, severity_where

WARNING = Finding("warning", "odd", "2 slides are odd", 2, ("a", "b"))
ERROR = Finding("error", "missing", "1 slide is missing", raises=FeatureError)


def test_line_names_the_first_items_and_counts_the_rest() -> None:
    many = Finding.of_items("warning", "odd", "12 slides are odd", [f"s{number}" for number in range(12)])
    assert (many.count, len(many.first)) == (12, 10)
    assert many.line == "12 slides are odd: 's0', 's1', 's2', 's3', 's4', 's5', 's6', 's7', 's8', 's9' and 2 more"
    assert WARNING.line == "2 slides are odd: 'a', 'b'"
    assert ERROR.line == "1 slide is missing"


def test_value_is_returned_with_warnings_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert Checked(3, (WARNING,)).require() == 3
    assert caplog.messages == [WARNING.line]
    caplog.clear()
    assert Checked(3, (WARNING,)).value_or_raise() == 3
    assert caplog.messages == []


def test_first_error_is_raised_with_its_class() -> None:
    with pytest.raises(FeatureError, match=r"^1 slide is missing$"):
        Checked(3, (WARNING, ERROR)).require()
    second = Finding("error", "label", "no label", raises=CohortError)
    with pytest.raises(FeatureError, match=r"^1 slide is missing \(the first of 2 errors; see check\)$"):
        raise_first_error([WARNING, ERROR, second], "; see check")
    raise_first_error([WARNING])


def test_step_without_value_or_error_was_not_tried() -> None:
    assert Checked(None).untried
    assert Checked(None, (WARNING,)).untried
    assert not Checked(None, (ERROR,)).untried
    assert not Checked(0).untried
    with pytest.raises(MilError, match="an earlier step failed"):
        Checked(None).require()


def test_exception_survives_conversion_to_a_finding() -> None:
    def refuse() -> int:
        raise CohortError("no such table")

    result = attempt("cohort", refuse)
    assert result.value is None
    (finding,) = result.findings
    assert (finding.code, finding.message, finding.raises) == ("cohort", "no such table", CohortError)
    assert attempt("cohort", lambda: 3) == Checked(3)
    with pytest.raises(ZeroDivisionError):
        attempt("cohort", lambda: 1 // 0)


def test_joined_steps_have_the_findings_of_both() -> None:
    doubled = Checked(3, (WARNING,)).then(lambda value: Checked(2 * value, (ERROR,)))
    assert doubled == Checked(6, (WARNING, ERROR))
    untouched: Checked[int] = Checked[int](None, (ERROR,)).then(lambda value: Checked(2 * value))
    assert untouched == Checked(None, (ERROR,))


def test_only_warnings_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    log_warnings([ERROR, WARNING])
    assert caplog.messages == [WARNING.line]


def test_skippable_problem_is_a_warning() -> None:
    assert (severity_where("skip"), severity_where("error")) == ("warning", "error")

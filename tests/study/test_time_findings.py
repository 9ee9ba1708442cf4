"""Follow-up times under a wrong unit, horizons out of reach, and censoring taken for the event."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mil.endpoints.classification import Binary
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox
from mil.findings import Finding
from mil.study.time_findings import of_times

RNG = np.random.default_rng(0)


def cohort(longest: float, patients: int = 60, event: str = "event") -> pd.DataFrame:
    """Return times up to `longest`, with events that end follow-up early."""
    time = np.linspace(longest / patients, longest, patients)
    happened = np.arange(patients) % 2 == 0
    time = np.where(happened, time / 2, time)
    index = pd.Index([f"P{row}" for row in range(patients)], name="patient")
    return pd.DataFrame({"time": time, event: happened.astype(int)}, index=index)


def findings(table: pd.DataFrame, **options: Any) -> list[Finding]:
    endpoint = Cox(**options)
    return of_times(endpoint, table, endpoint.encode(table))


@pytest.mark.parametrize(
    ("longest", "unit", "hint"),
    [(3457, "months", "days"), (3457, "years", "days"), (113, "days", "months"), (90, "years", "months")],
)
def test_a_longest_time_that_cannot_be_names_the_unit_that_fits(longest: float, unit: str, hint: str) -> None:
    [finding] = findings(cohort(longest), unit=unit)
    assert (finding.severity, finding.code, finding.count) == ("warning", "time-unit", 60)
    assert f"longest follow-up is {longest} {unit}" in finding.message
    assert finding.message.endswith(f"if these are {hint}, give tool.endpoint.unit={hint}")


@pytest.mark.parametrize(
    ("longest", "unit"), [(120, "months"), (3457, "days"), (12, "years"), (5, "months"), (479, "months")]
)
def test_plausible_times_are_not_reported(longest: float, unit: str) -> None:
    assert findings(cohort(longest), unit=unit, horizons={"h": longest / 2}) == []


def test_horizons_that_nobody_or_everybody_outlives_are_reported() -> None:
    table = cohort(48).assign(time=lambda table: table["time"] + 10)
    late, early = findings(table, horizons={"5y": 60, "2y": 24, "early": 10})
    assert late.message == "no patient is followed until horizon 5y (60 months): the longest time is 58"
    assert early.message.startswith("every patient is followed beyond horizon early (10 months)")


def test_an_event_column_named_after_censoring_is_reported_unless_its_states_are_declared() -> None:
    table = cohort(100, event="censorship")
    [finding] = findings(table, event="censorship", status=None)
    assert "its 1 is read as the event of 30 of 60 patients" in finding.message
    assert findings(table, event="censorship", status={"censored": [0], "event": [1]}) == []


def test_events_later_than_censoring_are_reported() -> None:
    table = cohort(100)
    [finding] = findings(table.assign(event=1 - table["event"]))
    assert finding.code == "censoring"
    assert "followed longer (median 51.6667, n 30) than those without (25, n 30)" in finding.message
    few = table.assign(event=1 - table["event"]).iloc[:18]
    assert findings(few) == []


def test_endpoints_within_are_checked_on_their_own_patients() -> None:
    table = cohort(3457).assign(label=["0", "1"] * 30)
    endpoint = Several({"label": Binary(), "survival": Cox()})
    [finding] = of_times(endpoint, table, endpoint.encode(table))
    assert finding.code == "time-unit"
    assert of_times(Binary(), table, Binary().encode(table)) == []


@pytest.mark.parametrize(
    "name",
    [
        *("Zensur", "cens", "is_censored", "vital_status_alive", "lost_to_follow_up", "LTFU", "survived", "living"),
        *("drop_out", "withdrawn", "NED", "recurrence_free", "ProgressionFree", "event_free"),
    ],
)
def test_columns_named_after_censoring_in_other_words_are_reported(name: str) -> None:
    [finding] = findings(cohort(100, event=name), event=name)
    assert f"'{name}' is named after censoring" in finding.message


@pytest.mark.parametrize("name", ["uncensored", "not_censored", "non-censored", "license", "recent_death"])
def test_columns_that_deny_censoring_are_not_reported(name: str) -> None:
    assert findings(cohort(100, event=name), event=name) == []


def test_words_that_leave_no_doubt_are_not_reported() -> None:
    table = cohort(100, event="alive").assign(alive=lambda table: table["alive"].map({1: "dead", 0: "alive"}))
    assert findings(table, event="alive") == []


@pytest.mark.parametrize(("longest", "unit"), [(0.1, "months"), (0.3, "years")])
def test_a_follow_up_of_days_in_longer_units_is_reported(longest: float, unit: str) -> None:
    [finding] = findings(cohort(longest), unit=unit)
    assert finding.code == "time-unit"


@pytest.mark.parametrize("name", ["survival_event", "disease_free_survival_event", "died", "relapse", "planned", "os"])
def test_columns_named_after_the_event_are_not(name: str) -> None:
    assert findings(cohort(100, event=name), event=name, status=None) == []

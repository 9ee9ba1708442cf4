"""Times and events as they are written in clinical tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil.cohort.clinical_table import Cohort
from mil.cohort.columns import Columns
from mil.endpoints.follow_up import FollowUp, horizons_in
from mil.endpoints.survival import Cox
from mil.errors import CohortError, ConfigError, MilError

from .patients import table

TCGA = Path(__file__).parents[3] / "shared" / "data" / "tcga_labels"
USUAL = "0, no, false, censored, alive, living (censored) or 1, yes, true, event, dead, deceased (event)"


def read(*words: object, **options: object) -> list[float]:
    """Return the event codes of these words."""
    follow_up = FollowUp("time", "event", **options)  # type: ignore[arg-type]  # options are of many types
    return follow_up.read(table(time=[1.0] * len(words), event=list(words)))[:, 1].tolist()


@pytest.mark.parametrize("text", [True, False])
def test_times_and_events_are_read_as_text_or_numbers(text: bool) -> None:
    patients = table(os=[3.5, 12, 1e3], dead=[1, 0, 1.0])
    target = FollowUp("os", "dead").read(patients.astype(str) if text else patients)
    assert target.tolist() == [[3.5, 1], [12, 0], [1000, 1]]


def test_usual_event_words_are_read_in_any_case() -> None:
    assert read("1", 1.0, "YES", "True", True, "event", "Dead", " DECEASED ", "01") == [1] * 9
    assert read("0", 0, "No", "FALSE", False, "Censored", "alive", "LIVING", "0.0") == [0] * 9
    assert read("1:Recurred/Progressed", "0:DiseaseFree", "1:DECEASED", "0:LIVING") == [1, 0, 1, 0]


def test_declared_event_words_replace_the_usual_ones() -> None:
    status = {"event": ["relapse", 2], "censored": "NED"}
    assert read("Relapse", "ned", "2.0", status=status) == [1, 0, 1]
    with pytest.raises(CohortError, match=r"found '1', expected ned \(censored\) or relapse, 2 \(event\)$"):
        read("ned", "1", status=status)


def test_causes_are_read_by_name_or_number() -> None:
    causes = ["relapse", "Death"]
    assert read("relapse", "death", "1", "2", "0", "censored", "2:DEAD", causes=causes) == [1, 2, 1, 2, 0, 0, 2]
    with pytest.raises(CohortError, match=r"found '3', expected .* or 1, relapse \(relapse\) or 2, death \(Death\)$"):
        read("3", causes=causes)


@pytest.mark.parametrize(
    "value", [0, 0.0, -2.5, float("nan"), float("inf"), "0", "-1", "", "nan", "inf", "12 months", None]
)
def test_nonpositive_time_error_names_column_and_row(value: object) -> None:
    with pytest.raises(CohortError) as error:
        FollowUp("time", "event").read(table(time=[1, value, 3], event=[1, 0, 1]))
    message = str(error.value)
    assert message.startswith(f"column time, row of p1: found {str(value)!r}, expected a positive number")
    assert ("zero_time" in message) == (str(value) in ("0", "0.0"))


@pytest.mark.parametrize("value", [2, -1, 0.5, float("nan"), "2", "", "gone", "1 of 2", None])
def test_unknown_event_word_error_names_column_and_row(value: object) -> None:
    with pytest.raises(CohortError) as error:
        FollowUp("time", "event").read(table(time=["1", "2", "3"], event=["0", "1", value]))
    assert str(error.value) == f"column event, row of p2: found {str(value)!r}, expected {USUAL}"


def test_error_counts_further_wrong_rows() -> None:
    with pytest.raises(CohortError, match=r"^column time, row of p0 \(and 2 more\): found 'a', expected [^\n]*$"):
        FollowUp("time", "event").read(table(time=["a", "b", "c", "1"], event=[1, 1, 1, 1]))


@pytest.mark.parametrize("value", [1.0, np.float64(-1), np.int64(0)])
def test_errors_show_plain_values_not_numpy_reprs(value: object) -> None:
    with pytest.raises(MilError) as error:
        FollowUp("time", "event").read(table(time=[value], event=[3]))
    assert "np." not in str(error.value)


def test_times_are_raised_to_the_declared_shortest() -> None:
    follow_up = FollowUp("time", "event", unit="days", shortest=0.5)
    assert follow_up.read(table(time=["0", 0.2, 3], event=[1, 0, 1]))[:, 0].tolist() == [0.5, 0.5, 3]
    with pytest.raises(CohortError, match="found '-1', expected a positive number"):
        follow_up.read(table(time=["-1"], event=[1]))


def test_a_time_of_zero_is_an_error_half_a_unit_or_a_reason_to_drop_the_patient() -> None:
    cohort = table(time=["0", "3", "0"], event=[1, 0, 1])
    with pytest.raises(CohortError, match=r"expected a positive number; 2 are 0, see tool\.endpoint\.zero_time="):
        FollowUp("time", "event").read(cohort)
    assert FollowUp("time", "event", zero_time="half_unit").read(cohort)[:, 0].tolist() == [0.5, 3, 0.5]
    endpoint = Cox(zero_time="drop")
    assert endpoint.has_target(cohort).tolist() == [False, True, False]
    assert Cox().has_target(cohort).all()
    with pytest.raises(CohortError, match="found '-1'"):
        FollowUp("time", "event", zero_time="half_unit").read(table(time=["-1"], event=[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero_time": "keep"}, "zero_time 'keep', expected one of error, half_unit, drop"),
        ({"unit": "weeks"}, "unit 'weeks', expected one of days, months, years"),
        ({"shortest": 0}, "shortest 0, expected a positive number"),
        ({"status": {"event": [1]}}, "status of event, expected of censored, event"),
        ({"status": {"event": [1], "censored": ["1.0"]}}, "status '1' stands for two states"),
        ({"causes": ["a", "a"]}, "expected different names"),
        ({"causes": ["censored", "a"]}, "expected different names"),
        ({"causes": ["dead", "alive"]}, "status 'alive' stands for two states"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FollowUp("time", "event", **options)  # type: ignore[arg-type]  # options are of many types


def test_horizon_named_as_a_time_must_agree_with_its_value() -> None:
    assert horizons_in("months", {"5y": 60, "18m": 18, "ever": 999, "0": 0}) == {
        "5y": 60,
        "18m": 18,
        "ever": 999,
        "0": 0,
    }
    assert horizons_in("days", {"5y": 1825, "6mo": 180}) == {"5y": 1825.0, "6mo": 180.0}
    assert horizons_in("years", {"2.5y": 2.5, "90d": 0.25}) == {"2.5y": 2.5, "90d": 0.25}
    with pytest.raises(ConfigError, match=r"horizon 5y: 60 days, expected 1826.25 days"):
        Cox(unit="days", horizons={"5y": 60})
    for wrong in (-1.0, float("nan"), "60", True):
        with pytest.raises(ConfigError, match=r"horizon h: .* expected a number of months from 0"):
            Cox(horizons={"h": wrong})  # type: ignore[dict-item]  # a wrong type on purpose


@pytest.mark.skipif(not TCGA.is_dir(), reason=f"{TCGA} is not there")
@pytest.mark.parametrize("outcome", ["OS", "DSS", "DFI", "PFI"])
def test_tcga_pan_cancer_outcomes_are_read(outcome: str) -> None:
    path, who = TCGA / "tcga_cdr.csv.gz", "bcr_patient_barcode"
    endpoint = Cox(f"{outcome}.time", outcome, unit="days", horizons={"5y": 1826}, shortest=0.5)
    cohort = Cohort.read(path, Columns(patient=who, slide=who), labels=endpoint.columns).require()
    target = endpoint.encode(cohort.patients)
    raw = pd.read_csv(path, usecols=[outcome, f"{outcome}.time"]).dropna()
    assert endpoint.counts(target) == {"n": len(raw), "events": int(raw[outcome].sum())}
    assert target[:, 0].sum().item() == raw[f"{outcome}.time"].clip(lower=0.5).sum()


@pytest.mark.skipif(not TCGA.is_dir(), reason=f"{TCGA} is not there")
def test_cbioportal_event_words_are_read() -> None:
    raw = pd.read_csv(TCGA / "cbioportal_pancan_clinical.csv.gz", low_memory=False)
    for time, event in (
        ("Disease Free (Months)", "Disease Free Status"),
        ("Overall Survival (Months)", "Overall Survival Status"),
        ("Progress Free Survival (Months)", "Progression Free Status"),
        ("Months of disease-specific survival", "Disease-specific Survival status"),
    ):
        complete = raw.dropna(subset=[time, event])
        codes = FollowUp(time, event, shortest=0.01).read(complete)[:, 1]
        assert int(codes.sum()) == complete[event].str.startswith("1:").sum() > 0

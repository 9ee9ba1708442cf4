"""Follow-up times that look like another unit, horizons out of their reach, and censoring taken for the event."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from torch import Tensor

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.follow_up import DAYS
from mil.endpoints.survival_view import SurvivalView
from mil.findings import Finding

Floats = NDArray[np.float64]

LONGEST_YEARS = 40.0
"""A longer follow-up is taken for a mistake in the unit: no cohort with digital slides has it."""
SHORTEST_YEARS = {"days": 0.5, "months": 0.25, "years": 0.5}
"""By unit: a shorter longest follow-up is taken for a mistake in it."""
LATER = 0.75
"""Chance that a patient with the event was followed longer than one without, from which on a warning is given.

Events end the follow-up, so that without censoring by death the chance lies below one half.
"""
FEWEST = 10
"""Patients with, and without, the event that a comparison of their times needs."""


_CENSORING = re.compile(
    r"(?<![a-z])cens|censor|zensur|zensier|alive|lost|ltfu|surviv(ed|or|ing)|(?<![a-z])(living|ned)(?![a-z])|drop.?out"
    r"|withdr[ae]w|(event|recurrence|relapse|progression|disease|metastasis|tumou?r|failure)[ _.-]?free"
    r"(?![ _.-]?(surv|interval|time|event|status))",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"(?<![a-z])(un|non|not|no)[ _.-]?(right[ _.-]?)?(cens|zens)", re.IGNORECASE)
_CODES = frozenset({"0", "1", "0.0", "1.0", "no", "yes", "false", "true"})


@dataclass(frozen=True)
class Remedies:
    """What a user can do about the times, in the words of the command."""

    unit: str = "give tool.endpoint.unit={}"
    states: str = "give tool.endpoint.status={censored: 1, event: 0}"
    exchanged: str = "exchange the states by tool.endpoint.status"


OF_TRAINING = Remedies()
OF_PREDICTIONS = Remedies("give --unit {}", "exchange 0 and 1 in the column", "exchange 0 and 1 in the column")


def of_times(
    endpoint: Endpoint, patients: pd.DataFrame, target: Tensor, remedies: Remedies = OF_TRAINING
) -> list[Finding]:
    """Return warnings about the follow-up of an endpoint, or of the endpoints within.

    Args:
        endpoint: What is predicted; one without times gives no findings.
        patients: Labels by patient.
        target: As the endpoint encodes it, one row a patient.
        remedies: What the messages advise.
    """
    if endpoint.parts():
        return [
            finding
            for _, part, has_target, part_target in endpoint.part_targets(target)
            for finding in of_times(part, patients[has_target], part_target, remedies)
        ]
    view = endpoint.survival
    if view is None or not len(target):
        return []
    time, code = view.event_times(target).numpy().T
    is_declared = endpoint.arguments.get("status") is not None
    return [
        *_unit(view, time, remedies),
        *_horizons(view, time),
        *_censoring(view, time, code, patients[view.event_column], is_declared, remedies),
    ]


def _unit(view: SurvivalView, time: Floats, remedies: Remedies) -> list[Finding]:
    """Return a warning where the longest follow-up is impossible in its unit, with the unit that would fit."""
    longest = float(time.max())
    years = longest * DAYS[view.unit] / DAYS["years"]
    if SHORTEST_YEARS[view.unit] <= years <= LONGEST_YEARS:
        return []
    fitting = [
        unit
        for unit, days in DAYS.items()
        if unit != view.unit and SHORTEST_YEARS[unit] <= longest * days / DAYS["years"] <= LONGEST_YEARS
    ]
    hint = f"; if these are {fitting[0]}, {remedies.unit.format(fitting[0])}" if fitting else ""
    message = (
        f"'{view.time_column}': the longest follow-up is {longest:g} {view.unit}, which is {years:.3g} years"
        f" (n {len(time)}){hint}"
    )
    return [Finding("warning", "time-unit", message, len(time))]


def _horizons(view: SurvivalView, time: Floats) -> list[Finding]:
    findings = []
    shortest, longest = float(time.min()), float(time.max())
    for name, horizon in view.horizons.items():
        if horizon > longest:
            reach = f"the longest time is {longest:g}"
            message = f"no patient is followed until horizon {name} ({horizon:g} {view.unit}): {reach}"
            findings.append(Finding("warning", "horizon", message, len(time)))
        elif 0 < horizon < shortest:
            message = (
                f"every patient is followed beyond horizon {name} ({horizon:g} {view.unit}) without an event: the "
                f"shortest time is {shortest:g}"
            )
            findings.append(Finding("warning", "horizon", message, len(time)))
    return findings


def _is_of_censoring(column: str) -> bool:
    return bool(_CENSORING.search(column)) and not _NEGATION.search(column)


def _says_states(words: "pd.Series[str]") -> bool:
    """Return whether the column holds words such as `dead`, which leave no doubt whatever the column is called."""
    return not set(words.astype(str).str.strip().str.casefold()) <= _CODES


def _censoring(
    view: SurvivalView,
    time: Floats,
    code: Floats,
    words: "pd.Series[str]",
    is_declared: bool,
    remedies: Remedies,
) -> list[Finding]:
    """Return warnings where the column of events is by its name, or by its times, one of censoring."""
    findings = []
    if _is_of_censoring(view.event_column) and not is_declared and not _says_states(words):
        message = (
            f"'{view.event_column}' is named after censoring, but its 1 is read as the event of "
            f"{int((code > 0).sum())} of {len(code)} patients; if 1 means censored, {remedies.states}"
        )
        findings.append(Finding("warning", "censoring", message, len(code)))
    with_event, without = time[code > 0], time[code == 0]
    if min(len(with_event), len(without)) < FEWEST:
        return findings
    later = mannwhitneyu(with_event, without).statistic / (len(with_event) * len(without))
    if later >= LATER:
        message = (
            f"patients with the event of '{view.event_column}' were followed longer (median "
            f"{np.median(with_event):g}, n {len(with_event)}) than those without ({np.median(without):g}, n "
            f"{len(without)}): it may mark censoring; if so, {remedies.exchanged}"
        )
        findings.append(Finding("warning", "censoring", message, len(code)))
    return findings

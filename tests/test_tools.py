"""Every tool of the zoo says all that its card needs, means what it says, and simulates what is intended."""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mil import config
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival import Survival
from mil.fitted import decision_rules
from mil.fitted.checks import check_specification
from mil.fitted.state import BagSummaries, FittedState
from mil.simulation.simulated_cohort import draw_patients
from mil.study import build
from mil.study.compose import compose
from mil.study.run_config import RunConfig
from mil.study.tool import Tool
from tests.intended_tools import TOOLS as INTENDED

CATEGORIES = ("workflow", "biomarker", "outcome")
FILES = config.described("tool")
TOOLS = [name for name, node in FILES.items() if node["tool"]["category"] in CATEGORIES]
SENTENCES = (
    *("title", "organ", "specimen", "question", "ground_truth", "intended_use", "users", "pathway", "research_use"),
    *("encoder_note", "model_note", "simulated_note"),
)
LISTS = ("out_of_scope", "confounders", "public_cohorts", "subgroups", "subgroups_wanted", "references")
REST = ("name", "version", "category", "facts", "evidence", "prevalences", "clinical", "median_tiles", "endpoint")
FITTED = ("decision", "calibration", "conformal", "novelty")
DOI = re.compile(r"10\.\d{4,9}/[\w.;()/:-]*\w")
ENGLISH = {"the", "of", "and", "not", "with", "for", "is", "are", "do", "use", "gives", "slides", "risk", "to"}
FRENCH = {"le", "la", "les", "des", "du", "sur", "une", "pas", "donne", "lames", "ou", "et"}
every_tool = pytest.mark.parametrize("name", TOOLS)


@cache
def settings(name: str) -> RunConfig:
    return compose([f"tool={name}"])


@cache
def simulated(name: str) -> Any:
    """The parameters of a tool's simulated cohort; targets have no common type."""
    return build.simulation(settings(name))


@cache
def tool(name: str) -> dict[str, Any]:
    return settings(name).tool.plain()


def read(name: str, patients: int) -> tuple[Endpoint, pd.DataFrame, torch.Tensor]:
    """A tool's fitted endpoint, simulated patients, and a perfect reader's logits of them."""
    endpoint = build.endpoint(settings(name))
    drawn = draw_patients(replace(simulated(name), patients=patients))
    endpoint.fit(target := endpoint.encode(drawn.clinic))
    logits = endpoint.from_oracle(torch.tensor(drawn.oracle[list(endpoint.oracle_columns)].to_numpy()))
    endpoint.finish(logits, target)
    return endpoint, drawn.clinic, logits


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w']+", text.lower()))


def test_the_zoo_has_tools_for_all_three_purposes_and_its_common_lines_are_no_tool() -> None:
    assert {tool(name)["category"] for name in TOOLS} == set(CATEGORIES)
    assert len(TOOLS) == 27
    assert "zoo" not in config.choices("tool")
    assert "zoo" not in config.groups()


@every_tool
def test_a_tool_says_everything_in_full(name: str) -> None:
    said = tool(name)
    assert {*SENTENCES, *LISTS, *REST, *FITTED} <= set(said)
    assert said["name"] == name
    assert re.fullmatch(r"\d+\.\d+\.\d+", said["version"])
    for key in SENTENCES:
        assert isinstance(said[key], str), key
        assert len(said[key]) >= 4, key
    for key in LISTS:
        assert isinstance(said[key], list), key
        assert said[key], key
    for key in ("out_of_scope", "confounders", "public_cohorts", "subgroups", "subgroups_wanted"):
        assert all(isinstance(entry, str) and len(set(said[key])) == len(said[key]) for entry in said[key]), key
    assert said["question"].endswith("?")
    assert said["evidence"]["class"] in ("A", "B", "C1", "C2")
    assert said["evidence"]["tier"] in (1, 2, 3)
    assert "not assessed" in said["evidence"]["note"]


@every_tool
def test_a_tool_s_columns_and_frequencies_are_those_of_its_simulation(name: str) -> None:
    said, simulation = tool(name), simulated(name)
    assert set(simulation.target.columns) == set(build.endpoint(settings(name)).columns)
    columns = {*simulation.variables, "site", "scanner"}
    assert set(said["subgroups"]) <= columns
    assert {*said["clinical"]["numeric"], *said["clinical"]["categorical"]} <= columns
    assert all(0 < share < 1 for share in said["prevalences"])
    for number in (simulation.patients, simulation.tiles, simulation.width, said["median_tiles"]):
        assert str(number) in said["simulated_note"]
    endpoint = build.endpoint(settings(name))
    assert isinstance(endpoint, Survival) == (not said["prevalences"])
    if isinstance(endpoint, Survival):
        assert said["times"] == list(endpoint.horizons.values())
        assert max(said["times"]) < simulation.target.horizon, "nobody is followed beyond the last time"


@every_tool
def test_what_a_tool_cites_can_be_found(name: str) -> None:
    said = tool(name)
    for one in said["references"]:
        assert set(one) <= {"text", "doi", "url"}
        assert len(one) == 2, one
    for one in said["evidence"]["performance"]:
        assert set(one) in ({"text", "doi"}, {"text", "source"})
    for one in (*said["references"], *said["evidence"]["performance"]):
        assert DOI.fullmatch(one.get("doi", "10.1000/182")), one
        assert one.get("url", "https://").startswith("https://"), one


@every_tool
def test_the_facts_are_one_line_in_english_and_in_french(name: str) -> None:
    english, french = tool(name)["facts"]["en"], tool(name)["facts"]["fr"]
    assert set(tool(name)["facts"]) == {"en", "fr"}
    assert "\n" not in english + french
    assert "Do not use it" in english
    assert "Ne pas utiliser" in french
    assert not words(french) & ENGLISH
    assert not words(english) & FRENCH
    assert set("éèêàçœ") & set(french)


@every_tool
def test_what_a_tool_fits_can_be_fitted_on_its_own_cohort(name: str, caplog: pytest.LogCaptureFixture) -> None:
    endpoint, clinic, logits = read(name, simulated(name).patients)
    scores = pd.DataFrame({column: own.numpy() for column, own in endpoint.decode(logits).items()})
    table = pd.concat([clinic, scores], axis=1)
    train, select = table.iloc[: len(table) // 2], table.iloc[len(table) // 2 :]
    shown = BagSummaries(np.full(len(train), 200), np.random.default_rng(0).normal(size=(len(train), 8)))
    asked = Tool.parse(tool(name))
    check_specification(asked, endpoint)
    with caplog.at_level(logging.WARNING):
        found = FittedState.fit(asked, endpoint, train, select, {"train": shown})
    assert not caplog.records
    assert len(found.decisions) == len(decision_rules.plans(asked.decision_of_single(), endpoint))
    assert bool(found.decisions) == (tool(name)["decision"] is not None)
    assert (found.conformal is None) == isinstance(endpoint, Survival)
    assert (found.calibration is None) == (tool(name)["calibration"] is None)
    assert found.novelty is not None


@every_tool
def test_a_tool_leaves_its_user_every_other_model(name: str) -> None:
    assert "model" not in FILES[name], "another model would not know its options"


def test_the_tools_are_the_intended_ones() -> None:
    assert sorted(TOOLS) == sorted(INTENDED)


@every_tool
def test_a_tool_simulates_what_is_intended(name: str) -> None:
    intended, said, simulation = INTENDED[name], tool(name), simulated(name)
    target = simulation.target
    assert said["category"] == intended.category
    assert said["median_tiles"] == intended.median_tiles
    assert simulation.signal == intended.signal
    assert tuple(np.ravel(target.attainable)) == intended.attainable
    kind = said["endpoint"]["_target_"].rpartition(".")[2].lower().replace("competingrisks", "survival")
    assert intended.endpoint.startswith(kind.replace("cox", "survival"))
    if "survival" in intended.endpoint:
        assert (target.event_rate,) == intended.prevalence
        return
    assert tuple(np.ravel(target.prevalence)) == intended.prevalence
    classes = list(intended.classes)
    assert classes in (said["endpoint"].get("columns"), said["endpoint"]["classes"], said["endpoint"]["classes"][1:])


def test_the_competing_event_is_half_as_common_as_the_event() -> None:
    target = simulated("rlapsrisk-bc").target
    assert (target.event_rate, target.competing_rate) == (0.10, 0.05)
    assert target.horizon == pytest.approx(60, abs=1)


@every_tool
def test_a_tool_decides_as_intended(name: str) -> None:
    intended, decision = INTENDED[name], tool(name)["decision"]
    assert set(intended.promises) <= set(promised(decision))
    assert (decision is not None) == intended.decides
    if decision is None:
        return
    assert intended.cuts is None or tuple(decision["cuts"]) == intended.cuts
    for rule in ("two_cuts", "argmax", "absolute_risk"):
        assert (rule == intended.rule) == (decision.get("rule") == rule)
    assert intended.horizon is None or decision["horizon"] == intended.horizon
    assert intended.role is None or decision["role"] == intended.role


def promised(decision: dict[str, Any] | None) -> Iterator[tuple[str, float]]:
    """Every measure that a decision promises, with its share."""
    if decision is None:
        return
    for rule in (decision, *decision.get("questions", {}).values()):
        if "at_least" in rule:
            yield rule["rule"], rule["at_least"]
        for side in ("out", "in"):
            yield from rule.get(side, {}).items()


@every_tool
def test_a_perfect_reader_is_as_good_as_intended(name: str) -> None:
    endpoint, clinic, logits = read(name, 2000)
    scores = endpoint.score(logits, endpoint.encode(clinic))
    metric, attainable = INTENDED[name].metric, INTENDED[name].attainable
    columns = [metric] if len(attainable) == 1 else [f"{metric}_{label}" for label in endpoint.columns]
    assert [float(scores[column]) for column in columns] == pytest.approx(attainable, abs=0.03)


@every_tool
def test_published_figures_are_those_that_were_checked_at_their_source(name: str) -> None:
    texts = [entry["text"] for entry in tool(name)["evidence"]["performance"]]
    assert set(re.findall(r"\d+\.\d+(?!\d*/)", " ".join(texts))) == INTENDED[name].figures
    assert "[M" not in json.dumps(tool(name))

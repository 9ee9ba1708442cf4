"""Each release gate holds, does not hold or does not apply, and rests on a number."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mil import checkpoint
from mil.cards import card
from mil.cards.external_validation import ExternalCohort, ExternalValidation
from mil.fitted.novelty import Novelty
from mil.fitted.novelty import fit as fit_novelty
from mil.fitted.options import NoveltyOptions
from mil.report.report_files import read_report
from mil.report.schema import Estimate, FittedOn, Report
from mil.report.sections.subgroups import Subgroups
from mil.runs.run import open_run
from mil.zoo.gates import GATES, Evidence, external_verdict, gate_lines, gates


@pytest.fixture(scope="module")
def evidence(crc_run: Path) -> Evidence:
    """Of a run of two folds."""
    place = crc_run / "fold_0" / "checkpoint"
    report = read_report(place / "report.json")
    return Evidence(open_run(crc_run), checkpoint.read_manifest(place), report)


def judged(evidence: Evidence, number: int) -> tuple[bool | None, str]:
    gate = gates(evidence)[number - 1]
    assert gate.number == number
    return gate.holds, gate.sentence


def with_run(evidence: Evidence, **changes: Any) -> Evidence:
    """With another report of all folds."""
    run = evidence.all_folds.model_copy(update=changes)
    return replace(evidence, report=evidence.report.model_copy(update={"run": run}))


def with_split(evidence: Evidence, target: str) -> Evidence:
    """With another split of the patients."""
    split = evidence.manifest.data.split.model_copy(update={"strategy": {"_target_": f"mil.splits.folds.{target}"}})
    data = evidence.manifest.data.model_copy(update={"split": split})
    return replace(evidence, manifest=evidence.manifest.model_copy(update={"data": data}))


def without(report: Report, *keys: str) -> dict[str, Any]:
    """The sections of a report but these."""
    return {key: section for key, section in report.sections.items() if key not in keys}


def with_auroc(evidence: Evidence, low: float | None) -> Evidence:
    """With another lower bound of the AUROC over all folds."""
    metrics = evidence.all_folds.metrics
    return with_run(evidence, metrics=metrics | {"auroc": metrics["auroc"].model_copy(update={"low": low})})


def fitted(evidence: Evidence, **changes: Any) -> Evidence:
    """With other things fitted."""
    manifest = evidence.manifest
    return replace(
        evidence, manifest=manifest.model_copy(update={"fitted": manifest.fitted.model_copy(update=changes)})
    )


def test_there_are_ten_gates_and_each_rests_on_a_number(evidence: Evidence) -> None:
    results = gates(evidence)
    assert [gate.number for gate in results] == list(range(1, 11))
    assert len(GATES) == 10
    for gate, line in zip(results, gate_lines(results), strict=True):
        assert re.search(r"\d", gate.sentence), gate
        assert gate.sentence.endswith(".")
        assert "\n" not in line
        assert gate.name in line


def test_a_patient_in_two_roles_is_a_leak(evidence: Evidence) -> None:
    assert judged(evidence, 1)[0] is True
    tables = dict(evidence.run.tables)
    rows = tables["predictions"]
    twice = rows.iloc[[0]].assign(role="report" if rows["role"].iloc[0] == "train" else "train")
    tables["predictions"] = pd.concat([rows, twice])
    holds, sentence = judged(replace(evidence, run=replace(evidence.run, tables=tables)), 1)
    assert (holds, sentence.split()[0]) == (False, "1")
    encoder = evidence.manifest.encoder.model_copy(update={"verified": False})
    unknown = evidence.manifest.model_copy(update={"encoder": encoder})
    assert judged(replace(evidence, manifest=unknown), 1)[0] is False


@pytest.mark.parametrize(
    ("target", "low", "holds"),
    [
        ("KFold", 0.8, False),
        ("SitePreserved", 0.8, True),
        ("SitePreserved", 0.5, False),
        ("LeaveOneSiteOut", None, False),
    ],
)
def test_better_than_chance_counts_at_sites_that_were_not_seen(
    evidence: Evidence, target: str, low: float | None, holds: bool
) -> None:
    changed = with_auroc(with_split(evidence, target), low)
    outcome, sentence = judged(changed, 2)
    assert outcome is holds
    assert f"evidence of tier {changed.manifest.tool.evidence.tier if holds else 3} " in sentence


@pytest.mark.parametrize(("target", "low"), [("KFold", 0.8), ("SitePreserved", 0.8), ("SitePreserved", 0.4)])
def test_the_gate_and_the_card_state_one_tier(evidence: Evidence, target: str, low: float) -> None:
    changed = with_auroc(with_split(evidence, target), low)
    reached = re.findall(r"evidence of tier (\d)", judged(changed, 2)[1])
    text = card(changed.manifest, changed.run.endpoint, changed.report, [])
    assert reached == [{"KFold": "3", "SitePreserved": "1" if low > 0.5 else "3"}[target]]
    assert set(re.findall(r"^- tier-(\d)$", text, re.MULTILINE)) == set(reached)
    assert set(re.findall(r"EBAI class B, tier (\d)", text)) == set(reached)
    assert ("published work could support tier 1" in text) == (reached == ["3"])


def test_only_groups_of_enough_patients_count_as_estimable(evidence: Evidence) -> None:
    section = evidence.all_folds.section(Subgroups)
    assert section is not None
    rows = [row for row in section.rows if row.variable != "all"]
    assert all(row.value.value is None for row in rows), "the small cohort has groups that are too small"
    assert judged(evidence, 6) == (False, f"{len(rows)} subgroups, 0 of them estimable.")
    large = [row.model_copy(update={"value": Estimate(value=0.8)}) for row in section.rows]
    sections = evidence.all_folds.sections | {"subgroups": section.model_copy(update={"rows": tuple(large)})}
    assert judged(with_run(evidence, sections=sections), 6) == (
        True,
        f"{len(rows)} subgroups, {len(rows)} of them estimable.",
    )


def test_simple_models_have_to_be_there(evidence: Evidence) -> None:
    sections = without(evidence.all_folds, "baseline", "covariates", "added_value")
    holds, sentence = judged(with_run(evidence, sections=sections), 3)
    assert holds is False
    assert "mean pooling" in sentence
    assert "clinical" in sentence


@pytest.mark.parametrize(("number", "key"), [(4, "calibration"), (6, "subgroups")])
def test_what_the_report_lacks_does_not_hold(number: int, key: str, evidence: Evidence) -> None:
    assert judged(with_run(evidence, sections=without(evidence.all_folds, key)), number)[0] is False


def test_a_cut_set_on_report_patients_is_found(evidence: Evidence) -> None:
    assert judged(evidence, 5)[0] is True
    late_row = FittedOn(fold=0, what="decision X", on="report", n=3)
    late = with_run(evidence, fitted=(*evidence.all_folds.fitted, late_row))
    assert judged(late, 5) == (False, "decision X was set on report patients, 1 such.")
    assert judged(fitted(evidence, decisions=()), 5)[0] is None


def test_a_tool_that_withholds_nothing_is_said(evidence: Evidence) -> None:
    assert judged(fitted(evidence, novelty=None), 7)[0] is False


@pytest.fixture(scope="module")
def novelty() -> Novelty:
    """Fitted to mean features of eight channels that differ in location."""
    rng = np.random.default_rng(0)
    train, select = (rng.normal(size=(bags, 8)) + np.arange(8) * 5 for bags in (80, 120))
    return fit_novelty(NoveltyOptions(min_tiles=50), np.full(80, 200), train, select)


def test_a_tool_that_withholds_every_stand_in_passes_the_gate_of_unlike_inputs(
    evidence: Evidence, novelty: Novelty
) -> None:
    holds, sentence = judged(fitted(evidence, novelty=novelty), 7)
    assert (holds, sentence.split(";")[0]) == (True, "4 of 4 stand-ins withheld")


def test_a_tool_that_lets_a_stand_in_pass_fails_the_gate_of_unlike_inputs(evidence: Evidence, novelty: Novelty) -> None:
    assert novelty.features is not None
    lenient = novelty.model_copy(update={"features": novelty.features.model_copy(update={"cut": 1e6})})
    holds, sentence = judged(fitted(evidence, novelty=lenient), 7)
    assert holds is False
    assert sentence.startswith("2 of 4 stand-ins withheld, not channels in another order, features 8 standard ")
    tiles_only = novelty.model_copy(update={"features": None})
    holds, sentence = judged(fitted(evidence, novelty=tiles_only), 7)
    assert (holds, sentence.split(";")[0]) == (False, "1 of 1 stand-ins withheld")


def test_what_nobody_stated_and_changed_numbers_do_not_hold(evidence: Evidence) -> None:
    assert judged(evidence, 8) == (True, "10 of 10 statements that only people can make.")
    tool = evidence.manifest.tool.model_copy(update={"users": None, "out_of_scope": ()})
    silent = replace(evidence, manifest=evidence.manifest.model_copy(update={"tool": tool}))
    expected = "8 of 10 statements that only people can make; not stated: users, out of scope."
    assert judged(silent, 8) == (False, expected)
    assert judged(replace(evidence, differing=["metrics.auroc.low is 0"]), 9)[0] is False


def test_a_cut_that_its_patients_do_not_give_is_not_frozen(evidence: Evidence) -> None:
    (decision,) = evidence.manifest.fitted.decisions
    moved = decision.model_copy(update={"cuts": (decision.cuts[0] * 1.001,)})
    holds, sentence = judged(fitted(evidence, decisions=(moved,)), 5)
    assert holds is False
    assert sentence.startswith("1 of 1 decisions are not those of their patients: MSI-H is cut at ")
    rounded = decision.model_copy(update={"cuts": (decision.cuts[0] * (1 + 1e-9),)})
    assert judged(fitted(evidence, decisions=(rounded,)), 5)[0] is True


def test_only_an_external_cohort_of_the_tools_kind_of_patients_counts() -> None:
    def validation(n: int, simulated: bool, overlap: int | None = 0) -> ExternalValidation:
        cohort = ExternalCohort(
            key="a",
            name="A",
            patients={"n": n},
            simulated=simulated,
            overlap=overlap,
            sha256="",
            weights_sha256="",
            report_sha256="",
        )
        return ExternalValidation(cohort, Report())

    assert external_verdict([], simulated=True) == (False, "0 external cohorts: no external validation.")
    pretended, real = validation(30, simulated=True), validation(50, simulated=False)
    assert external_verdict([pretended], simulated=True) == (True, "1 external cohorts, 30 patients.")
    assert external_verdict([pretended], simulated=False)[0] is False
    holds, sentence = external_verdict([pretended, real], simulated=False)
    assert (holds, sentence.split(";")[0]) == (True, "1 external cohorts, 50 patients")
    assert "could not be checked" in external_verdict([validation(9, False, None)], simulated=False)[1]

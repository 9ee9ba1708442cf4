"""A fitted number is stored once: where it changes in a manifest, everything that uses it changes, or is refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mil import checkpoint, files
from mil.endpoints.survival import Cox
from mil.errors import CheckpointError
from mil.fitted.decision import Decision
from mil.fitted.novelty import fit as fit_novelty
from mil.fitted.options import NoveltyOptions
from mil.fitted.state import FittedState
from mil.inference.external import labelled
from mil.report.report_files import read_report
from mil.report.sections.groups import RiskGroups
from mil.report.sections.operating_points import OperatingPoints
from mil.runs.describe import describe_run, external
from mil.runs.states import STATES, checkpoints_in
from mil.zoo import golden
from mil.zoo.predictor import load
from mil.zoo.verify import verify
from tests.report.tables import refitted, survival

pytestmark = pytest.mark.usefixtures("_not_redrawn")

Change = Callable[[FittedState], dict[str, Any]]


def cut_above_all(state: FittedState) -> dict[str, Any]:
    """No probability reaches the cut."""
    return {"decisions": tuple(fitted.model_copy(update={"cuts": (1.0,)}) for fitted in state.decisions)}


def cut_below_all(state: FittedState) -> dict[str, Any]:
    """Every probability reaches the cut."""
    return {"decisions": tuple(fitted.model_copy(update={"cuts": (0.0,)}) for fitted in state.decisions)}


def flat_calibration(state: FittedState) -> dict[str, Any]:
    """Calibrated probabilities lie closer to each other."""
    assert state.calibration is not None
    curves = tuple(curve.model_copy(update={"slope": curve.slope / 2}) for curve in state.calibration.curves)
    return {"calibration": state.calibration.model_copy(update={"curves": curves})}


def empty_sets(state: FittedState) -> dict[str, Any]:
    """No class is likely enough for a set."""
    assert state.conformal is not None
    fragments = []
    for part in state.conformal.parts:
        limits = tuple(limit.model_copy(update={"cut": -1.0}) for limit in part.limits)
        fragments.append(part.model_copy(update={"limits": limits}))
    return {"conformal": state.conformal.model_copy(update={"parts": tuple(fragments)})}


def strict_novelty(state: FittedState) -> dict[str, Any]:
    """No bag is like those of training."""
    assert state.novelty is not None
    assert state.novelty.features is not None
    features = state.novelty.features.model_copy(update={"cut": -100.0})
    return {"novelty": state.novelty.model_copy(update={"features": features})}


def doubled_hazard(state: FittedState) -> dict[str, Any]:
    """Every risk at a horizon is higher."""
    hazard = state.endpoint["baseline_hazard"]
    assert isinstance(hazard, list)
    return {"endpoint": {**state.endpoint, "baseline_hazard": [2 * float(str(value)) for value in hazard]}}


def change(place: Path, changed: Change) -> None:
    """Rewrite what a checkpoint's manifest holds of its fit, and seal it again as a forger would."""
    manifest = checkpoint.unverified(place)
    fitted = manifest.fitted.model_copy(update=changed(manifest.fitted))
    checkpoint.seal(place, manifest.model_copy(update={"fitted": fitted}))


def bag(width: int, seed: int = 0, tiles: int = 60) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(tiles, width)).astype(np.float32)


@pytest.fixture
def release_with_novelty(crc_release: Path, tmp_path: Path) -> Path:
    """A release that withholds what lies too far from training, as if its tool had asked for that."""
    copy = shutil.copytree(crc_release, tmp_path / crc_release.name)
    loaded = checkpoint.load(copy)
    means = np.random.default_rng(0).normal(size=(80, loaded.encoder.dim))
    novelty = fit_novelty(NoveltyOptions(min_tiles=5), np.full(80, 60), means)
    change(copy, lambda _: {"novelty": novelty})
    golden.write(checkpoint.load(copy), copy)
    checkpoint.seal(copy, checkpoint.unverified(copy))
    return copy


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        (cut_below_all, "call"),
        (flat_calibration, "calibrated_MSI-H"),
        (empty_sets, "set"),
        (strict_novelty, "withheld"),
    ],
)
def test_a_changed_number_of_a_release_is_found_and_changes_its_predictions(
    changed: Change, column: str, release_with_novelty: Path
) -> None:
    tool = load(release_with_novelty)
    bags = [bag(tool.width, seed) for seed in range(8)]
    before = tool.predict(bags)
    golden.check(tool.checkpoint)
    change(release_with_novelty, changed)
    after = load(release_with_novelty)
    assert not after.predict(bags)[column].equals(before[column])
    with pytest.raises(CheckpointError, match="expected"):
        golden.check(after.checkpoint)
    assert verify(release_with_novelty)


def test_a_changed_baseline_hazard_of_a_release_is_found_and_changes_its_risks(
    surv_release: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(surv_release, tmp_path / surv_release.name)
    tool = load(copy)
    tiles = bag(tool.width)
    before = tool.predict(tiles)
    change(copy, doubled_hazard)
    assert verify(copy)
    after = load(copy).predict(tiles)
    risks = [column for column in before if str(column).startswith("risk_")]
    assert risks
    assert (after["risk_5y"] > before["risk_5y"]).all()


def test_a_changed_cut_changes_the_report_and_the_card_of_its_run_together(crc_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(crc_run, tmp_path / "run")
    before = read_report(run / "report.json").section(OperatingPoints)
    assert before is not None
    for place in checkpoints_in(run).values():
        change(place, cut_above_all)
    describe_run(run, "evaluate")
    after = read_report(run / "report.json").section(OperatingPoints)
    assert after is not None
    (old,), (new,) = before.decisions, after.decisions
    assert old.cuts != new.cuts
    assert new.cuts == ((1.0,),) * len(new.cuts)
    assert [fitted.cuts for fitted in new.fitted] == list(new.cuts)
    (at,) = new.at_cuts
    assert at.sensitivity.value == 0, "the table of cuts and the rates beside it come from the same cut"
    assert at.specificity.value == 1
    card = (checkpoints_in(run)[0] / "README.md").read_text(encoding="utf-8")
    assert "cuts 1;" in card
    assert all(f"{cut:.6g}" not in card for cut in old.cuts[0] or ())


def test_a_changed_cut_changes_the_evaluation_of_an_external_cohort(
    crc_run: Path, hospital: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(checkpoints_in(crc_run)[0], tmp_path / "checkpoint")
    called = {}
    for name in ("before", "after"):
        loaded = checkpoint.load(place)
        cohort = labelled(loaded, hospital / "features", hospital / "cohort.csv")
        _, report = external(loaded, cohort, resamples=5)
        section = report.section(OperatingPoints)
        assert section is not None
        called[name] = (cohort.table["call"].value_counts().to_dict(), section.decisions[0].at_cuts[0].sensitivity)
        change(place, cut_above_all)
    assert called["after"][0] == {"MSS": sum(called["before"][0].values())}
    assert called["after"][1] is not None
    assert called["after"][1].value == 0
    assert called["before"] != called["after"]


def test_the_report_of_all_folds_is_verified_by_what_the_other_folds_fitted(crc_release: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(crc_release, tmp_path / crc_release.name)
    states = files.read_json(copy / STATES)
    assert list(states) == ["1"]
    (decision,) = states["1"]["decisions"]
    decision["cuts"] = [1.0]
    files.write_json(copy / STATES, states)
    checkpoint.seal(copy, checkpoint.unverified(copy))
    assert any("cuts" in problem for problem in verify(copy))


def test_the_report_groups_patients_by_the_stored_cut_where_no_tool_asks_for_groups() -> None:
    evaluation = refitted(survival(), Cox(), resamples=5)
    (groups,) = evaluation.state(0).risk_groups
    moved = {
        fold: state.model_copy(update={"risk_groups": (lowered(state),)}) for fold, state in evaluation.states.items()
    }
    before, after = (RiskGroups.compute(each) for each in (evaluation, replace(evaluation, states=moved)))
    assert before is not None
    assert after is not None
    assert before.fitted[0].cuts == groups.cuts
    assert after.fitted[0].cuts == (groups.cuts[0] - 0.5,)
    assert after.groups[0].n < before.groups[0].n


def lowered(state: FittedState) -> Decision:
    (groups,) = state.risk_groups
    return groups.model_copy(update={"cuts": (groups.cuts[0] - 0.5,)})

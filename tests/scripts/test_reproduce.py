"""Published numbers beside ours: the files agree, the rules hold, and what takes seconds is computed again."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DATA = Path(os.environ.get("MIL_REAL_DATA", "no-real-data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="$MIL_REAL_DATA does not name a folder of real data")


@pytest.fixture(scope="module")
def reproduce(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("reproduce")


def value_of(reproduce: ModuleType, name: str, low: float | None = None, high: float | None = None) -> Any:
    words = {"n": "7 patients", "met": False, "version": "0", "date": "2026-01-01"}
    return reproduce.Reproduced(name=name, value=0.5, low=low, high=high, **words)


def test_each_published_number_has_protocol_source_and_study(reproduce: ModuleType) -> None:
    rows = reproduce.published()
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.study in reproduce.STUDIES
        assert row.rule in {"equal", "at_least"}
        assert row.protocol
        assert row.source
        assert row.checked
        assert row.tolerance >= 0


def test_verdicts_are_what_values_and_tolerances_say(reproduce: ModuleType) -> None:
    rows = {row.name: row for row in reproduce.published()}
    ours = reproduce.reproduced()
    assert {row.name for row in rows.values() if row.quick} <= {row.name for row in ours}
    for row in ours:
        assert row.met == rows[row.name].met_by(row.value), row.name


def test_page_is_what_the_tables_say(reproduce: ModuleType) -> None:
    assert reproduce.PAGE.read_text() == reproduce.page(reproduce.published(), reproduce.reproduced())


@pytest.mark.parametrize(
    ("rule", "value", "met"),
    [
        ("equal", 0.705, True),
        ("equal", 0.695, True),
        ("equal", 0.711, False),
        ("equal", 0.689, False),
        ("at_least", 0.9, True),
        ("at_least", 0.69, True),
        ("at_least", 0.689, False),
        ("at_least", float("nan"), False),
    ],
)
def test_tolerance_counts_on_the_side_that_the_rule_names(
    reproduce: ModuleType, rule: str, value: float, met: bool
) -> None:
    row = reproduce.published()[0].model_copy(update={"published": 0.7, "tolerance": 0.01, "rule": rule})
    assert row.met_by(value) == met


def test_row_that_misses_its_number_is_shown_as_not_met(reproduce: ModuleType) -> None:
    row = reproduce.published()[0]
    ours = value_of(reproduce, row.name, low=0.4, high=0.6)
    page = reproduce.page([row], [ours])
    assert "0.500 (0.400 to 0.600) | 7 patients | **not met**" in page
    assert "**0 of 1 rows are met**" in page


def test_fresh_value_replaces_the_stored_value_of_its_row_only(
    reproduce: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "REPRODUCED", tmp_path / "reproduced.csv")
    first, second = (value_of(reproduce, row.name) for row in reproduce.published()[:2])
    changed = second.model_copy(update={"value": 0.25, "met": True})
    reproduce.store([first, second, changed], reproduce.published())
    assert reproduce.reproduced() == [first, changed]


def test_missing_data_and_unknown_rows_are_refused(
    reproduce: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce", "quick", "--data", str(tmp_path / "none")])
    assert reproduce.main() == 2
    assert f"{tmp_path / 'none'} does not exist" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["reproduce", "nonesuch", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match="nonesuch"):
        reproduce.main()


@needs_data
def test_rows_that_take_seconds_are_met_again(reproduce: ModuleType, tmp_path: Path) -> None:
    stored = {row.name: row for row in reproduce.reproduced()}
    rows = reproduce.published()
    quick = list(dict.fromkeys(row.study for row in rows if row.quick))
    fresh = list(reproduce.measured(rows, quick, DATA, tmp_path))
    assert {row.name for row in fresh} == {row.name for row in rows if row.quick}
    for row in fresh:
        assert row.met, row.name
        assert row.value == pytest.approx(stored[row.name].value, abs=1e-4), row.name

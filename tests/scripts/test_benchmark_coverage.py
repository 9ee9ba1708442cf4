"""The simulation of what intervals and verdicts hold: every study runs, and its table says what it measured."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def coverage(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmark_coverage")


def test_every_study_measures_its_rows(coverage: ModuleType) -> None:
    for name, study in coverage.STUDIES.items():
        design = study.designs[-1]
        n = 300 if name == "synthesis" else 40  # sites of fewer patients are not pooled
        rows = coverage._measured((name, n, design, 1))
        assert rows
        for row in rows:
            assert (row.n, row.design, row.trials) in ((n, design, 1), (n, design, 0))
            assert row.kind == "mean" or row.nominal in (0.95, 0.05, 0.025)
            assert row.trials == 0 or row.kind == "mean" or row.measured in (0, 1)


def test_a_trial_depends_on_its_number_alone(coverage: ModuleType) -> None:
    first, second = (coverage._measured(("calls", 40, "hold-out", 3)) for _ in range(2))
    assert first == second


def test_true_values_are_those_of_other_software(coverage: ModuleType) -> None:
    from sklearn.metrics import average_precision_score, brier_score_loss

    rng = np.random.default_rng(1)
    label = rng.random(400_000) < coverage.PREVALENCE
    score = rng.normal(size=len(label)) + 1.2 * label
    assert coverage.average_precision_of(1.2) == pytest.approx(average_precision_score(label, score), abs=0.005)
    odds = 1.2 * score - 0.72 + np.log(coverage.PREVALENCE / (1 - coverage.PREVALENCE))
    assert coverage.true_brier(1.2) == pytest.approx(brier_score_loss(label, 1 / (1 + np.exp(-odds))), abs=0.002)


def test_the_table_marks_what_is_off(coverage: ModuleType) -> None:
    def row(name: str, measured: float, error: float = 0.01, n: int = 40) -> object:
        kind, nominal = coverage._nominal(name)
        return coverage.Row(name, n, "hold-out", nominal, kind, measured, error, 200, 0.0)

    rows = [
        row("a interval", 0.85),
        row("b interval", 0.93),
        row("c interval", 1.0, 0.005),
        row("d: wrongly called better", 0.2),
        row("e: wrongly called better", 0.0, 0.005),
        row("f interval", 0.89, 0.03),
    ]
    table = coverage.Cells()
    table.update(rows)
    page = coverage._page(table, None)
    lines = {line.split("|")[1].strip()[:1]: line for line in page.splitlines() if line.startswith("| ")}
    assert "**0.850 ± 0.010**" in lines["a"]
    assert "| 0.930 ± 0.010 |" in lines["b"]
    assert "*1.000 ± 0.005*" in lines["c"]
    assert "**0.200 ± 0.010**" in lines["d"]
    assert "*0.000 ± 0.005*" in lines["e"]
    assert "| 0.890 ± 0.030 |" in lines["f"]
    assert "unsafe side: a interval (hold-out, n 40: 0.850); d: wrongly called better" in page


def test_a_study_is_measured_again_without_losing_the_others(coverage: ModuleType, tmp_path: Path) -> None:
    def row(name: str, n: int, measured: float) -> object:
        return coverage.Row(name, n, "hold-out", 0.95, "coverage", measured, 0.01, 200, 0.0)

    first, path = coverage.Cells(), tmp_path / "coverage.md"
    first.update([row("a", 40, 0.85), row("a", 100, 0.95), row("b", 40, 0.5)])
    path.write_text(coverage._page(first, None) + f"\n{coverage.BY_HAND}\n\nWritten by hand.\n")
    again = coverage.read_cells(path)
    assert (again.cells, again.nominal) == (first.cells, first.nominal)
    again.update([row("b", 40, 0.94), row("c", 300, 0.99)])
    page = coverage._page(again, path)
    assert "| a | 0.95 | **0.850 ± 0.010** | 0.950 ± 0.010 | · |" in page
    assert "| b | 0.95 | 0.940 ± 0.010 | · | · |" in page
    assert "| c | 0.95 | · | · | 0.990 ± 0.010 |" in page
    assert "unsafe side: a (hold-out, n 40: 0.850)." in page
    assert page.endswith("\nWritten by hand.\n")

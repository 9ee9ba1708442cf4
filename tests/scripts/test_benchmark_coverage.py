"""The simulation of what intervals and verdicts hold: every study runs, and its table says what it measured."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def coverage(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmark_coverage")


@pytest.fixture(scope="module")
def table(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("coverage_studies.measured_table")


def test_every_study_measures_its_rows(coverage: ModuleType) -> None:
    for name, study in coverage.STUDIES.items():
        n = 300 if name == "synthesis" else 40  # sites of fewer patients are not pooled
        outcomes = coverage._Outcomes(None)
        job = coverage.Job(name, n, study.designs[-1], 0, 1)
        outcomes.add(job, coverage._measured(job))
        rows = list(outcomes.rows())
        assert rows
        for row in rows:
            assert (row.n, row.design, row.trials) in ((n, job.design, 1), (n, job.design, 0))
            assert row.kind == "mean" or row.nominal in (0.95, 0.05, 0.025)
            assert row.trials == 0 or row.kind == "mean" or row.measured in (0, 1)


def test_a_trial_depends_on_its_number_alone(coverage: ModuleType) -> None:
    first = coverage._measured(coverage.Job("calls", 40, "hold-out", 0, 3))
    assert coverage._measured(coverage.Job("calls", 40, "hold-out", 1, 2)) == first[1:]


def test_a_run_that_was_stopped_goes_on(coverage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[object]()
    measured = coverage._measured

    class Here:
        """A pool of this process."""

        def __init__(self, *_: object, **__: object) -> None:
            drawn.clear()

        def __enter__(self) -> "Here":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def map(self, _: object, jobs: list[object]) -> list[object]:
            drawn.extend(jobs)
            return [measured(job) for job in jobs]

    monkeypatch.setattr(coverage, "ProcessPoolExecutor", Here)
    kept = [f"--outcomes={tmp_path / 'trials.jsonl'}", f"--out={tmp_path / 'coverage.md'}"]
    for trials, jobs in (("20", 6), ("20", 0), ("40", 3)):  # 20 times the study's share of 2.5: two chunks of each size
        monkeypatch.setattr("sys.argv", ["script", "--studies", "calls", "--trials", trials, *kept])
        coverage.main()
        assert len(drawn) == (jobs if trials == "20" else 6)
    alone = coverage._Outcomes(tmp_path / "trials.jsonl")
    [sensitivity] = [row for row in alone.rows() if row.n == 40 and row.name.startswith("proportion: sensitivity")]
    assert sensitivity.trials == 100
    text = f"| {sensitivity.measured:.3f} ± {sensitivity.error:.3f} |"
    assert text in (tmp_path / "coverage.md").read_text().replace("*", "")


def test_true_values_are_those_of_other_software(script: Callable[[str], ModuleType]) -> None:
    from sklearn.metrics import average_precision_score, brier_score_loss
    from sklearn.metrics import log_loss as compute_log_loss

    rng = np.random.default_rng(1)
    simulated, areas = script("coverage_studies.simulated"), script("coverage_studies.areas")
    label = rng.random(400_000) < simulated.PREVALENCE
    score = rng.normal(size=len(label)) + 1.2 * label
    assert areas.average_precision_of(1.2) == pytest.approx(average_precision_score(label, score), abs=0.005)
    odds = 1.2 * score - 0.72 + simulated.BASE_LOGIT
    brier, log_loss = script("coverage_studies.probabilities").true_losses(1.2)
    assert brier == pytest.approx(brier_score_loss(label, 1 / (1 + np.exp(-odds))), abs=0.002)
    assert log_loss == pytest.approx(compute_log_loss(label, 1 / (1 + np.exp(-odds))), abs=0.005)


def test_the_table_marks_what_is_off(table: ModuleType) -> None:
    def row(name: str, measured: float, error: float = 0.01, n: int = 40) -> object:
        kind, nominal = table.nominal_of(name)
        return table.Row(name, n, "hold-out", nominal, kind, measured, error, 200, 0.0)

    rows = [
        row("a interval", 0.85),
        row("b interval", 0.93),
        row("c interval", 1.0, 0.005),
        row("d: wrongly called better", 0.2),
        row("e: wrongly called better", 0.0, 0.005),
        row("f interval", 0.921, 0.03),
    ]
    cells = table.Cells()
    cells.update(rows)
    page = table.page(cells, None)
    lines = {line.split("|")[1].strip()[:1]: line for line in page.splitlines() if line.startswith("| ")}
    assert "**0.850 ± 0.010**" in lines["a"]
    assert "| 0.930 ± 0.010 |" in lines["b"]
    assert "*1.000 ± 0.005*" in lines["c"]
    assert "**0.200 ± 0.010**" in lines["d"]
    assert "*0.000 ± 0.005*" in lines["e"]
    assert "| 0.921 ± 0.030 |" in lines["f"]
    assert "unsafe side: a interval (hold-out, n 40: 0.850); d: wrongly called better" in page


def test_a_study_is_measured_again_without_losing_the_others(table: ModuleType, tmp_path: Path) -> None:
    def row(name: str, n: int, measured: float) -> object:
        return table.Row(name, n, "hold-out", 0.95, "coverage", measured, 0.01, 200, 0.0)

    first, path = table.Cells(), tmp_path / "coverage.md"
    first.update([row("a", 40, 0.85), row("a", 100, 0.95), row("b", 40, 0.5)])
    path.write_text(table.page(first, None) + f"\n{table.BY_HAND}\n\nWritten by hand.\n")
    again = table.read_cells(path)
    assert (again.cells, again.nominal) == (first.cells, first.nominal)
    again.update([row("b", 40, 0.94), row("c", 300, 0.99)])
    page = table.page(again, path)
    assert "| a | 0.95 | **0.850 ± 0.010** | 0.950 ± 0.010 | · |" in page
    assert "| b | 0.95 | 0.940 ± 0.010 | · | · |" in page
    assert "| c | 0.95 | · | · | *0.990 ± 0.010* |" in page
    assert "unsafe side: a (hold-out, n 40: 0.850)." in page
    assert page.endswith("\nWritten by hand.\n")


def test_a_cell_of_more_cohorts_is_not_replaced_by_one_of_fewer(table: ModuleType) -> None:
    cells = table.Cells()
    for measured, error in ((0.94, 0.01), (0.91, 0.03), (0.93, 0.01), (0.95, 0.008)):
        cells.update([table.Row("a", 40, "hold-out", 0.95, "coverage", measured, error, 200, 0.0)])
        if error == 0.03:
            assert cells.cells["a", "hold-out", 40] == "0.940 ± 0.010"
    assert cells.cells["a", "hold-out", 40] == "0.950 ± 0.008"

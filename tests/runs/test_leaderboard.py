"""A table of many runs: who is ranked against whom, and that its differences are paired."""

import numpy as np
import pandas as pd
import pytest

from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.report.evaluation import Evaluation
from mil.report.figures.style import styled
from mil.report.metric_intervals import metric_intervals
from mil.report.paired_difference import paired_differences
from mil.runs.leaderboard import COLUMNS, Entry, against_best, leaderboard
from mil.runs.leaderboard_plot import draw_leaderboard
from tests.report.tables import binary, refitted, survival


def entry(name: str, table: pd.DataFrame, baseline: pd.DataFrame | None = None) -> Entry:
    def of(rows: pd.DataFrame) -> Evaluation:
        return refitted(rows, Binary(), {"name": "msi"}, resamples=100)

    return Entry(name, of(table), "abmil", "uni", None if baseline is None else of(baseline))


RUNS = [
    entry("poor", binary(patients=300, folds=5, noise=4.0), binary(patients=300, folds=5, noise=2.0)),
    entry("best", binary(patients=300, folds=5, noise=0.1), binary(patients=300, folds=5, noise=2.0)),
    entry("fair", binary(patients=300, folds=5, noise=1.0)),
]


def test_runs_are_ranked_by_the_metric_with_paired_differences() -> None:
    table = leaderboard(RUNS)
    assert list(table.columns) == list(COLUMNS)
    assert table["run"].tolist() == ["best", "fair", "poor"]
    assert table["rank"].tolist() == [1, 2, 3]
    assert table["value"].is_monotonic_decreasing
    assert pd.isna(table["behind"].iloc[0])
    best, poor = RUNS[1].evaluation, RUNS[0].evaluation
    value, behind = metric_intervals(poor)["auroc"], paired_differences(poor, best.folds)["auroc"]
    row = table.iloc[2]
    assert row[["value", "low", "high"]].tolist() == pytest.approx([value.value, value.low, value.high])
    assert row[["behind", "behind_low", "behind_high"]].tolist() == pytest.approx(
        [behind.value, behind.low, behind.high]
    )
    assert row["behind_zero_excluded"] is True
    assert pd.isna(table["over_baseline"].iloc[1])
    assert table["over_baseline"].iloc[0] > 0 > table["over_baseline"].iloc[2]


def test_runs_of_other_patients_or_targets_are_never_ranked_against_each_other() -> None:
    table = binary()
    fewer, turned = table[table["patient"] > "050"], table.assign(label=1 - table["label"])
    board = leaderboard([*RUNS, entry("fewer", fewer), entry("turned", turned)])
    assert board["group"].tolist() == [1, 1, 1, 2, 3]
    assert board["rank"].tolist() == [1, 2, 3, 1, 1]
    assert board.loc[board["group"] > 1, "behind"].isna().all()


def test_a_run_without_a_metric_has_no_rank() -> None:
    nobody = binary().assign(label=0)
    board = leaderboard([entry("a", nobody), entry("b", nobody)])
    assert board["rank"].isna().all()
    assert board["value"].isna().all()


def test_the_best_is_compared_with_each_other_run_of_its_group() -> None:
    fewer = binary()[binary()["patient"] > "050"]
    comparisons = against_best([*RUNS, entry("fewer", fewer)])
    assert [each.names for each in comparisons] == [("best", "fair"), ("best", "poor")]
    assert all((each.p_adjusted or 0) >= (each.p or 1) for each in comparisons)
    assert {each.adjusted_by for each in comparisons} == {"studentised range of all pairs"}
    pair = against_best(RUNS[:2])
    assert [each.p_adjusted for each in pair] == [None]


def test_the_leader_of_a_hold_out_is_judged_by_the_largest_difference_of_all_pairs() -> None:
    runs = [entry(str(seed), binary(folds=1, noise=1.0).sample(frac=1, random_state=seed)) for seed in range(3)]
    names = {"equal", *(each.adjusted_by or "equal" for each in against_best(runs))}
    assert names == {"equal", "max-t of all pairs"}


def test_the_order_of_the_runs_changes_no_number() -> None:
    forwards, backwards = leaderboard(RUNS), leaderboard(RUNS[::-1])
    pd.testing.assert_frame_equal(forwards, backwards)


def test_every_run_is_in_the_figure_with_its_interval() -> None:
    survivors = Entry("$c$", refitted(survival(), Cox(), {"name": "surv"}, resamples=20))
    nobody = entry("none", binary().assign(label=0))
    with styled():
        figure = draw_leaderboard(leaderboard([*RUNS, survivors, nobody]))
        figure.draw_without_rendering()
    assert len(figure.axes) == 3
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert sum("not estimable" in text for text in texts) == 1
    assert len(texts) == 5
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks == ["1  best", "2  fair", "3  poor"]
    assert np.isclose(figure.get_size_inches()[0], 6.3)

"""Scores by true class: the shares are those of the table, the cuts are the frozen ones."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mil.endpoints.classification import Binary
from mil.report.figures.score_distribution import score_distribution
from tests.report import tables
from tests.report.tables import refitted

from .cases import evaluated


def drawn(name: str) -> Figure:
    figure = score_distribution(evaluated(name)[0])
    assert figure is not None
    return figure


def cuts_of(axes: Axes) -> list[float]:
    """Probabilities at which a dashed vertical line stands."""
    places = [np.asarray(line.get_xdata())[0] for line in axes.lines if line.get_linestyle() == "--"]
    return [float(1 / (1 + np.exp(-place))) for place in places]


def test_each_class_adds_up_to_one_on_its_side_of_the_line() -> None:
    axes = drawn("binary").axes[0]
    heights = np.array([bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)])
    assert heights[heights > 0].sum() == pytest.approx(1)
    assert heights[heights < 0].sum() == pytest.approx(-1)
    middles = np.array([bar.get_x() + bar.get_width() / 2 for bar in axes.patches if isinstance(bar, Rectangle)])
    mean_positive, mean_negative = (
        np.average(middles[side], weights=abs(heights[side])) for side in (heights > 0, heights < 0)
    )
    assert mean_positive > mean_negative


def test_the_cuts_of_all_folds_stand_where_the_decision_has_them() -> None:
    _, report = evaluated("binary")
    frozen = sorted({cut for fold in report.operating_points.decisions[0].cuts for cut in fold or ()})
    axes = drawn("binary").axes[0]
    np.testing.assert_allclose(cuts_of(axes), frozen, atol=1e-9)
    assert axes.get_title(loc="left").startswith("1: ")


def test_two_stated_cuts_are_drawn_on_the_scores_that_they_cut() -> None:
    decision = {"rule": "two_cuts", "low": 0.2, "high": 0.9}
    evaluation = refitted(tables.binary(), Binary(), {"decision": decision, "calibration": "platt"}, resamples=5)
    figure = score_distribution(evaluation)
    assert figure is not None
    np.testing.assert_allclose(cuts_of(figure.axes[0]), [0.2, 0.9])
    assert "cut 0.200, 0.900" in figure.axes[0].get_title(loc="left")


def test_every_question_has_a_panel_and_a_missing_answer_is_in_none() -> None:
    figure = drawn("multilabel")
    titles = [axes.get_title(loc="left").split(":") for axes in figure.axes[:2]]
    assert [title[0] for title in titles] == ["first", "second"]
    first, second = (int(title[1].split(" of ")[1].split()[0]) for title in titles)
    assert second < first
    assert cuts_of(drawn("ordinal").axes[0]) == []
    assert score_distribution(evaluated("survival")[0]) is None

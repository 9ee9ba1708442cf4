"""Calibration panels: titles that fit, and axes that fit low risks."""

import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from mil.endpoints.classification import Multiclass
from mil.report.figures.calibration_plot import calibration, calibration_horizon
from mil.report.figures.style import styled
from mil.report.sections.calibration import Calibration
from mil.report.sections.horizon import HorizonCalibration, at_horizon
from tests.report.tables import multiclass, refitted

SEVEN = ("normal", "benign", "usual-hyperplasia", "flat-atypia", "atypical-hyperplasia", "in-situ", "invasive")


@pytest.mark.parametrize("classes", [SEVEN, SEVEN[:4], SEVEN[:3]], ids=len)
def test_titles_do_not_overlap_and_stay_on_the_figure(classes: tuple[str, ...]) -> None:
    evaluation = refitted(multiclass(classes=classes, patients=280), Multiclass(classes=classes), resamples=20)
    section = Calibration.compute(evaluation)
    assert section is not None
    with styled():
        figure = calibration(evaluation, section.questions)
        assert figure is not None
        figure.draw_without_rendering()
        titles = [title for axes in figure.axes if (title := axes.get_title(loc="left"))]
        boxes = [text.get_window_extent() for text in figure.findobj(Text) if text.get_text() in titles]
    assert len(boxes) == len(classes)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_axes_end_a_little_above_the_highest_risk() -> None:
    rng = np.random.default_rng(0)
    risk = rng.uniform(0.001, 0.03, 800)
    time = rng.exponential(-60 / np.log1p(-risk))
    numbers = at_horizon(risk, np.minimum(time, 60), (time <= 60).astype(float), 60, resamples=20)
    figure = calibration_horizon([HorizonCalibration(horizon="5y", time=60, column="risk_5y", **dict(numbers))])
    assert figure is not None
    highest = max(fifth.observed.high or 0 for fifth in numbers.quintiles)
    assert highest < figure.axes[0].get_ylim()[1] < 0.12

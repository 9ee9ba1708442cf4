"""Figures can be read: no text is cut off or covers another, colours differ for every reader, axes fit the data."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mil.endpoints.classification import Multiclass
from mil.report.assemble import evaluate
from mil.report.evaluation import Evaluation
from mil.report.figures.incidence import axis_end, incidence
from mil.report.figures.kaplan_meier import axis_start
from mil.report.figures.risk_groups import risk_groups
from mil.report.figures.style import RISK_COLOURS, fit_texts, in_lines, panels
from mil.report.schema import Report
from tests.report import tables
from tests.report.tables import refitted

from .cases import CASES, evaluated

SEVEN = ("normal", "benign", "usual-hyperplasia", "flat-atypia", "atypical-hyperplasia", "in-situ", "invasive")
PROTANOPIA = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
DEUTERANOPIA = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
"""Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009, severity 1.0, of linear RGB."""


def seven_classes() -> tuple[Evaluation, Report]:
    """A report of seven classes with long names, as the subtypes of a breast lesion."""
    evaluation = refitted(tables.multiclass(classes=SEVEN, patients=210), Multiclass(classes=SEVEN), resamples=10)
    return evaluation, evaluate(evaluation)


def figures_of(evaluation: Evaluation, report: Report) -> dict[str, Figure]:
    """Every figure of a report, laid out as it is saved."""
    figures = {
        drawing.name: drawing.figure
        for section in report.ordered_sections()
        for drawing in section.drawings(evaluation, report)
        if drawing.figure is not None
    }
    for figure in figures.values():
        fit_texts(figure)
    return figures


WHY = "every resample gives this value: these patients do not show how certain it is"


def without_intervals(node: Any) -> Any:
    """A report in JSON types, of patients who are too few for any interval of an estimate."""
    if isinstance(node, list):
        return [without_intervals(item) for item in node]
    if not isinstance(node, dict):
        return node
    bounded = {"value", "low", "high", "level"} <= node.keys()
    kept = {key: item for key, item in node.items() if not (bounded and key in ("low", "high", "second"))}
    return {key: without_intervals(item) for key, item in kept.items()} | ({"reason": WHY} if bounded else {})


@pytest.mark.parametrize("intervals", [True, False], ids=["", "without intervals"])
@pytest.mark.parametrize("name", [*CASES, "seven classes"])
def test_no_title_legend_or_label_is_cut_off_or_covers_another_panel(name: str, intervals: bool) -> None:
    evaluation, report = seven_classes() if name == "seven classes" else evaluated(name)
    if not intervals:
        report = Report.model_validate(without_intervals(report.model_dump(mode="json")))
    for key, figure in figures_of(evaluation, report).items():
        legends = [*(axes.get_legend() for axes in figure.axes), *figure.legends]
        titles = {axes: axes._left_title for axes in figure.axes if axes.get_title(loc="left")}  # type: ignore[attr-defined]
        labels = [label for axes in figure.axes if axes.axison for label in (axes.xaxis.label, axes.yaxis.label)]
        for artist in (*titles.values(), *labels, *(legend for legend in legends if legend is not None)):
            box = artist.get_window_extent()
            text = getattr(artist, "get_text", lambda: "legend")()
            assert box.x0 >= -1, (key, text)
            assert box.x1 <= figure.bbox.x1 + 1, (key, text)
            assert box.y0 >= -1, (key, text)
            assert box.y1 <= figure.bbox.y1 + 1, (key, text)
        for (_, first), (_, second) in combinations(titles.items(), 2):
            assert not first.get_window_extent().overlaps(second.get_window_extent()), (key, first.get_text())


def test_panels_of_one_figure_are_equally_wide_whatever_their_titles_are() -> None:
    figure, all_axes = panels(7)
    for axes, name in zip(all_axes, SEVEN, strict=True):
        axes.set(xlabel="Threshold probability", ylabel="Net benefit")
        axes.set_title(f"{name}: 22 of 240")
    fit_texts(figure)
    widths = [axes.get_window_extent().width for axes in all_axes]
    assert max(widths) - min(widths) < 2
    assert all_axes[4].get_title(loc="left").startswith("atypical-hyperplasia:")
    assert "\n" in all_axes[4].get_title(loc="left")


def lightness(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*, a* and b* of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ rgb / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def linear(colour: str) -> NDArray[np.float64]:
    """Linear RGB of a colour."""
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def test_risk_groups_differ_in_grey_and_for_colour_blind_readers() -> None:
    for lower, higher in combinations(RISK_COLOURS, 2):
        grey = [lightness(linear(colour))[0] for colour in (lower, higher)]
        assert grey[0] - grey[1] > 15  # darker with the risk
        for matrix in (PROTANOPIA, DEUTERANOPIA):
            seen = [lightness(np.clip(np.array(matrix) @ linear(colour), 0, 1)) for colour in (lower, higher)]
            assert np.linalg.norm(seen[0] - seen[1]) > 25
    assert [group.colour for group in risk_groups(*evaluated("survival"))] == list(RISK_COLOURS)


def test_axes_of_incidence_and_survival_fit_the_curves() -> None:
    assert axis_end(0.103) == pytest.approx(0.118, abs=0.001)
    assert axis_end(0.0) == 0.05
    assert axis_end(0.95) == 1.02
    assert axis_start(0.3) == 0.0
    assert axis_start(0.87) == pytest.approx(0.7)
    evaluation, report = evaluated("competing_risks")
    figure = incidence(evaluation, report)
    assert figure is not None
    curves = [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]
    assert figure.axes[0].get_ylim()[1] == pytest.approx(axis_end(max(curve.max() for curve in curves)))
    assert figure.axes[0].get_ylim()[0] < 0


def test_long_names_are_broken_into_lines_and_the_rest_is_cut() -> None:
    assert in_lines("normal or benign or usual-hyperplasia", 18) == "normal or benign\nor usual-\nhyperplasia"
    assert in_lines("a b c d e f g h", 3, most=2) == "a b\nc …"
    assert in_lines("$x$", 10) == r"\$x\$"

"""Kaplan-Meier and incidence curves against lifelines and scikit-survival, with the numbers at risk."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from matplotlib.axes import Axes
from sksurv.nonparametric import cumulative_incidence_competing_risks

from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.survival import Cox
from mil.report.assemble import evaluate
from mil.report.figures.incidence import incidence
from mil.report.figures.kaplan_meier import kaplan_meier
from mil.report.figures.risk_groups import risk_groups
from tests.report.tables import refitted, survival

from .cases import evaluated


def test_curves_of_three_groups_are_lifelines_with_the_numbers_at_risk_below() -> None:
    evaluation, report = evaluated("survival")
    figure, groups = kaplan_meier(evaluation, report), risk_groups(evaluation, report)
    assert figure is not None
    (axes,) = figure.axes
    assert [name for name, _, _ in groups] == ["low risk", "intermediate risk", "high risk"]
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    for line, (_, patients, _) in zip(steps, groups, strict=True):
        fit = KaplanMeierFitter().fit(patients["time"], patients["event"])
        np.testing.assert_allclose(np.asarray(line.get_ydata()), fit.survival_function_.to_numpy()[:, 0])
    assert len({str(line.get_linestyle()) for line in steps}) == 3  # told apart without colour
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
    rows = [[name, *(str(int((group["time"] >= tick).sum())) for tick in ticks)] for name, group, _ in groups]
    assert [text.get_text() for text in axes.texts] == ["at risk", *(cell for row in rows for cell in row)]


def test_the_legend_says_hazard_ratios_and_log_rank() -> None:
    evaluation, report = evaluated("survival")
    figure = kaplan_meier(evaluation, report)
    assert figure is not None
    title = _legend(figure.axes[0])
    assert title[0] == "HR intermediate vs low:"
    assert title[2] == "HR high vs low:"
    assert title[4] == "HR high vs intermediate:"
    assert title[6].startswith("log-rank p ")
    assert "120 patients" in figure.axes[0].get_title(loc="left")


def test_without_groups_one_curve_of_all_patients_is_drawn() -> None:
    evaluation = refitted(survival().query("role == 'report'"), Cox(), resamples=5)
    report = evaluate(evaluation)
    assert "groups" not in report.sections
    figure = kaplan_meier(evaluation, report)
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts][:3] == ["at risk", "all patients", "120"]


def test_incidences_are_those_of_scikit_survival() -> None:
    evaluation, report = evaluated("competing_risks")
    assert isinstance(evaluation.endpoint, CompetingRisks)
    figure, groups = incidence(evaluation, report), risk_groups(evaluation, report)
    assert figure is not None
    (axes,) = figure.axes
    steps = iter(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    for _, patients, _ in groups:
        time, code = evaluation.endpoint.encode(evaluation.reported.loc[patients.index]).numpy().T
        moments, expected = cumulative_incidence_competing_risks(code.astype(int), time)
        for cause in (1, 2):
            line = next(steps)
            at = np.searchsorted(moments, np.asarray(line.get_xdata())[1:-1])
            np.testing.assert_allclose(np.asarray(line.get_ydata())[1:-1], expected[cause][at], rtol=1e-12)
    assert axes.get_title(loc="left").startswith("C-index of relapse 0.")
    assert kaplan_meier(evaluation, report) is None


@pytest.mark.parametrize("name", ["binary", "regression"])
def test_patients_who_are_not_followed_have_no_curve(name: str) -> None:
    assert kaplan_meier(*evaluated(name)) is None
    assert incidence(*evaluated(name)) is None


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return legend.get_title().get_text().split("\n")

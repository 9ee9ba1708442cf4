"""Groups and figure of competing risks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from matplotlib.figure import Figure
from sksurv.nonparametric import cumulative_incidence_competing_risks

from mil.endpoints.aft import Weibull
from mil.endpoints.competing_risks import CompetingRisks
from mil.evaluation.figures import draw
from mil.evaluation.groups import assign, groups
from mil.evaluation.incidence import draw_incidence
from mil.evaluation.predictions import checked
from mil.evaluation.report import evaluate

from .tables import survival

ENDPOINT = CompetingRisks(causes=("relapse", "death"))


def competed() -> pd.DataFrame:
    """The patients of `survival`, of whom every fourth dies of something else; `risk` instead of a log hazard."""
    table = survival()
    words = np.where(table["event"] == 1, "relapse", "censored")
    risk = 1 / (1 + np.exp(-table["log_hazard"] + 10 * table["fold"]))
    return table.assign(event=np.where(table["patient"].astype(int) % 4 == 0, "death", words), risk=risk)


def test_hazards_of_groups_are_those_of_the_first_cause() -> None:
    table = checked(competed(), ENDPOINT)
    patients, found = assign(table, ENDPOINT)[0], groups(table, ENDPOINT)
    assert found is not None
    first = table.drop_duplicates("patient").set_index("patient")["event"] == "relapse"
    assert (patients["event"] == first.loc[patients.index]).all()
    fit = CoxPHFitter().fit(patients.astype(float), "time", "event").summary.loc["high"]
    assert found["hazard_ratio"]["value"] == pytest.approx(fit["exp(coef)"])


def test_the_curves_are_those_of_scikit_survival() -> None:
    table = checked(competed(), ENDPOINT)
    report, axes = evaluate(table, ENDPOINT, resamples=20), Figure().add_subplot()
    draw_incidence(axes, table, ENDPOINT, report)
    patients, _ = assign(table, ENDPOINT)
    codes = ENDPOINT.encode(table.drop_duplicates("patient").set_index("patient").loc[patients.index]).numpy()
    steps = iter(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    for high in (False, True):
        time, code = codes[patients["high"] == high].T
        moments, expected = cumulative_incidence_competing_risks(code.astype(int), time)
        for cause in (1, 2):
            line = next(steps)
            at = np.searchsorted(moments, np.asarray(line.get_xdata())[1:-1])
            np.testing.assert_allclose(np.asarray(line.get_ydata())[1:-1], expected[cause][at], rtol=1e-12)
    title = axes.get_title(loc="left")
    assert title.startswith("C-index of relapse 0.")
    assert f"120 patients, {report['patients']['events']} events, {report['patients']['death']} death" in title


def test_each_endpoint_has_its_figure(tmp_path: Path) -> None:
    table = competed()
    assert [path.name for path in draw(table, ENDPOINT, evaluate(table, ENDPOINT, resamples=20), tmp_path)] == [
        "incidence.png",
        "incidence.svg",
    ]
    single = survival().rename(columns={"log_hazard": "risk"})
    drawn = draw(single, Weibull(), evaluate(single, Weibull(), resamples=20), tmp_path)
    assert [path.name for path in drawn] == ["kaplan_meier.png", "kaplan_meier.svg"]


def test_without_groups_one_pair_of_curves_of_all_patients_is_drawn() -> None:
    table = checked(competed().query("role == 'report'"), ENDPOINT)
    axes = Figure().add_subplot()
    draw_incidence(axes, table, ENDPOINT, evaluate(table, ENDPOINT, resamples=20))
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text()[:22] for text in legend.get_texts()] == ["all patients, relapse:", "all patients, death: 3"]

"""Figures: the numbers behind the lines, and files that depend on nothing but those numbers."""

import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from mil.endpoints.base import Endpoint
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.survival import Cox
from mil.evaluation import roc
from mil.evaluation.figures import draw
from mil.evaluation.groups import assign
from mil.evaluation.kaplan_meier import draw_survival
from mil.evaluation.predictions import checked, report_folds
from mil.evaluation.report import evaluate
from mil.evaluation.roc import GRID, curves, draw_binary, draw_multiclass

from .tables import binary, multiclass, names, survival

CLASSES = Multiclass(classes=("a", "b", "c"))
CASES = [(Binary(), binary(), "roc"), (CLASSES, multiclass(), "roc"), (Cox(), survival(), "kaplan_meier")]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roc, "RESAMPLES", 40)


@pytest.mark.parametrize(("endpoint", "table", "name"), CASES, ids=["binary", "multiclass", "survival"])
def test_the_same_numbers_give_the_same_bytes(
    endpoint: Endpoint, table: pd.DataFrame, name: str, tmp_path: Path
) -> None:
    report = evaluate(table, endpoint, resamples=20)
    before, pyplot = dict(mpl.rcParams), "matplotlib.pyplot" in sys.modules
    written = draw(table, endpoint, report, tmp_path / "one" / "figures")
    again = draw(table.sample(frac=1, random_state=0), endpoint, report, tmp_path / "two")
    assert [path.name for path in written] == [f"{name}.png", f"{name}.svg"]
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
    png, svg = written[0].read_bytes(), written[1].read_text()
    assert png.startswith(b"\x89PNG")
    assert b"tEXt" not in png
    assert re.search("<dc:date>|<dc:creator>|http://matplotlib.org", svg) is None


def test_the_area_under_the_drawn_curves_is_the_reported_one() -> None:
    folds = report_folds(checked(binary(), Binary()), Binary())
    found, report = curves(folds, 0, 1), evaluate(binary(), Binary(), resamples=20)
    assert found is not None
    assert found.area == pytest.approx(report["metrics"]["auroc"]["value"], abs=1e-12)
    assert np.trapezoid(found.folds.mean(0), GRID) == pytest.approx(found.area, abs=0.01)
    assert (np.diff(found.folds, axis=1) >= 0).all()
    assert (found.low <= found.high).all()
    false, true, _ = roc_curve(folds[1].target, folds[1].logits[:, 0])
    np.testing.assert_allclose(found.folds[1], np.interp(GRID, false, true))


def test_a_fold_with_one_class_draws_no_curve() -> None:
    table = binary()
    folds = report_folds(checked(table.assign(label=table["label"].where(table["fold"] > 0, 0)), Binary()), Binary())
    found = curves(folds, 0, 1)
    assert found is not None
    assert len(found.folds) == 2
    assert curves(folds[:1], 0, 1) is None


def test_a_roc_figure_says_auroc_interval_positives_and_folds() -> None:
    table = binary()
    oracle = pd.DataFrame({"patient": names(120), "oracle": np.arange(120.0)})
    report = evaluate(table, Binary(), baseline=table, oracle=oracle, resamples=20)
    axes = Figure().add_subplot()
    draw_binary(axes, report_folds(checked(table, Binary()), Binary()), Binary(), report)
    legend = axes.get_legend()
    assert legend is not None
    said = [text.get_text() for text in legend.get_texts()]
    found, positives = report["metrics"]["auroc"], report["patients"]["1"]
    numbers = f"AUROC {found['value']:.2f} ({found['low']:.2f}–{found['high']:.2f})"
    assert said == [f"{numbers}\n{positives} of 120 positive, 3 folds", "95% band", "single folds", "chance"]
    assert legend.get_title().get_text().startswith("oracle 0.")
    assert "\nmean pooling, linear 0." in legend.get_title().get_text()
    assert len(axes.lines) == 1 + 3 + 1  # chance, folds, mean


def test_each_class_has_its_curve() -> None:
    report, axes = evaluate(multiclass(), CLASSES, resamples=20), Figure().add_subplot()
    draw_multiclass(axes, report_folds(checked(multiclass(), CLASSES), CLASSES), CLASSES, report)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text()[:2] for text in legend.get_texts()] == ["ch", "a:", "b:", "c:"]
    assert axes.get_title(loc="left").startswith(f"Macro AUROC {report['metrics']['macro_auroc']['value']:.2f} (")


def test_a_survival_figure_shows_lifelines_curves_and_the_numbers_at_risk() -> None:
    table = checked(survival(), Cox(unit="days"))
    report, axes = evaluate(table, Cox(), resamples=20), Figure().add_subplot()
    draw_survival(axes, table, Cox(unit="days"), report)
    patients, _ = assign(table, Cox())
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    for line, high in zip(steps, (False, True), strict=True):
        group = patients[patients["high"] == high]
        fit = KaplanMeierFitter().fit(group["time"], group["event"])
        np.testing.assert_allclose(np.asarray(line.get_ydata()), fit.survival_function_.to_numpy()[:, 0])
    said = [text.get_text() for text in axes.texts]
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
    at_risk = {high: [int((group["time"] >= tick).sum()) for tick in ticks] for high, group in patients.groupby("high")}
    rows = [*map(str, at_risk[False])], [*map(str, at_risk[True])]
    assert said == ["at risk", "low risk", *rows[0], "high risk", *rows[1]]
    assert axes.get_xlabel() == "Time (days)"
    legend = axes.get_legend()
    assert legend is not None
    assert re.match(r"hazard ratio .*\nlog-rank p [<=] 0\.\d+$", legend.get_title().get_text())
    assert "120 patients" in axes.get_title(loc="left")


def test_without_groups_one_curve_of_all_patients_is_drawn() -> None:
    table = checked(survival().query("role == 'report'"), Cox())
    axes = Figure().add_subplot()
    draw_survival(axes, table, Cox(), evaluate(table, Cox(), resamples=20))
    assert [text.get_text() for text in axes.texts][:3] == ["at risk", "all patients", "120"]


def test_what_cannot_be_scored_is_drawn_as_not_estimable(tmp_path: Path) -> None:
    nobody, unseen, alike = binary().assign(label=0), survival().assign(event=0), multiclass().assign(label="a")
    cases: list[tuple[Endpoint, pd.DataFrame]] = [(Binary(), nobody), (Cox(), unseen), (CLASSES, alike)]
    for endpoint, table in cases:
        _, svg = draw(table, endpoint, evaluate(table, endpoint, resamples=20), tmp_path)
        assert "<!-- " in svg.read_text()  # matplotlib writes each text of the figure as a comment
        assert "not estimable" in svg.read_text()

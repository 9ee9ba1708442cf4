"""Intervals of metrics of predicted numbers: a jackknife by hand, over all folds, and a caveat for heavy tails."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from mil.cards.section_parts import estimates_table
from mil.endpoints.regression import Regression
from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import metric_intervals
from mil.report.schema import Row
from mil.report.value_intervals import TAILS, UNSEEN
from mil.study.tool import Tool
from tests.estimates import holds, triple
from tests.report.tables import names

Scale = Callable[[NDArray[np.float64], NDArray[np.float64]], float]
Back = Callable[[float], float]


def evaluation(rng: np.random.Generator, patients: int, folds: int = 1, freedom: float | None = None) -> Evaluation:
    value = rng.normal(size=patients)
    error = rng.normal(size=patients) if freedom is None else rng.standard_t(freedom, patients)
    columns = {"fold": np.arange(patients) % folds, "role": "report", "score": value + error, "value": value}
    return Evaluation.of(
        pd.DataFrame({"patient": names(patients), **columns}), Regression("score"), Tool(), resamples=20
    )


@pytest.mark.parametrize("folds", [1, 3])
def test_the_jackknife_is_that_of_leaving_out_one_patient_of_all_folds(folds: int) -> None:
    given = evaluation(np.random.default_rng(0), 40, folds)
    metrics, t = metric_intervals(given), stats.t.ppf(0.975, 39)
    value, true = given.reported["value"].to_numpy(), given.reported["score"].to_numpy()
    scales: dict[str, tuple[Scale, Back]] = {
        "mae": (lambda v, y: np.log(np.abs(v - y).mean()), np.exp),
        "r2": (lambda v, y: np.log(((v - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()), lambda z: 1 - np.exp(z)),
        "pearson": (lambda v, y: np.arctanh(np.corrcoef(v, y)[0, 1]), np.tanh),
    }
    for name, (forth, back) in scales.items():
        left = np.array([forth(np.delete(value, at), np.delete(true, at)) for at in range(40)])
        error = np.sqrt(39 / 40 * ((left - left.mean()) ** 2).sum())
        ends = sorted(back(forth(value, true) + side * t * error) for side in (-1, 1))
        assert list(triple(metrics[name])[1:]) == pytest.approx(ends, rel=1e-6)
        assert (metrics[name].method or "").endswith("errors pooled over folds") == (folds > 1)
        assert metrics[name].caveat == (None if name == "mae" else UNSEEN)


def test_heavy_tails_have_a_caveat_that_card_and_page_print() -> None:
    metrics = metric_intervals(evaluation(np.random.default_rng(1), 300, freedom=3))
    assert metrics["r2"].caveat == TAILS
    table = estimates_table([Row("R²", metrics["r2"], "metrics.r2")], "report.json:")
    assert table is not None
    assert f"[{TAILS}]" in table.rows[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("patients", [40, 100])
def test_intervals_cover_with_few_patients(patients: int) -> None:
    """300 cohorts: Monte-Carlo error 0.013. The percentile interval of the mean absolute error held 0.84 of 40."""
    truth = {"r2": 0.5, "pearson": 0.5**0.5, "mae": (2 / np.pi) ** 0.5}
    held = {name: list[bool]() for name in truth}
    for seed in range(300):
        metrics = metric_intervals(evaluation(np.random.default_rng([seed, patients]), patients))
        for name, value in truth.items():
            held[name].append(holds(metrics[name], value))
    assert {name: abs(np.mean(each) - 0.95) < 0.03 + 0.026 for name, each in held.items()} == dict.fromkeys(truth, True)

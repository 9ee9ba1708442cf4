"""What conformal sets of every fold did for reported patients."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.fitted import conformal as fitting
from mil.fitted.options import ConformalOptions
from mil.fitted.state import FittedState
from mil.report.evaluation import Evaluation
from mil.report.sections.prediction_sets import PredictionSets
from mil.study.tool import Tool
from tests.report import tables
from tests.report.tables import refitted

ASKED: dict[str, Any] = {"conformal": {"coverage": 0.8}}


def of(table: pd.DataFrame, endpoint: Endpoint, tool: dict[str, Any] = ASKED) -> Any:
    result = PredictionSets.compute(refitted(table, endpoint, tool, resamples=50))
    assert result is not None
    return result


def numbers(seed: int = 0, patients: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    score = rng.normal(size=patients)
    columns = {"patient": tables.names(patients), "score": score}
    design = tables.roles(rng, patients, 3)
    tables_by_fold = [
        pd.DataFrame({**columns, "fold": fold, "role": role, "value": score + rng.normal(size=patients)})
        for fold, role in design
    ]
    return pd.concat(tables_by_fold, ignore_index=True)


def test_every_reported_patient_counts_once_by_the_limits_of_the_own_fold() -> None:
    table = tables.multiclass(patients=150)
    result = of(table, Multiclass(classes=("a", "b", "c")))
    hits, sizes = [], []
    for _, rows in table.groupby("fold"):
        limits = fitting.fit(
            ConformalOptions(coverage=0.8), Multiclass(classes=("a", "b", "c")), rows[rows["role"] == "select"]
        )
        assert limits is not None
        report = rows[rows["role"] == "report"]
        sets = [set(text.split("|")) - {""} for text in limits.apply(report)["set"]]
        hits += [label in members for label, members in zip(report["label"], sets, strict=True)]
        sizes += [len(members) for members in sets]
    (part,) = result.parts
    interval = stats.binomtest(sum(hits), 150).proportion_ci(0.95, "exact")
    assert part.n == 150
    assert part.coverage.value == pytest.approx(np.mean(hits))
    assert part.coverage.second.low == pytest.approx(interval.low)
    assert part.mean_size.value == pytest.approx(np.mean(sizes))
    assert part.mean_size.low < np.mean(sizes) < part.mean_size.high
    assert part.singletons.counts["successes"] == sizes.count(1)
    assert part.empty.counts["successes"] == sizes.count(0)
    by_class = [each.coverage for each in part.by_class]
    assert sum(each.counts["successes"] for each in by_class) == sum(hits)
    assert [limit.fold for limit in part.fitted] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_reported_labels_change_no_limit() -> None:
    table = tables.binary()
    reported = table["role"] == "report"
    relabelled = table.assign(label=table["label"].where(~reported, 1 - table["label"]))
    ours, theirs = (of(each, Binary()).parts[0] for each in (table, relabelled))
    assert ours.fitted == theirs.fitted
    assert ours.coverage != theirs.coverage


def test_frozen_limits_are_applied_and_never_fitted_anew() -> None:
    table = tables.binary()
    trained = fitting.fit(ConformalOptions(coverage=0.8), Binary(), table[table["role"] == "train"])
    assert trained is not None
    rows = table[table["fold"] == 0].assign(role="report")
    result = PredictionSets.compute(
        Evaluation.of(rows, Binary(), Tool.parse(ASKED), resamples=50, states={0: FittedState(conformal=trained)})
    )
    assert result is not None
    limits = [(limit.of, limit.n, limit.cut) for limit in result.parts[0].fitted]
    assert limits == [(limit.of, limit.n, limit.cut) for limit in trained.parts[0].limits]
    assert PredictionSets.compute(Evaluation.of(rows, Binary(), Tool.parse(ASKED))) is None


def test_labels_have_parts_of_their_own() -> None:
    table = tables.binary().rename(columns={"p_1": "p_x", "label": "x"})
    table = table.assign(y=1 - table["x"], p_y=1 - table["p_x"]).astype({"x": str, "y": str})
    table.loc[table["patient"] < "010", "y"] = ""
    labels = of(table, Multilabel(("x", "y"))).parts
    assert [(part.name, part.n) for part in labels] == [("x", 120), ("y", 110)]


def test_intervals_have_a_width_and_a_verdict() -> None:
    (part,) = of(numbers(), Regression()).parts
    assert part.kind == "interval"
    assert 1.5 < part.mean_width.value < 4
    assert part.verdict == "as asked, within its interval"


def test_limits_that_leave_nothing_out_are_said_and_have_no_width() -> None:
    result = of(numbers(), Regression(), {"conformal": {"coverage": 0.99}})
    (part,) = result.parts
    assert part.coverage.value == 1
    assert (part.mean_width.value, part.mean_width.reason) == (None, "90 of 90 intervals have no end.")
    assert len(result.notes) == 3


def test_a_model_that_promises_too_much_is_told() -> None:
    table = numbers(patients=300)
    away = table["value"] + np.where(table["role"] == "report", 5.0, 0)
    (part,) = of(table.assign(value=away), Regression()).parts
    assert part.verdict == "below what was asked"


@pytest.mark.parametrize(
    ("table", "endpoint", "tool"),
    [
        (tables.binary(), Binary(), {}),
        (tables.binary(), Binary(), {"conformal": None}),
        (tables.survival(), Cox(), ASKED),
    ],
)
def test_where_none_is_asked_or_possible_there_is_no_section(
    table: pd.DataFrame, endpoint: Endpoint, tool: dict[str, Any]
) -> None:
    assert PredictionSets.compute(refitted(table, endpoint, tool)) is None

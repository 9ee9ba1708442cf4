"""Metrics within sites, how well the site is told, and what random folds owe to it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival import Cox
from mil.errors import PredictionsError
from mil.report.sections.site_effects import Sites
from mil.runs.design_gap import gap
from mil.stats.bootstrap_intervals import difference
from mil.stats.site_signature import site_predictability
from tests.estimates import holds, triple, value_of
from tests.report.tables import binary, multiclass, names, refitted, survival


def clinic(patients: int, site: object) -> pd.DataFrame:
    return pd.DataFrame({"site": site}, index=names(patients))


def test_a_result_that_is_the_sites_is_gone_within_sites() -> None:
    """Site A has most positives and higher scores; within each site the score says nothing."""
    rng = np.random.default_rng(0)
    site = np.repeat(["A", "B"], 200)
    label = (rng.random(400) < np.where(site == "A", 0.8, 0.2)).astype(int)
    score = 1 / (1 + np.exp(-np.where(site == "A", 1, -1) - rng.normal(size=400) / 2))
    table = pd.DataFrame({"patient": names(400), "fold": 0, "role": "report", "label": label, "p_1": score})
    evaluation = refitted(table, Binary(), patients=clinic(400, site), resamples=200)
    section = Sites.compute(evaluation)
    assert section is not None
    assert roc_auc_score(label, score) > 0.7
    assert holds(section.within_sites.estimate, 0.5)
    assert section.within_sites.estimate.n == 400
    for row in section.sites:
        members = site == row.site
        assert row.estimate.value == pytest.approx(roc_auc_score(label[members], score[members]), abs=1e-12)
        assert (row.counts["n"], row.counts["1"]) == (200, label[members].sum())
    predicted = {name: value_of(members.macro_auroc) for name, members in section.told_by.items()}
    assert predicted["score_and_label"] > predicted["label"] + 0.1
    assert section.beyond_label is not None
    beyond = section.beyond_label.macro_auroc
    assert value_of(beyond) == pytest.approx(predicted["score_and_label"] - predicted["label"], abs=1e-12)
    assert beyond is not None
    assert beyond.low is not None
    assert beyond.low > 0
    assert Sites.model_validate_json(section.model_dump_json()) == section


def test_a_site_with_few_positives_keeps_its_row_without_a_metric() -> None:
    table = binary(patients=200)
    site = np.where(np.arange(200) < 12, "small", np.where(np.arange(200) % 2, "B", "C"))
    patients = clinic(200, site)
    patients.loc[["197", "198", "199"], "site"] = ["", "unknown", None]
    section = Sites.compute(refitted(table, Binary(), patients=patients, resamples=50))
    assert section is not None
    assert [row.site for row in section.sites] == ["B", "C", "small"]
    small = section.sites[2]
    assert small.estimate.value is None
    assert small.estimate.n == small.counts["n"] == 12
    assert str(small.estimate).startswith("not estimable: ")
    assert section.missing == 3
    assert section.within_sites.sites == 2
    assert section.within_sites.estimate.n == sum(row.counts["n"] for row in section.sites[:2])


@pytest.mark.parametrize(
    ("endpoint", "table"),
    [(Multiclass(classes=("a", "b", "c")), multiclass(patients=180)), (Cox(), survival(patients=200))],
    ids=["multiclass", "survival"],
)
def test_every_endpoint_has_its_own_metric_by_site(endpoint: Endpoint, table: pd.DataFrame) -> None:
    patients = clinic(table["patient"].nunique(), "A")
    patients.iloc[::2] = "B"
    section = Sites.compute(refitted(table, endpoint, patients=patients, resamples=30))
    assert section is not None
    assert section.metric == endpoint.metric
    for row in section.sites:
        value, low, high = triple(row.estimate)
        assert low <= value <= high


def test_nothing_is_said_without_sites() -> None:
    table = binary()
    for patients in (None, clinic(120, "A").drop(columns="site"), clinic(120, "A"), clinic(120, "")):
        assert Sites.compute(refitted(table, Binary(), patients=patients, resamples=10)) is None


def test_embeddings_with_a_signature_tell_the_site_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    site = np.repeat(["A", "B", "C", "tiny", ""], [50, 40, 30, 3, 2])
    noise = rng.normal(size=(125, 200))
    blank = site_predictability(noise, site.tolist(), 200)
    assert (blank.n, blank.sites, blank.left_out) == (120, 3, 5)
    for estimate, chance in ((blank.macro_auroc, 0.5), (blank.balanced_accuracy, 1 / 3)):
        _, low, high = triple(estimate)
        assert low < chance < high
    signature = {"A": 0, "B": 1, "C": 2, "tiny": 3, "": 4}
    shifted = noise + 2 * rng.normal(size=(5, 200))[[signature[name] for name in site]]
    predicted = site_predictability(shifted, site.tolist(), 200)
    assert value_of(predicted.macro_auroc) > 0.95
    assert value_of(predicted.balanced_accuracy) > 0.8
    assert predicted.macro_auroc is not None
    assert predicted.macro_auroc.p == 0.005
    assert blank.macro_auroc is not None
    assert (blank.macro_auroc.p or 0) > 0.05
    assert predicted == site_predictability(shifted, site.tolist(), 200)
    nothing = site_predictability(noise[:3], ["A", "B", "C"])
    assert (nothing.balanced_accuracy, nothing.macro_auroc) == (None, None)
    assert "sites of 5 patients or more: 0" in str(nothing.reason)


def test_the_gap_of_a_run_to_itself_is_none_and_to_another_is_the_paired_difference() -> None:
    table = binary(noise=0.5)
    rng = np.random.default_rng(5)
    worse = table.assign(p_1=1 / (1 + np.exp(-np.log(table["p_1"] / (1 - table["p_1"])) - 3 * rng.normal(size=360))))
    random, preserved = (refitted(first, Binary(), resamples=300) for first in (table, worse))
    none = gap(random, random)
    assert (none.difference.value, none.difference.low, none.difference.high) == (0, 0, 0)
    assert none.sentence.startswith("no gap is shown")
    section = gap(random, preserved)
    expected = difference(Binary().score, random.folds, preserved.folds, 300)["auroc"]
    assert section.paired
    assert section.difference.n == 120
    assert triple(section.difference) == pytest.approx(triple(expected), abs=1e-12)
    assert section.sentence.startswith("random folds flatter")


def test_a_gap_whose_interval_contains_zero_is_not_shown() -> None:
    table = binary(noise=1.0)
    rng = np.random.default_rng(1)
    logit = np.log(table["p_1"] / (1 - table["p_1"])) + 0.05 * rng.normal(size=len(table))
    slightly = table.assign(p_1=1 / (1 + np.exp(-logit)))
    result = gap(*(refitted(rows, Binary(), resamples=300) for rows in (table, slightly)))
    _, low, high = triple(result.difference)
    assert low < 0 < high
    assert result.sentence.startswith("no gap is shown")


def test_other_patients_are_drawn_apart_and_other_questions_refused() -> None:
    table = binary()
    fewer = table[table["patient"] != "000"]
    first, second = (refitted(rows, Binary(), resamples=100) for rows in (table, fewer))
    section = gap(first, second)
    assert not section.paired
    assert section.difference.n == 239
    (_, low, high), (_, random_low, random_high) = triple(section.difference), triple(section.random)
    assert high - low > random_high - random_low, "nothing cancels out"
    with pytest.raises(PredictionsError, match="gap: Cox of time, event, expected Binary of label"):
        gap(first, refitted(survival(), Cox(), resamples=10))


def test_a_gap_between_designs_of_few_patients_is_no_verdict() -> None:
    few = refitted(binary().groupby("label").head(8), Binary(), resamples=50)
    result = gap(few, few)
    assert result.difference.low is None
    assert "cannot be estimated: too few for a verdict" in result.sentence

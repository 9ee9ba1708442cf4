"""Random-effects synthesis over sites: which measures, of which sites, and that the numbers are those of the sites."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from mil.endpoints.classification import Binary
from mil.endpoints.survival import Cox
from mil.report.sections.site_synthesis import SiteSynthesis
from mil.stats import delong
from mil.stats.random_effects import pool
from tests.estimates import triple
from tests.report.followed import with_risks
from tests.report.tables import binary, names, refitted


def several_sites(patients: int, sites: int) -> pd.DataFrame:
    return pd.DataFrame({"site": [f"site {at % sites}" for at in range(patients)]}, index=names(patients))


def hold_out(patients: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = (rng.random(patients) < 0.4).astype(int)
    score = 1 / (1 + np.exp(-(1.4 * (rng.normal(size=patients) + label) - 1.2)))
    return pd.DataFrame({"patient": names(patients), "fold": 0, "role": "report", "label": label, "p_1": score})


def test_the_areas_of_the_sites_are_pooled_on_the_logit_scale() -> None:
    table, clinic = hold_out(), several_sites(400, 4)
    clinic.iloc[:12, 0] = "small"
    section = SiteSynthesis.compute(refitted(table, Binary(), patients=clinic, resamples=10))
    assert section is not None
    assert [measure.name for measure in section.measures] == ["AUROC", "observed/expected", "calibration slope"]
    values, errors = [], []
    for at in range(4):
        rows = table[(clinic["site"] == f"site {at}").to_numpy()]
        area = delong.area(rows["p_1"], rows["label"] == 1)
        values.append(logit(area.value))
        errors.append(area.variance**0.5 / (area.value * (1 - area.value)))
    expected, measure = pool(values, errors), section.measures[0]
    assert measure.left_out == ("small",)
    assert measure.mean.counts == {"n": 388, "sites": 4}
    mean, low, high = triple(measure.mean)
    assert (logit(mean), logit(low), logit(high)) == pytest.approx((expected.mean, expected.low, expected.high))
    assert measure.tau2 == pytest.approx(expected.tau2)
    further = triple(measure.further_site)
    assert further[1] <= low
    assert further[2] >= high
    assert measure.sentence.startswith(f"AUROC: {measure.mean} on average over 4 sites; at a further site")


def test_sites_that_differ_widen_what_is_expected_at_a_further_one() -> None:
    table, clinic = hold_out(600), several_sites(600, 6)
    worse = clinic["site"].isin(["site 0", "site 1"]).to_numpy()
    table.loc[worse, "p_1"] = np.random.default_rng(1).permutation(table.loc[worse, "p_1"])
    section = SiteSynthesis.compute(refitted(table, Binary(), patients=clinic, resamples=10))
    assert section is not None
    area = section.measures[0]
    assert area.p < 0.01
    assert area.i2 > 0.5
    assert triple(area.further_site)[1] < 0.55 < triple(area.mean)[0]


def test_folds_are_not_compared_and_survival_has_its_own_measures() -> None:
    clinic = several_sites(300, 3)
    folds = SiteSynthesis.compute(refitted(binary(patients=300), Binary(), patients=clinic, resamples=10))
    assert folds is not None
    table = with_risks(patients=300)
    section = SiteSynthesis.compute(refitted(table, Cox(horizons={"3y": 36}), patients=clinic, resamples=10))
    assert section is not None
    assert [measure.name for measure in section.measures] == [
        "C-index",
        "observed/expected, 3y",
        "calibration slope, 3y",
    ]
    assert [measure.scale for measure in section.measures] == ["logit", "logarithm", "as it is"]
    assert triple(section.measures[0].mean)[0] > 0.6
    assert SiteSynthesis.model_validate_json(section.model_dump_json()) == section


def test_two_sites_are_not_pooled() -> None:
    assert SiteSynthesis.compute(refitted(hold_out(), Binary(), patients=several_sites(400, 2), resamples=10)) is None

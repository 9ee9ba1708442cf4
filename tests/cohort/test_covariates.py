"""Covariates are encoded as numbers with missing-value indicators, fitted to the training patients only."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mil.cohort.covariates import Covariates
from mil.errors import CohortError, ConfigError


def table(**columns: list[object]) -> pd.DataFrame:
    patients = [f"p{number}" for number in range(len(next(iter(columns.values()))))]
    return pd.DataFrame(columns, index=pd.Index(patients, name="patient"), dtype=object)


CLINIC = table(
    age=["50", "NA", "70.0", "", "60"], sex=["F", "m", "?", "diverse", None], stage=["I", "II", "none", "III", "I"]
)
BOTH = Covariates(["age"], {"sex": ["F", "M"], "stage": ["none", "I", "II"]})


def test_encoded_columns_are_named() -> None:
    fitted = BOTH.fit(CLINIC)
    encoded = pd.DataFrame(fitted.encode(CLINIC).numpy(), index=CLINIC.index, columns=fitted.names)
    assert fitted.width == encoded.shape[1] == 2 + 4 + 5
    spread = float(np.std([50, 70, 60]))
    np.testing.assert_allclose(encoded["age"], np.array([-10, 0, 10, 0, 0]) / spread, rtol=1e-6, atol=1e-7)
    assert encoded["age=missing"].tolist() == [0, 1, 0, 1, 0]
    words = encoded.drop(columns=["age", "age=missing"])
    ones = [[name for name, value in row.items() if value == 1] for _, row in words.iterrows()]
    assert ones == [
        ["sex=F", "stage=I"],
        ["sex=M", "stage=II"],
        ["sex=missing", "stage=none"],
        ["sex=unknown", "stage=unknown"],
        ["sex=missing", "stage=I"],
    ]
    assert set(np.unique(words)) == {0, 1}


def test_values_outside_the_declared_levels_give_a_warning() -> None:
    warnings = BOTH.check(CLINIC)
    assert [warning.count for warning in warnings] == [1, 1]
    assert [warning.line for warning in warnings] == [
        "covariate sex: 1 of 5 patients have 'diverse', none of F, M, and count as unknown",
        "covariate stage: 1 of 5 patients have 'III', none of none, I, II, and count as unknown",
    ]


def test_nonnumeric_covariate_error_names_column_and_row() -> None:
    with pytest.raises(CohortError, match=r"column age, row of p1 \(and 1 more\): found 'old', expected a number"):
        Covariates(["age"]).check(table(age=["50", "old", "inf", "-"]))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.none()), min_size=1, max_size=20))
def test_observed_numbers_are_standardised(values: list[float | None]) -> None:
    clinic = table(x=["" if value is None else repr(value) for value in values])
    encoded = Covariates(["x"]).fit(clinic).encode(clinic).double()
    observed = encoded[encoded[:, 1] == 0, 0]
    assert encoded.isfinite().all()
    assert len(observed) == sum(value is not None for value in values)
    numbers = [value for value in values if value is not None]
    if len(numbers) > 1 and np.std(numbers) > 1e-3 * (1 + np.abs(numbers).max()):
        assert float(observed.mean()) == pytest.approx(0, abs=1e-5)
        assert float(observed.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_fit_returns_a_new_object_and_uses_only_given_patients() -> None:
    fitted = BOTH.fit(CLINIC.iloc[:3])
    assert (BOTH.mean, fitted.mean) == ([0.0], [60.0])
    changed = CLINIC.copy()
    changed.loc[["p3", "p4"], "age"] = "1000"
    assert BOTH.fit(changed.iloc[:3]).state() == fitted.state()
    assert torch.equal(fitted.encode(changed.iloc[:3]), fitted.encode(CLINIC.iloc[:3]))


def test_state_is_restored_and_an_invalid_one_refused() -> None:
    fitted, another = BOTH.fit(CLINIC), Covariates(["age"], BOTH.categorical)
    another.load_state(fitted.state())
    assert torch.equal(another.encode(CLINIC), fitted.encode(CLINIC))
    wrong: tuple[dict[str, list[float]], ...] = (
        {"mean": [], "sd": []},
        {"mean": [1.0], "sd": [0.0]},
        {"mean": [float("nan")], "sd": [1.0]},
    )
    for state in wrong:
        with pytest.raises(ValueError, match="expected one for each of 1"):
            another.load_state(state)


@pytest.mark.parametrize(
    ("numeric", "categorical"), [((), {}), (("a",), {"a": ["x"]}), ((), {"a": []}), ((), {"a": ["x", "X "]})]
)
def test_missing_or_ambiguous_declarations_are_refused(numeric: list[str], categorical: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match="expected one or more different ones"):
        Covariates(numeric, categorical)

"""The Cox endpoint: times and events in, log hazards and risks out."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index

from mil.endpoints.survival import Cox, breslow_hazard, cox_loss
from mil.errors import CohortError, ConfigError, MilError, PredictionsError

few = settings(deadline=None, max_examples=25)
HORIZONS = {"0": 0.0, "1y": 12.0, "3y": 36.0, "5y": 60.0, "ever": 1e9}


def table(**columns: list[object]) -> pd.DataFrame:
    """A cohort's patients, named p0, p1, ..."""
    rows = len(next(iter(columns.values())))
    return pd.DataFrame(columns, index=pd.Index([f"p{row}" for row in range(rows)], name="patient"), dtype=object)


def patients(seed: int = 0, count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `(p, 1)` and targets `(p, 2)`, times in months with ties."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(size=count)
    death, leaving = rng.exponential(40 * np.exp(-hazard)), rng.uniform(5, 100, count)
    target = np.stack([np.ceil(np.minimum(death, leaving)), death <= leaving], 1)
    return torch.tensor(hazard, dtype=torch.float32)[:, None], torch.tensor(target)


def finished(seed: int = 0) -> Cox:
    endpoint = Cox(horizons=HORIZONS)
    endpoint.finish(*patients(seed))
    return endpoint


@pytest.mark.parametrize("text", [True, False])
def test_times_and_events_are_read_as_text_or_numbers(text: bool) -> None:
    known = table(os=[3.5, 12, 1e3], dead=[1, 0, 1])
    target = Cox(time="os", event="dead").encode(known.astype(str) if text else known)
    assert target.dtype == torch.float64
    assert target.tolist() == [[3.5, 1], [12, 0], [1000, 1]]


@pytest.mark.parametrize(
    "found", [0, 0.0, -2.5, float("nan"), float("inf"), "0", "-1", "", "nan", "inf", "12 months", None]
)
def test_a_time_that_is_not_positive_is_an_error_naming_column_and_row(found: object) -> None:
    with pytest.raises(CohortError) as error:
        Cox().encode(table(time=[1, found, 3], event=[1, 0, 1]))
    assert str(error.value) == f"column time, row of p1: found {str(found)!r}, expected a positive number"


@pytest.mark.parametrize("found", [2, -1, 0.5, float("nan"), "2", "", "dead", "True", None])
def test_an_event_that_is_not_0_or_1_is_an_error_naming_column_and_row(found: object) -> None:
    with pytest.raises(CohortError) as error:
        Cox().encode(table(time=["1", "2", "3"], event=["0", "1", found]))
    assert str(error.value) == f"column event, row of p2: found {str(found)!r}, expected 0 (censored) or 1 (event)"


def test_further_wrong_rows_are_counted_in_the_same_line() -> None:
    with pytest.raises(CohortError, match=r"^column time, row of p0 \(and 2 more\): found 'a', expected [^\n]*$"):
        Cox().encode(table(time=["a", "b", "c", "1"], event=[1, 1, 1, 1]))


@pytest.mark.parametrize("found", [1.0, np.float64(-1), np.int64(0)])
def test_errors_show_values_and_not_how_numpy_writes_them(found: object) -> None:
    with pytest.raises(MilError) as error:
        Cox().encode(table(time=[found], event=[3]))
    assert "np." not in str(error.value)


def test_a_cohort_without_events_is_refused() -> None:
    with pytest.raises(CohortError, match="column dead: all 3 training patients are censored, expected events"):
        Cox(event="dead").fit(torch.tensor([[1.0, 0], [2, 0], [3, 0]]))


def test_hazards_have_no_classes_to_balance() -> None:
    with pytest.raises(ConfigError, match="no classes to balance"):
        Cox().fit(patients()[1], balance=True)


def test_other_ties_are_refused() -> None:
    with pytest.raises(ConfigError, match="ties 'exact', expected one of efron, breslow"):
        Cox(ties="exact")


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_the_loss_is_the_partial_likelihood_with_the_ties_chosen(ties: str) -> None:
    logits, target = patients()
    assert torch.equal(Cox(ties=ties).loss(logits, target), cox_loss(logits[:, 0], target[:, 0], target[:, 1], ties))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_score_is_the_c_index_of_lifelines(dtype: torch.dtype) -> None:
    logits, target = patients()
    score = Cox().score(logits.to(dtype), target)
    expected = concordance_index(target[:, 0], -logits.to(dtype).double()[:, 0], target[:, 1])
    assert Cox.metric in score
    assert score[Cox.metric] == pytest.approx(expected, abs=1e-12)


def test_weighted_scores_are_those_of_the_resampled_patients() -> None:
    logits, target = patients()
    weight = np.random.default_rng(0).integers(0, 3, (4, len(target)))
    expected = [
        Cox().score(logits[rows], target[rows])["c_index"] for rows in (np.repeat(range(80), row) for row in weight)
    ]
    np.testing.assert_allclose(Cox().score(logits, target, weight.astype(float))["c_index"], expected, atol=1e-12)


def test_a_fold_without_events_has_no_score() -> None:
    logits, target = patients()
    assert np.isnan(Cox().score(logits, target * torch.tensor([1, 0]))["c_index"])


@few
@given(hazards=st.lists(st.floats(-2000, 2000), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_risks_are_probabilities_that_rise_with_the_horizon_and_the_hazard(hazards: list[float], seed: int) -> None:
    columns = finished(seed).decode(torch.tensor(sorted(hazards), dtype=torch.float64)[:, None])
    assert list(columns) == ["log_hazard", *(f"risk_{name}" for name in HORIZONS)]
    risks = torch.stack([columns[f"risk_{name}"] for name in HORIZONS])  # (h, p)
    assert ((risks >= 0) & (risks <= 1)).all()
    assert (risks.diff(dim=0) >= 0).all()
    assert (risks.diff(dim=1) >= 0).all()
    assert not columns["risk_0"].any()


def test_risks_are_one_minus_the_survival_of_lifelines() -> None:
    logits, target = patients()
    known = pd.DataFrame({"x": logits[:, 0].double(), "time": target[:, 0], "event": target[:, 1]})
    fitted = CoxPHFitter().fit(known, "time", "event")
    endpoint = Cox(horizons=HORIZONS)
    fitted_logits = torch.tensor(fitted.predict_log_partial_hazard(known).to_numpy())[:, None]
    endpoint.finish(fitted_logits, target)
    survival = fitted.predict_survival_function(known, times=[12.0, 36.0, 60.0]).to_numpy()
    columns = endpoint.decode(fitted_logits)
    for row, name in enumerate(("1y", "3y", "5y")):
        np.testing.assert_allclose(columns[f"risk_{name}"], 1 - survival[row], rtol=1e-9)


def test_a_horizon_at_an_event_counts_the_event() -> None:
    endpoint = Cox(horizons={"before": 4.99, "at": 5.0})
    endpoint.finish(torch.zeros(2, 1), torch.tensor([[5.0, 1], [9, 0]]))
    risks = endpoint.decode(torch.zeros(1, 1))
    assert risks["risk_before"].item() == 0
    assert risks["risk_at"].item() == pytest.approx(1 - np.exp(-0.5))


def test_without_a_baseline_there_are_no_risks() -> None:
    assert list(Cox(horizons=HORIZONS).decode(torch.zeros(2, 1))) == ["log_hazard"]


def test_the_baseline_survives_a_json_document() -> None:
    endpoint, other = finished(), Cox(horizons=HORIZONS)
    other.load_state(json.loads(json.dumps(endpoint.state(), allow_nan=False)))
    logits, _ = patients(1)
    for name, values in endpoint.decode(logits).items():
        assert torch.equal(other.decode(logits)[name], values)
    assert other.baseline is not None
    times, hazards = breslow_hazard(patients()[0].double()[:, 0], *patients()[1].T)
    assert other.baseline == (times.tolist(), hazards.tolist())
    other.load_state(json.loads(json.dumps(Cox().state())))
    assert other.baseline is None  # what was never fitted takes the place of what was


@few
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_log_hazards_survive_a_file_to_the_bit(hazards: list[float]) -> None:
    logits = torch.tensor(hazards, dtype=torch.float64)[:, None]
    endpoint = finished()
    text = pd.DataFrame(endpoint.decode(logits)).to_csv(index=False)
    again = pd.read_csv(io.StringIO(text), float_precision="round_trip")
    assert torch.equal(endpoint.recode(again), logits)


def test_predictions_without_log_hazards_are_refused() -> None:
    with pytest.raises(PredictionsError, match=r"no column 'log_hazard', found risk, x$"):
        Cox().recode(pd.DataFrame({"risk": [1], "x": [2]}))


def test_patients_are_counted_with_their_events() -> None:
    assert Cox().counts(torch.tensor([[1.0, 1], [2, 0], [3, 1]])) == {"n": 3, "events": 2}
    assert Cox().counts(torch.zeros(0, 2)) == {"n": 0, "events": 0}


def test_strata_are_events_and_censorings_each_in_an_earlier_and_a_later_half() -> None:
    target = torch.tensor([[1.0, 1], [2, 1], [8, 1], [9, 1], [3, 0], [4, 0], [5, 0], [6, 0]], dtype=torch.float64)
    assert Cox().strata(target).tolist() == [2, 2, 3, 3, 0, 0, 1, 1]
    only_events = target[:4]
    assert Cox().strata(only_events).tolist() == [2, 2, 3, 3]

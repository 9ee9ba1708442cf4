"""Sets and intervals hold the truth as often as asked, or leave nothing out and say so."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import ConfigError
from mil.fitted import conformal
from mil.fitted.conformal import Conformal
from mil.fitted.options import METHODS, ConformalOptions, parse_conformal

GRADES = ("a", "b", "c", "d")


def classed(seed: int, patients: int, rare: float = 0.25) -> pd.DataFrame:
    """Columns label and p_<class>; the first class is common."""
    rng = np.random.default_rng(seed)
    place = np.where(rng.random(patients) < rare, rng.integers(1, 4, patients), 0)
    logits = rng.normal(size=(patients, 4)) + 1.5 * np.eye(4)[place] + [1.0, 0, 0, 0]
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table = pd.DataFrame(share, columns=[f"p_{name}" for name in GRADES])
    return table.assign(label=np.array(GRADES)[place])


def binary(seed: int, patients: int) -> pd.DataFrame:
    table = classed(seed, patients)
    label = np.where(table["label"] == "a", "MSS", "MSI-H")
    return pd.DataFrame({"p_MSI-H": 1 - table["p_a"], "label": label})


def numbered(seed: int, patients: int) -> pd.DataFrame:
    """A number, predictions of it, their spread and two quantiles that are too near."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.5, 2, patients)
    value = rng.normal(size=patients)
    table = pd.DataFrame({"score": value + spread * rng.normal(size=patients), "value": value, "value_sd": spread})
    return table.assign(value_q10=value - 0.5 * spread, value_q90=value + 0.5 * spread)


def held(fitted: Conformal, endpoint: Endpoint, table: pd.DataFrame) -> np.ndarray:
    """Whether each patient's truth lies within."""
    found = fitted.apply(table)
    if isinstance(endpoint, Regression):
        return ((found["low"] <= table["score"]) & (table["score"] <= found["high"])).to_numpy()
    return np.array([true in said.split("|") for true, said in zip(table["label"], found["set"], strict=True)])


@pytest.mark.parametrize(("coverage", "fewest"), [(0.9, 9), (0.95, 19), (0.8, 4), (0.99, 99), (0.5, 1)])
def test_the_rank_exists_from_the_stated_number_on_and_not_below(coverage: float, fewest: int) -> None:
    assert conformal.needed(coverage) == fewest
    assert conformal.limit("x", np.arange(float(fewest)), coverage).cut == fewest - 1
    assert conformal.limit("x", np.arange(float(fewest - 1)), coverage).cut is None


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_exchangeable_deviations_are_within_the_limit_as_often_as_asked(amount: int, coverage: float) -> None:
    cut = conformal.limit("x", np.random.default_rng(amount).permutation(amount).astype(float), coverage).reach
    # the next of amount + 1 patients has each rank with the same chance: it is within where that rank is low enough
    within = amount + 1 if math.isinf(cut) else int(cut) + 1
    assert coverage <= within / (amount + 1)
    assert math.isinf(cut) or (within - 1) / (amount + 1) < coverage


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("per_class", [True, False])
def test_sets_are_those_of_the_definition(method: str, per_class: bool) -> None:
    endpoint, select, table = Multiclass(classes=GRADES), classed(0, 150), classed(1, 60)
    asked = {"coverage": 0.8, "method": method, "per_class": per_class}
    fitted = conformal.fit(ConformalOptions.model_validate(asked), endpoint, select)
    assert fitted is not None

    def deviation(row: pd.Series, name: str) -> float:
        likelier = [row[f"p_{other}"] for other in GRADES if row[f"p_{other}"] > row[f"p_{name}"]]
        return float(1 - row[f"p_{name}"] if method == "lac" else sum(likelier))

    def cut(name: str) -> float:
        rows = select[select["label"] == name] if per_class else select
        found = sorted(deviation(row, row["label"]) for _, row in rows.iterrows())
        rank = math.ceil(round((len(found) + 1) * 0.8, 9))
        return found[rank - 1] if rank <= len(found) else math.inf

    cuts = {name: cut(name) for name in GRADES}
    expected = [
        "|".join(name for name in GRADES if deviation(row, name) <= cuts[name] + 1e-12) for _, row in table.iterrows()
    ]
    assert fitted.apply(table)["set"].tolist() == expected


def test_a_sure_and_a_doubtful_patient_of_a_binary_endpoint() -> None:
    fitted = conformal.fit(
        ConformalOptions(coverage=0.9, per_class=False), Binary("label", ("MSS", "MSI-H")), binary(0, 400)
    )
    assert fitted is not None
    said = fitted.apply(pd.DataFrame({"p_MSI-H": [0.999, 0.001, 0.5]}))["set"]
    assert said[0] == "MSI-H"
    assert said[1] == "MSS"
    assert said[2] in ("MSS|MSI-H", "")


def test_each_label_has_its_own_set_from_those_in_whom_it_is_known() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (80, 2))
    table = pd.DataFrame(np.clip(truth * 0.4 + 0.6 * rng.random((80, 2)), 0, 1), columns=["p_x", "p_y"])
    table = table.assign(x=truth[:, 0].astype(str), y=truth[:, 1].astype(str))
    table.loc[:19, "y"] = ""
    fitted = conformal.fit(ConformalOptions(coverage=0.9, per_class=False), Multilabel(("x", "y")), table)
    assert fitted is not None
    assert [part.limits[0].n for part in fitted.parts] == [80, 60]
    assert list(fitted.apply(table)) == ["set_x", "set_y"]


def test_a_grade_between_two_grades_of_a_set_is_in_it() -> None:
    table = pd.DataFrame([[0.49, 0.02, 0.47, 0.02]], columns=[f"p_{name}" for name in GRADES])
    limits = (conformal.Limit(of="all", n=9, cut=0.6),)
    grades, classes = (
        conformal.Sets(
            name="", classes=GRADES, columns=tuple(map(str, table)), method="lac", ordered=ordered, limits=limits
        )
        for ordered in (True, False)
    )
    assert (classes.apply(table)["set"][0], grades.apply(table)["set"][0]) == ("a|c", "a|b|c")
    for kind, ordered in ((Multiclass, False), (Ordinal, True)):
        fitted = conformal.fit(ConformalOptions(coverage=0.9), kind("label", GRADES), classed(0, 50))
        assert fitted is not None
        assert isinstance(fitted.parts[0], conformal.Sets)
        assert fitted.parts[0].ordered == ordered


def test_too_few_select_patients_leave_nothing_out_and_it_is_said() -> None:
    select = binary(0, 30)
    select = pd.concat([select[select["label"] == "MSS"], select[select["label"] == "MSI-H"].head(3)])
    fitted = conformal.fit(ConformalOptions(coverage=0.9), Binary("label", ("MSS", "MSI-H")), select)
    assert fitted is not None
    assert fitted.needed == 9
    assert all("MSI-H" in said for said in fitted.apply(binary(1, 50))["set"])
    assert fitted.notes() == ["conformal MSI-H: 3 select patients, a coverage of 0.9 needs 9: nothing is left out."]
    few = conformal.fit(ConformalOptions(coverage=0.9), Regression(), numbered(0, 8))
    assert few is not None
    assert np.isinf(few.apply(numbered(1, 5)).to_numpy()).all()


@pytest.mark.parametrize("loss", ["squared", "gaussian", "quantile"])
def test_intervals_hold_the_value_and_are_as_wide_as_the_patient_is_uncertain(loss: str) -> None:
    table = numbered(1, 400)
    fitted = conformal.fit(ConformalOptions(coverage=0.9), Regression(loss=loss), numbered(0, 400))
    assert fitted is not None
    found = fitted.apply(table)
    assert ((found["low"] <= table["value"]) & (table["value"] <= found["high"])).all()
    related = np.corrcoef(found["high"] - found["low"] + 1e-9 * table["value"], table["value_sd"])[0, 1]
    assert related > 0.9 if loss != "squared" else related < 0.2


def test_the_limit_of_gaussian_intervals_counts_multiples_of_each_patients_predicted_spread() -> None:
    select, table = numbered(0, 19), numbered(1, 5)
    fitted = conformal.fit(ConformalOptions(coverage=0.9), Regression(loss="gaussian"), select)
    assert fitted is not None
    multiples = np.sort((select["score"] - select["value"]).abs() / select["value_sd"])
    cut = multiples[17]  # of 19 patients rank ceil(20 * 0.9) = 18
    assert fitted.parts[0].limits[0].cut == pytest.approx(cut, abs=1e-12)
    intervals = fitted.apply(table)
    np.testing.assert_allclose(intervals["low"], table["value"] - cut * table["value_sd"], atol=1e-12)
    np.testing.assert_allclose(intervals["high"], table["value"] + cut * table["value_sd"], atol=1e-12)


def test_a_survival_endpoint_has_no_sets() -> None:
    assert (
        conformal.fit(
            ConformalOptions(coverage=0.9), Cox(), pd.DataFrame({"time": [1.0], "event": [1], "log_hazard": [0]})
        )
        is None
    )


@pytest.mark.parametrize(
    ("endpoint", "select", "table"),
    [
        (Binary("label", ("MSS", "MSI-H")), binary(0, 70), binary(1, 30)),
        (Ordinal("label", GRADES), classed(0, 70), classed(1, 30)),
        (Regression(loss="gaussian"), numbered(0, 70), numbered(1, 30)),
    ],
)
def test_what_is_frozen_says_the_same_again(endpoint: Endpoint, select: pd.DataFrame, table: pd.DataFrame) -> None:
    fitted = conformal.fit(ConformalOptions(coverage=0.9), endpoint, select)
    assert fitted is not None
    again = Conformal.model_validate_json(fitted.model_dump_json())
    assert again == fitted
    assert again.apply(table).equals(fitted.apply(table))


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "lac"},
        {"coverage": 1},
        {"coverage": True},
        {"coverage": 0.9, "methd": "lac"},
        {"coverage": 0.9, "method": "raps"},
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(asked: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^conformal: .*expected [^\n]*$"):
        parse_conformal(asked)


@pytest.mark.parametrize("change", [{"coverage": "x"}, {"parts": [{"kind": "net"}]}, {"more": 1}])
def test_a_state_that_is_none_is_refused(change: dict[str, object]) -> None:
    fitted = conformal.fit(ConformalOptions(coverage=0.9), Regression(), numbered(0, 20))
    assert fitted is not None
    with pytest.raises(ValidationError):
        Conformal.model_validate(fitted.model_dump() | change)


def reached(endpoint: Endpoint, draw: Callable[[int, int], pd.DataFrame], asked: dict[str, object]) -> float:
    """Coverage of 50 further patients by the limits of 100, mean over 200 cohorts."""
    found = []
    for seed in range(200):
        rows = draw(seed, 150)
        fitted = conformal.fit(ConformalOptions.model_validate(asked), endpoint, rows.head(100))
        assert fitted is not None
        found.append(held(fitted, endpoint, rows.tail(50)).mean())
    return float(np.mean(found))


def band(coverage: float) -> float:
    """Four standard errors of that mean: a coverage is a Beta given the limits, and 50 patients a binomial of it."""
    return float(4 * np.sqrt(coverage * (1 - coverage) * (1 / 102 + 1 / 50) / 200))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_over_many_cohorts_sets_hold_the_next_patients_as_often_as_asked(method: str, coverage: float) -> None:
    asked: dict[str, object] = {"coverage": coverage, "method": method, "per_class": False}
    found = reached(Multiclass(classes=GRADES), classed, asked)
    assert found >= coverage - band(coverage)
    assert method == "aps" or found <= coverage + 1 / 101 + band(coverage), "without ties at most a rank above"


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "gaussian", "quantile"])
def test_over_many_cohorts_intervals_hold_the_next_numbers_as_often_as_asked(loss: str) -> None:
    found = reached(Regression(loss=loss), numbered, {"coverage": 0.9})
    assert 0.9 - band(0.9) <= found <= 0.9 + 1 / 101 + band(0.9)


@pytest.mark.slow
def test_limits_of_a_class_hold_the_rare_one_as_often_as_asked_and_one_for_all_does_not() -> None:
    endpoint, rare = Binary("label", ("MSS", "MSI-H")), {True: list[float](), False: list[float]()}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        share = 1 / (1 + np.exp(2.2 - rng.normal(size=300)))  # what is predicted holds, for 15%
        label = np.where(rng.random(300) < share, "MSI-H", "MSS")
        rows = pd.DataFrame({"p_MSI-H": share, "label": label})
        for per_class, found in rare.items():
            fitted = conformal.fit(ConformalOptions(coverage=0.9, per_class=per_class), endpoint, rows.head(200))
            assert fitted is not None
            further = rows.tail(100)
            found.append(held(fitted, endpoint, further[further["label"] == "MSI-H"]).mean())
    assert np.mean(rare[True]) > 0.89
    assert np.mean(rare[False]) < 0.6

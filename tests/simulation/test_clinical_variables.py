"""Clinical variables of simulated patients: plausible, with the effects that their tool states, and without others."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from numpy.typing import NDArray
from scipy.special import expit

from mil import config
from mil.errors import ConfigError
from mil.simulation.clinical_variables import DEFAULT, SEVERITY, CategoricalVariable, Effect, NumericVariable, parse
from mil.simulation.simulated_cohort import Simulation, draw_patients, write
from mil.simulation.targets.cause_targets import CompetingRisks
from mil.simulation.targets.class_targets import Binary, Multiclass
from mil.simulation.targets.event_targets import Survival
from mil.simulation.targets.grade_targets import Ordinal
from mil.simulation.targets.label_targets import Multilabel
from mil.simulation.targets.simulated_target import Target
from mil.study import build
from mil.study.compose import compose

Floats = NDArray[np.float64]
CATEGORIES = ("workflow", "biomarker", "outcome", "response")
TOOLS = [name for name, node in config.described("tool").items() if node["tool"]["category"] in CATEGORIES]
BREAST = [name for name in TOOLS if config.described("tool")[name]["tool"]["organ"].startswith(("Breast", "Lymph"))]
PROSTATE = ["bcr-prostate", "isup-prostate"]
MANY = 8_000
FURTHEST = 4.0  # standard errors: about 300 estimates are compared, of one seed

every_tool = pytest.mark.parametrize("name", TOOLS)


@cache
def simulation(name: str) -> Simulation:
    return build.simulation(compose([f"tool={name}"]))


@cache
def clinic(name: str) -> pd.DataFrame:
    return draw_patients(replace(simulation(name), patients=MANY)).clinic


def design(variables: Mapping[str, CategoricalVariable | NumericVariable], table: pd.DataFrame) -> pd.DataFrame:
    """Columns of a regression: numbers in the units of their effects, levels against the first one."""
    columns = {}
    for name, variable in variables.items():
        if isinstance(variable, NumericVariable):
            columns[name] = (table[name] - variable.mean) / variable.per
        elif not variable.given:
            columns |= {f"{name}={level}": (table[name] == level) * 1.0 for level in list(variable.shares)[1:]}
    return pd.DataFrame(columns)


def logistic(x: pd.DataFrame, positive: "pd.Series[bool]") -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Coefficients and standard errors by Newton's method."""
    matrix = np.column_stack([np.ones(len(x)), x.to_numpy()])
    y, beta = np.where(positive, 1.0, 0.0), np.zeros(matrix.shape[1])
    for _ in range(30):
        mean = expit(matrix @ beta)
        covariance = np.linalg.inv((matrix * (mean * (1 - mean))[:, None]).T @ matrix)
        beta = beta + covariance @ matrix.T @ (y - mean)
    return pd.Series(beta[1:], x.columns), pd.Series(np.sqrt(np.diag(covariance))[1:], x.columns)


def stated(variables: Mapping[str, CategoricalVariable | NumericVariable], of: str, only: bool) -> dict[str, float]:
    """The log ratio of every column of the design on a class, label or cause."""
    expected: dict[str, float] = {}
    for name, variable in variables.items():
        effects = [effect for effect in variable.effects if effect.of == of or (only and effect.of is None)]
        ratio: float | dict[str, float] = effects[0].ratio if effects else 1.0
        assert len(effects) <= 1
        if isinstance(variable, NumericVariable):
            assert isinstance(ratio, float)
            expected[name] = np.log(ratio)
        elif not variable.given:
            by_level = ratio if isinstance(ratio, dict) else {}
            expected |= {f"{name}={level}": np.log(by_level.get(level, 1.0)) for level in list(variable.shares)[1:]}
    return expected


def regressions(name: str) -> Iterator[tuple[str, bool, "pd.Series[float]", "pd.Series[float]"]]:
    """The name of each class, label or cause; whether it is the only one; fitted log ratios and standard errors."""
    target, table = simulation(name).target, clinic(name)
    x = design(simulation(name).variables, table)
    if isinstance(target, Binary):
        yield target.classes[1], True, *logistic(x, table[target.column] == target.classes[1])
    elif isinstance(target, Multiclass):
        for word in target.classes[1:]:  # Begg and Gray, Biometrika 1984
            two = table[target.column].isin([target.classes[0], word]).to_numpy()
            yield word, False, *logistic(x[two], table[target.column][two] == word)
    elif isinstance(target, Ordinal):
        for low, high in zip(target.classes[:-1], target.classes[1:], strict=True):
            two = table[target.column].isin([low, high]).to_numpy()
            yield target.column, True, *logistic(x[two], table[target.column][two] == high)
    elif isinstance(target, Multilabel):
        positive = pd.DataFrame(
            {label: (table[label] == pair[1]) * 1.0 for label, pair in zip(target.names, target.classes, strict=True)}
        )
        for label in target.names:
            adjusted = pd.concat([x, positive.drop(columns=label)], axis=1)
            fitted, error = logistic(adjusted, positive[label] == 1)
            yield label, False, fitted[x.columns], error[x.columns]
    elif isinstance(target, Survival):
        yield target.event, True, *cox(x, table[target.time], table[target.event] == 1)
    elif isinstance(target, CompetingRisks):
        for place, cause in enumerate(target.causes):
            yield cause, place == 0, *cox(x, table[target.time], table[target.event] == cause)


def cox(
    x: pd.DataFrame, time: "pd.Series[float]", event: "pd.Series[bool]"
) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Coefficients and standard errors of proportional hazards; columns `x (p, k)` that vary."""
    fit = CoxPHFitter().fit(pd.concat([x, time.rename("_time"), event.rename("_event")], axis=1), "_time", "_event")
    return fit.params_, fit.standard_errors_


@every_tool
def test_the_cohort_has_the_odds_and_hazard_ratios_that_its_tool_states(name: str) -> None:
    variables, compared = simulation(name).variables, 0
    for of, only, fitted, error in regressions(name):
        for column, expected in stated(variables, of, only).items():
            assert abs(fitted[column] - expected) < FURTHEST * error[column], (of, column, fitted[column], expected)
            compared += abs(expected) > 2 * error[column]
    assert compared >= 2, "effects that are seen at this size"


@every_tool
def test_shares_and_ages_are_those_that_the_tool_states(name: str) -> None:
    table = clinic(name)
    for column, variable in simulation(name).variables.items():
        if isinstance(variable, NumericVariable):
            mean = (np.array(variable.values) * variable.weights).sum()
            assert table[column].mean() == pytest.approx(mean, abs=4 * variable.sd / np.sqrt(MANY))
            assert variable.low <= table[column].min() <= table[column].max() <= variable.high
        for level, share in getattr(variable, "shares", {}).items():
            error = np.sqrt(share * (1 - share) / MANY)
            assert (table[column] == level).mean() == pytest.approx(share, abs=max(4 * error, 1e-9)), (column, level)


@every_tool
def test_a_tool_states_its_clinical_variables_and_where_their_effects_come_from(name: str) -> None:
    tool, simulated = compose([f"tool={name}"]).tool, simulation(name)
    assert simulated.clinical is not None
    assert {"age", "sex"} <= set(simulated.variables)
    sources = [effect.source for variable in simulated.variables.values() for effect in variable.effects]
    assert sources
    for source in sources:
        assert " et al. " in source or "doi 10." in source or len(source.split()) > 6, source
    columns = {*simulated.variables, "site", "scanner"}
    assert set(tool.subgroups) <= columns
    assert tool.clinical is not None
    assert {*tool.clinical.numeric, *tool.clinical.categorical} <= set(simulated.variables)
    assert {column for column, variable in simulated.variables.items() if variable.effects} <= {
        *tool.clinical.numeric,
        *tool.clinical.categorical,
    }, "whatever goes with the outcome is in the clinical model"


def test_no_woman_has_a_prostate_and_hardly_a_man_has_breast_cancer() -> None:
    assert len(BREAST) == 8
    for name in PROSTATE:
        assert set(clinic(name)["sex"]) == {"M"}
    for name in BREAST:
        assert 0.001 < (clinic(name)["sex"] == "M").mean() < 0.02, name
    assert set(clinic("ec-molecular")["sex"]) == {"F"}
    assert 0.15 < (clinic("hcc-os")["sex"] == "F").mean() < 0.35


@pytest.mark.parametrize(
    ("name", "column", "levels"),
    [
        ("idh-glioma", "who_grade", {"2", "3", "4"}),
        ("mm-marrow", "iss", {"I", "II", "III"}),
        ("bcr-prostate", "pt", {"pT2", "pT3a", "pT3b"}),
        ("ec-molecular", "figo_stage", {"I", "II", "III", "IV"}),
        ("surv-crc", "stage", {"II", "III", "IV"}),
        ("fgfr3-bladder", "stage", {"II", "III", "IV"}),
        ("pcr-tnbc", "stage", {"I", "II", "III"}),
        ("pdac-subtype", "stage", {"I", "II", "III"}),
    ],
)
def test_each_tumour_has_its_own_system_of_stages_or_grades(name: str, column: str, levels: set[str]) -> None:
    assert set(clinic(name)[column]) == levels
    assert ("stage" in clinic(name)) == (column == "stage")


@pytest.mark.parametrize("name", ["isup-prostate", "breast-lesion-bracs", "ln-met-breast"])
def test_tools_whose_question_comes_before_staging_have_no_stage(name: str) -> None:
    assert not {"stage", "figo_stage", "iss"} & set(clinic(name))


def test_microsatellite_instability_falls_with_stage_four_and_is_more_often_right_sided() -> None:
    for table in (clinic("msi-crc"), draw_patients(simulation("msi-crc")).clinic):
        unstable = table["MSI"] == "MSI-H"
        by_stage, by_side = unstable.groupby(table["stage"]).mean(), unstable.groupby(table["side"]).mean()
        assert by_stage["IV"] < 0.5 * by_stage["II"]
        assert by_side["right"] > 2 * by_side["left"]


def test_menopause_follows_age() -> None:
    for name in TOOLS:
        if "menopause" in clinic(name):
            post = clinic(name)["menopause"] == "post"
            age = clinic(name)["age"]
            assert not post[age < 45].any()
            assert post[age >= 55].all()
            assert post[(age >= 50) & (age < 55)].mean() == pytest.approx(0.6, abs=0.06)


TARGETS: dict[str, Target] = {
    "classes": Binary("label", ("no", "yes"), 0.3, 0.9),
    "times": Survival("time", "event", 0.4, 0.7),
}


@pytest.mark.parametrize("target", list(TARGETS.values()), ids=list(TARGETS))
def test_a_cohort_without_stated_variables_has_age_sex_and_stage_weakly_related(target: Target) -> None:
    cohort = draw_patients(Simulation(target, patients=6000))
    assert list(parse(DEFAULT)) == ["age", "sex", "stage"]
    severity = (cohort.truth["severity"] - cohort.truth["severity"].mean()) / cohort.truth["severity"].std()
    two = cohort.clinic["stage"].isin(["I", "IV"])
    x = pd.DataFrame({"severity": severity[two], "age": (cohort.clinic["age"][two] - 65) / 10})
    fitted, error = logistic(x, cohort.clinic["stage"][two] == "IV")
    assert fitted["severity"] == pytest.approx(np.log(1.6), abs=4 * error["severity"])
    assert error["severity"] < 0.1
    assert abs(severity.corr(cohort.clinic["sex"] == "F")) < 0.05


def test_clinical_variables_change_no_tile_label_or_time(tmp_path: Path) -> None:
    digests, tables = [], []
    for place, clinical in enumerate((None, {}, {"psa": {"shares": {"low": 0.5, "high": 0.5}}})):
        write(Simulation(TARGETS["times"], patients=12, tiles=30, width=8, clinical=clinical), tmp_path / str(place))
        files = sorted(path for path in (tmp_path / str(place)).rglob("*") if path.is_file())
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.name != "cohort.csv"})
        tables.append(pd.read_csv(tmp_path / str(place) / "cohort.csv"))
    assert digests[0] == digests[1] == digests[2]
    assert list(tables[1]) == ["patient", "slide", "site", "scanner", "time", "event", "simulated"]
    for table in tables:
        pd.testing.assert_frame_equal(table[list(tables[1])], tables[1])


LEVELS = {"shares": {"a": 0.5, "b": 0.5}}
ODDS = {"odds_ratio": {"b": 2}, "source": "x"}


@pytest.mark.parametrize(
    ("clinical", "message"),
    [
        ({"x": {"shares": {"a": 0.5, "b": 0.6}}}, r"simulation.clinical.x.* sum to 1 expected"),
        ({"x": {"shares": {"a": 1.2, "b": -0.2}}}, "positive shares"),
        ({"x": {**LEVELS, "effects": [{"odds_ratio": {"a": 2}, "source": "x"}]}}, "ratios of the levels b expected"),
        ({"x": {**LEVELS, "effects": [{"odds_ratio": 2, "source": "x"}]}}, "ratios of the levels b expected"),
        ({"x": {**LEVELS, "effects": [{"odds_ratio": {"b": -1}, "source": "x"}]}}, "positive ratios expected"),
        ({"x": {**LEVELS, "effects": [{"odds_ratio": {"b": 2}}]}}, "source"),
        ({"x": {**LEVELS, "effects": [{"source": "x"}]}}, "odds_ratio or hazard_ratio expected"),
        ({"x": {**LEVELS, "efects": []}}, "efects"),
        ({"x": {"mean": 3, "sd": 1, "low": 4, "high": 9}}, "a mean between low and high"),
        ({"x": {"mean": 50, "sd": 0}}, r"simulation.clinical.x.sd"),
        ({"x": {"given": "y", "bands": [{"start": 0, "shares": {"a": 1}}]}}, "'y' found, a numeric variable expected"),
        ({"x": {"given": "age"}}, "given with bands expected"),
        ({"site": LEVELS}, "clinical: column site"),
        ({"label": LEVELS}, "target: column label"),
    ],
)
def test_variables_that_cannot_be_drawn_are_refused_by_name(clinical: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Simulation(TARGETS["classes"], clinical=clinical)


def test_an_effect_on_something_else_than_the_target_is_refused() -> None:
    hazard = {"hazard_ratio": {"b": 2}, "source": "x"}
    for target, effect, message in (
        ("classes", hazard, "hazard ratio found, odds ratio expected"),
        ("times", ODDS, "odds ratio found, hazard ratio expected"),
        ("classes", {**ODDS, "of": "maybe"}, "effect of 'maybe' found, one of yes, severity for all effects expected"),
    ):
        with pytest.raises(ConfigError, match=message):
            draw_patients(Simulation(TARGETS[target], clinical={"x": {**LEVELS, "effects": [effect]}}))


def test_an_effect_on_the_severity_works_for_every_target() -> None:
    effect = Effect.model_validate({**ODDS, "of": SEVERITY})
    assert effect.measure == "odds ratio"
    several = build.simulation(compose(["tool=several", "simulation.patients=300"]))
    assert several.clinical is None
    assert {"age", "sex", "stage"} <= set(draw_patients(several).clinic)
    number = build.simulation(compose(["tool=regression", "simulation.patients=300"]))
    assert {"age", "sex", "stage"} <= set(draw_patients(number).clinic)

"""`mil evaluate --predictions`: other software's tables of every endpoint, against the libraries that others use."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines.statistics import logrank_test
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, r2_score, roc_auc_score
from sksurv.metrics import brier_score, concordance_index_censored, cumulative_dynamic_auc
from sksurv.util import Surv

from mil import files
from tests.conftest import Mil, Said

N, RNG = 120, np.random.default_rng(8)
GRADE = RNG.integers(0, 3, N)
SHARES = RNG.dirichlet([1, 1, 1], N) * 0.6 + 0.4 * np.eye(3)[GRADE]
SHARES /= SHARES.sum(1, keepdims=True)
TIME = RNG.integers(1, 12, N) * 6
CAUSE = RNG.integers(0, 3, N)
CAUSE[TIME > 60] = 1  # nobody is censored last: scikit-survival's weights stay finite
RISK = np.clip(0.6 - TIME / 120 + RNG.normal(0, 0.1, N), 0, 0.7).round(1)  # heavy ties
DEATH = RNG.uniform(0, 0.3, N)
TABLE = pd.DataFrame(
    {
        "patient": [f"{at:03}" for at in range(N)],
        "grade": np.array(["low", "mid", ">=high"])[GRADE],
        **{name: SHARES[:, at] for at, name in enumerate(("p=low", "mid", "p3"))},
        "MSI": np.where(GRADE == 0, "yes", "no"),
        "BRAF": np.where(np.arange(N) % 5 == 0, "", np.where(GRADE == 1, "yes", "wt")),
        "months": TIME,
        "end": CAUSE,
        "dead": (CAUSE == 1).astype(int),
        "risk": RISK,
        "death": DEATH,
        "true": GRADE + RNG.normal(size=N),
        "guess": GRADE * 1.0,
        "part": np.array(["train", "select", "report"])[np.arange(N) % 3],
    }
)
GRADES = ["--target", "grade", "--score", "low=p=low", "--score", "mid=mid", "--score", ">=high=p3"]
CAUSES = ["--time", "months", "--event", "end", "--cause", "relapse=1", "--cause", "death=2"]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, which take most of the time."""
    monkeypatch.setattr("mil.runs.describe.draw", lambda *_: None)


def scored(mil: Mil, folder: Path, *words: str, **changes: "pd.Series[float]") -> tuple[Said, dict[str, Any]]:
    """What the command said, and its report."""
    TABLE.assign(**changes).to_csv(folder / "t.csv", index=False)
    said = mil("evaluate", "--predictions", folder / "t.csv", *words, "--resamples", "10", "--out", folder / "out")
    assert said.code == 0, said.err
    report: dict[str, Any] = files.read_json(folder / "out" / "report.json")
    return said, report


def by_hand(at: float) -> tuple[float, float]:
    """AUC(t) of Uno et al., JASA 2007, and the Brier score of Graf et al., Statistics in Medicine 1999, by loops."""

    def followed(time: float) -> float:  # G(t-), the chance not to be censored before t; events of a time come first
        product = 1.0
        for moment in sorted(set(TIME[time > TIME])):
            censored, events = ((moment == TIME) & kind for kind in (CAUSE != 1, CAUSE == 1))
            product *= 1 - censored.sum() / ((moment <= TIME).sum() - events.sum())
        return product

    case, control = (at >= TIME) & (CAUSE == 1), (at < TIME) | ((at == TIME) & (CAUSE != 1))
    weight = np.array([1 / followed(min(time, at)) for time in TIME])
    pairs = [(i, j, weight[i] * weight[j]) for i in np.flatnonzero(case) for j in np.flatnonzero(control)]
    won = sum(worth * (1.0 * (RISK[i] > RISK[j]) + 0.5 * (RISK[i] == RISK[j])) for i, j, worth in pairs)
    loss = weight * (case * (1 - RISK) ** 2 + control * RISK**2)
    return won / sum(worth for *_, worth in pairs), loss.mean()


def test_classes_are_scored_as_scikit_learn_does(mil: Mil, tmp_path: Path) -> None:
    said, report = scored(mil, tmp_path, *GRADES)
    assert said.out.splitlines()[0] == "3 classes from --score: low, mid, >=high; called is the likeliest"
    expected = np.mean([roc_auc_score(at == GRADE, SHARES[:, at]) for at in range(3)])
    assert report["metrics"]["macro_auroc"]["value"] == pytest.approx(expected, abs=1e-12)
    (decision,) = report["sections"]["operating_points"]["decisions"]
    found = np.array(decision["confusion"]["rows"])
    assert found.trace() == (SHARES.argmax(1) == GRADE).sum()
    assert (tmp_path / "out" / "figures" / "confusion.png").is_file()


@pytest.mark.usefixtures("undrawn")
def test_ordered_classes_are_grades(mil: Mil, tmp_path: Path) -> None:
    said, report = scored(mil, tmp_path, *GRADES, "--ordered")
    assert said.out.startswith("3 grades from --score, lowest first: low, mid, >=high\n")
    median = (SHARES[:, ::-1].cumsum(1)[:, ::-1][:, 1:] > 0.5).sum(1)
    kappa = cohen_kappa_score(GRADE, median, weights="quadratic")
    assert report["metrics"]["qwk"]["value"] == pytest.approx(kappa, abs=1e-12)


@pytest.mark.usefixtures("undrawn")
def test_probabilities_that_were_rounded_are_rescaled_and_others_refused(mil: Mil, tmp_path: Path) -> None:
    rounded = TABLE[["p=low", "mid", "p3"]].round(3)
    off = int(((rounded.sum(axis=1) - 1).abs() > 1e-9).sum())
    said, _ = scored(mil, tmp_path, *GRADES, **{str(name): own for name, own in rounded.items()})
    assert 0 < off < N
    assert said.out.splitlines()[1] == f"probabilities of {off} of {N} rows sum to one within 0.001: rescaled"
    TABLE.assign(p3=TABLE["p3"].where(TABLE.index > 2, 0.0)).to_csv(tmp_path / "t.csv", index=False)
    refused = mil("evaluate", "--predictions", tmp_path / "t.csv", *GRADES)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"probabilities of 3 of {N} rows sum to" in refused.err
    assert "000" not in refused.err.replace(str(tmp_path), "").replace("0.001", "")


@pytest.mark.usefixtures("undrawn")
def test_a_number_is_scored_as_scikit_learn_does(mil: Mil, tmp_path: Path) -> None:
    said, report = scored(mil, tmp_path, "--target", "true", "--value", "guess")
    assert said.out.startswith("regression: guess is of true\n")
    found = {name: one["value"] for name, one in report["metrics"].items()}
    assert found["r2"] == pytest.approx(r2_score(TABLE["true"], TABLE["guess"]), abs=1e-12)
    assert found["mae"] == pytest.approx(mean_absolute_error(TABLE["true"], TABLE["guess"]), abs=1e-12)


@pytest.mark.usefixtures("undrawn")
def test_labels_are_scored_where_they_are_known(mil: Mil, tmp_path: Path) -> None:
    words = ["--target", "msi=MSI", "--target", "braf=BRAF", "--score", "braf=mid", "--score", "msi=p=low"]
    said, report = scored(mil, tmp_path, *words, "--positive", "yes")
    assert said.out.startswith("2 labels from --target: msi (yes, not no), braf (yes, not wt)\n")
    known = TABLE["BRAF"] != ""
    areas = [
        roc_auc_score(TABLE["MSI"] == "yes", TABLE["p=low"]),
        roc_auc_score(TABLE["BRAF"][known] == "yes", TABLE["mid"][known]),
    ]
    found = report["metrics"]
    assert [found["auroc_msi"]["value"], found["auroc_braf"]["value"]] == pytest.approx(areas, abs=1e-12)
    assert report["patients"]["braf known"] == known.sum()


def test_competing_causes_are_ranked_by_the_first_one(mil: Mil, tmp_path: Path) -> None:
    words = [*CAUSES, "--score", "relapse=risk", "--score", "death=death", "--horizon", "36"]
    said, report = scored(mil, tmp_path, *words)
    told = "2 causes from --cause: relapse (1), death (2), 0 is censored; ranked is relapse; months in months"
    assert said.out.splitlines()[0] == told
    never = np.where(CAUSE == 2, TIME.max() + 1, TIME)  # who had another event first outlives every relapse
    c_index = concordance_index_censored(CAUSE == 1, never, RISK)[0]
    assert report["metrics"]["c_index"]["value"] == pytest.approx(c_index, abs=1e-12)
    (horizon,) = report["sections"]["survival"]["calibration"]
    assert (horizon["column"], horizon["predicted"]) == ("risk_relapse_36", pytest.approx(RISK.mean(), abs=1e-12))
    assert [one["name"] for one in report["sections"]["utility"]["horizons"]] == ["risk_relapse_36"]
    assert (tmp_path / "out" / "figures" / "incidence.png").is_file()


@pytest.mark.usefixtures("undrawn")
def test_without_a_horizon_any_score_orders_patients(mil: Mil, tmp_path: Path) -> None:
    _, report = scored(mil, tmp_path, *CAUSES, "--score", "relapse=risk", risk=100 * TABLE["risk"] - 7)
    never = np.where(CAUSE == 2, TIME.max() + 1, TIME)
    expected = concordance_index_censored(CAUSE == 1, never, RISK)[0]
    assert report["metrics"]["c_index"]["value"] == pytest.approx(expected, abs=1e-12)
    assert report["sections"]["survival"]["calibration"] == []


@pytest.mark.usefixtures("undrawn")
def test_risks_at_a_time_are_scored_as_scikit_survival_does(mil: Mil, tmp_path: Path) -> None:
    words = ["--time", "months", "--event", "dead", "--score", "risk", "--risk", "36=risk", "--unit", "days"]
    said, report = scored(mil, tmp_path, *words)
    assert said.out.startswith("survival: risk rises with the risk; months in days\n")
    # a censoring comes after the events of its time, so that weights are 1 / G just before a time; scikit-survival
    # has G at the time, which is the same where every censoring is a moment later
    ends = Surv.from_arrays(CAUSE == 1, np.where(CAUSE == 1, TIME, TIME + 1e-6))
    found = report["sections"]["survival"]
    c_index = concordance_index_censored(CAUSE == 1, TIME, RISK)[0]
    assert report["metrics"]["c_index"]["value"] == pytest.approx(c_index, abs=1e-12)
    assert found["auc"][0]["estimate"]["value"] == pytest.approx(
        cumulative_dynamic_auc(ends, ends, RISK, [36])[0][0], abs=1e-12
    )
    brier = brier_score(ends, ends, 1 - RISK[:, None], [36])[1][0]
    assert found["brier"][0]["model"]["value"] == pytest.approx(brier, abs=1e-12)
    assert (found["auc"][0]["estimate"]["value"], brier) == pytest.approx(by_hand(36), abs=1e-12)
    assert found["unit"] == "days"


@pytest.mark.usefixtures("undrawn")
def test_training_rows_set_the_groups_of_the_log_rank_test(mil: Mil, tmp_path: Path) -> None:
    words = ["--time", "months", "--event", "dead", "--score", "risk", "--role", "part"]
    _, report = scored(mil, tmp_path, *words)
    own, high = TABLE["part"] == "report", np.median(RISK[TABLE["part"] == "train"]) <= RISK
    time, dead = TABLE["months"], TABLE["dead"]
    test = logrank_test(time[own & high], time[own & ~high], dead[own & high], dead[own & ~high])
    found = report["sections"]["groups"]["log_rank"]
    assert report["patients"]["n"] == own.sum()
    assert (found["statistic"], found["p"]) == pytest.approx((test.test_statistic, test.p_value), abs=1e-12)


@pytest.mark.usefixtures("undrawn")
def test_select_rows_set_a_cut_that_the_others_are_called_by(mil: Mil, tmp_path: Path) -> None:
    words = ["--target", "MSI", "--score", "p=low", "--positive", "yes", "--role", "part", "--sensitivity", "0.8"]
    said, report = scored(mil, tmp_path, *words)
    assert said.out.startswith("binary: p=low is of MSI being yes, not no\n")
    select = np.sort(TABLE["p=low"][(TABLE["part"] == "select") & (TABLE["MSI"] == "yes")])
    (decision,) = report["sections"]["operating_points"]["decisions"]
    cut = select[(len(select) + 1) // 5 - 1]  # at rank (k + 1) (1 - 0.8) further positives are at or above it in 80%
    assert decision["cuts"] == [[pytest.approx(cut, abs=1e-12)]]
    own = (TABLE["part"] == "report") & (TABLE["MSI"] == "yes")
    assert decision["at_cuts"][0]["sensitivity"]["value"] == pytest.approx(
        (TABLE["p=low"][own] >= cut).mean(), abs=1e-12
    )


SCORE = ["--score", "p3"]
RELAPSE = [*CAUSES, "--score", "relapse=risk"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "true", "--value", "guess", *SCORE], "--score: has no meaning for regression"),
        (["--target", "true", "--value", "low"], "has no column 'low'"),
        ([*SCORE, "--ordered"], "--score p3: expected CLASS=COLUMN"),
        (["--score", "low=p3", "--target", "grade"], "--score of 'low': expected CLASS=COLUMN for each of two"),
        ([*GRADES, "--positive", "low"], "--positive: has no meaning for classes"),
        ([*GRADES, "--score", "mid=p3"], "--score mid=p3: mid was named before"),
        (["--target", "grade", "--score", "low=mid", "--score", "mid=p3"], "rows sum to"),
        (["--target", "MSI", "--score", "no=true", "--score", "yes=mid"], "values of true are outside [0, 1]"),
        (["--target", "msi=MSI", "--score", "braf=mid"], "--score of 'braf': expected of 'msi'"),
        (["--target", "msi=MSI", "--score", "msi=mid", "--ordered"], "--ordered: has no meaning for labels"),
        (["--event", "end", *SCORE], "--event: has no meaning for binary"),
        (["--time", "months", "--event", "end", *SCORE], "found '2', expected 0, no"),
        (["--time", "months", "--event", "dead", *SCORE, "--target", "MSI"], "--target: has no meaning for survival"),
        (["--time", "months", "--event", "dead", *SCORE, "--horizon", "3"], "--horizon: has no meaning for survival"),
        (["--time", "months", "--event", "dead", *SCORE, "--risk", "later=p3"], "--risk later: expected a time above"),
        (["--time", "months", "--event", "dead", *SCORE, "--risk", "36"], "--risk 36: expected TIME=COLUMN"),
        (["--time", "months", "--event", "dead", *SCORE, "--unit", "weeks"], "unit 'weeks', expected one of days"),
        (["--time", "months", "--event", "dead", *SCORE, "--risk", "36=months"], "months are outside [0, 1]"),
        (["--cause", "relapse=1"], "--cause: is of a time to an event, expected --time COLUMN"),
        ([*CAUSES[:6], "--score", "relapse=risk"], "--cause relapse=1: one cause, expected two or more"),
        ([*CAUSES, "--score", "death=death"], "--score of 'death': expected of relapse"),
        ([*RELAPSE, "--score", "cure=mid"], "and of no other than 'relapse', 'death'"),
        ([*RELAPSE, "--score", "death=guess", "--horizon", "36"], "values of guess are outside [0, 1]"),
        ([*RELAPSE, "--risk", "36=risk"], "--risk: has no meaning for competing risks"),
        ([*RELAPSE, "--horizon", "0"], "--horizon 0.0: expected a time above zero"),
        (["--target", "MSI", *SCORE, "--sensitivity", "0.9"], "expected --role COLUMN"),
        (["--sensitivity", "0.9", "--specificity", "0.9", "--role", "part"], "a cut keeps one promise, expected one"),
        (["--target", "MSI", *SCORE, "--positive", "yes", "--role", "MSI"], "role 'no', expected one of train"),
        (["--target", "MSI", *SCORE, "--features", "."], "--features: goes with a checkpoint"),
        (["--target", "patient", *SCORE, "--positive", "000"], "column patient: found '000' and '001'"),
        (["--target", "patient", "--value", "guess"], "'patient' is the name of one of the report's own columns"),
    ],
)
def test_options_and_columns_that_do_not_go_together_are_refused_in_one_line(
    words: list[str], said: str, mil: Mil, tmp_path: Path
) -> None:
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    found = mil("evaluate", "--predictions", tmp_path / "t.csv", *words, "--out", tmp_path / "out")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), found.err
    assert said in found.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--score", "p"], ["--out", "x"], ["--features", "x"], ["--resamples", "9"]])
def test_options_of_a_table_or_a_cohort_have_no_meaning_for_a_run(words: list[str], mil: Mil, tmp_path: Path) -> None:
    said = mil("evaluate", tmp_path, *words)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"mil: {words[0]}: ")


@pytest.mark.parametrize("word", ["NA", "", "Not Reported", "'--"])
@pytest.mark.usefixtures("undrawn")
def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path, mil: Mil, word: str) -> None:
    labels = np.where(np.arange(N) < 7, word, np.where(GRADE == 0, "1", "0"))
    table = TABLE[["patient", "death"]].assign(label=labels)
    table.to_csv(tmp_path / "p.csv", index=False)
    words = ["--score", "death", "--resamples", "20", "--out", str(tmp_path / "out")]
    result = mil("evaluate", "--predictions", tmp_path / "p.csv", *words)
    assert result.code == 0, result.err
    assert "7 of 120 rows lack a label and are left out" in result.out + result.err
    value = files.read_json(tmp_path / "out" / "report.json")["metrics"]["auroc"]["value"]
    assert value == pytest.approx(roc_auc_score(labels[7:] == "1", DEATH[7:]))


def test_a_declared_word_is_a_label_of_foreign_predictions(tmp_path: Path, mil: Mil) -> None:
    table = TABLE[["patient", "death"]].assign(label=np.where(GRADE == 0, "none", "macro"))
    table.to_csv(tmp_path / "p.csv", index=False)
    result = mil("evaluate", "--predictions", tmp_path / "p.csv", "--score", "death", "--positive", "none")
    assert result.code == 0, result.err
    assert "being none, not macro" in result.out + result.err


def test_a_table_without_any_label_is_refused(tmp_path: Path, mil: Mil) -> None:
    TABLE[["patient", "risk"]].assign(time="NA", event="1").to_csv(tmp_path / "p.csv", index=False)
    words = ["--time", "time", "--event", "event", "--score", "risk"]
    result = mil("evaluate", "--predictions", tmp_path / "p.csv", *words)
    assert result.code == 2
    assert "none of 120 rows has a value in 'time', 'event'" in result.err

"""`mil evaluate --predictions` warns of scores turned round, on another scale, or far from what is observed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from mil import files
from mil.report.report_files import read_report
from tests.conftest import Mil

RNG = np.random.default_rng(15)
N = 160
LABEL = np.arange(N) % 4 == 0
SCORE = expit(RNG.normal(np.where(LABEL, 0.2, -2.0), 0.9))
TIME = RNG.exponential(20, N).clip(0.1).round(1)
EVENT = (RNG.uniform(size=N) < 0.7).astype(int)
RISK = np.clip(0.9 - TIME / 60 + RNG.normal(0, 0.1, N), 0.01, 0.99)
BINARY = pd.DataFrame({"patient": range(N), "label": np.where(LABEL, "mut", "wt"), "score": SCORE})
FOLLOWED = pd.DataFrame({"patient": range(N), "months": TIME, "event": EVENT, "score": RISK, "r": RISK})
SURVIVAL = ("--time", "months")


def evaluated(mil: Mil, folder: Path, table: pd.DataFrame, *words: str) -> tuple[str, list[dict[str, Any]], str]:
    """What the command printed, the warnings of report.json, and the page."""
    table.to_csv(folder / "t.csv", index=False)
    said = mil("evaluate", "--predictions", folder / "t.csv", *words, "--resamples", "200", "--out", folder / "out")
    assert said.code == 0, said.err
    report = files.read_json(folder / "out" / "report.json")
    assert read_report(folder / "out" / "report.json").model_dump(mode="json")["warnings"] == report["warnings"]
    return said.out, report["warnings"], (folder / "out" / "report.html").read_text()


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mil.runs.describe.draw", lambda *_: None)


def test_a_table_that_is_as_it_should_be_has_no_warning(mil: Mil, tmp_path: Path) -> None:
    out, warnings, page = evaluated(mil, tmp_path, BINARY, "--positive", "mut")
    assert warnings == []
    assert "WARNING" not in out
    assert 'class="warning"' not in page


def test_the_other_label_as_the_positive_one_is_noticed_everywhere(mil: Mil, tmp_path: Path) -> None:
    out, warnings, page = evaluated(mil, tmp_path, BINARY, "--positive", "wt")
    area = 1 - roc_auc_score(LABEL, SCORE)
    assert [warning["code"] for warning in warnings] == ["inverse"]
    sentence = warnings[0]["sentence"]
    assert sentence.startswith(f"AUROC {area:.3f} (")
    assert "of wt: all of the interval lies below 0.5, so that the score rises with mut" in sentence
    assert f"WARNING: {sentence}" in out
    assert page.index('class="warning"') < page.index("<main>")
    assert page.index("all of the interval lies below 0.5") < page.index("<nav")


def test_a_score_near_chance_is_no_warning(mil: Mil, tmp_path: Path) -> None:
    chance = BINARY.assign(score=0.6 - np.random.default_rng(1).uniform(0.1, 0.5, N))
    assert roc_auc_score(LABEL, chance["score"]) < 0.5
    assert evaluated(mil, tmp_path, chance, "--positive", "mut")[1] == []


def test_a_predicted_survival_time_is_a_risk_turned_round(mil: Mil, tmp_path: Path) -> None:
    assert evaluated(mil, tmp_path, FOLLOWED, *SURVIVAL)[1] == []
    out, warnings, _ = evaluated(mil, tmp_path, FOLLOWED.assign(score=-RISK), *SURVIVAL)
    c_index = concordance_index(TIME, RISK, EVENT)
    assert [(warning["code"], warning["about"]) for warning in warnings] == [("inverse", "c_index")]
    assert f"C-index {c_index:.3f} (" in warnings[0]["sentence"]
    assert "the score falls as the risk rises" in out


def test_values_that_fall_as_the_true_ones_rise(mil: Mil, tmp_path: Path) -> None:
    true = RNG.normal(size=N)
    table = pd.DataFrame({"patient": range(N), "true": true, "guess": -true + RNG.normal(size=N)})
    _, warnings, _ = evaluated(mil, tmp_path, table, "--target", "true", "--value", "guess")
    assert [(warning["code"], warning["about"]) for warning in warnings] == [("inverse", "pearson")]


def test_probabilities_a_tenth_of_the_observed_frequency(mil: Mil, tmp_path: Path) -> None:
    scaled = BINARY.assign(score=SCORE / 12)
    out, warnings, _ = evaluated(mil, tmp_path, scaled, "--positive", "mut")
    assert [(warning["code"], warning["about"]) for warning in warnings] == [("frequency", "mut")]
    mean = (SCORE / 12).mean()
    assert LABEL.mean() / mean > 10
    assert f"mean predicted probability of mut is {mean:.3f}, the observed one 0.250 (" in out
    assert "40 of 160" in out
    nine = BINARY.assign(score=np.full(N, 0.25 / 9.5))
    assert evaluated(mil, tmp_path, nine, "--positive", "mut")[1] == []


def test_a_class_that_nearly_everybody_is_said_to_have(mil: Mil, tmp_path: Path) -> None:
    high = BINARY.assign(score=1 - 0.1 * (1 - SCORE) / (1 - SCORE).mean() * 0.5)
    _, warnings, _ = evaluated(mil, tmp_path, high, "--positive", "mut")
    assert [warning["code"] for warning in warnings] == ["frequency"]
    few = BINARY.assign(label=np.where(np.arange(N) < 1, "mut", "wt"), score=SCORE / SCORE.mean() * 0.0005)
    assert evaluated(mil, tmp_path, few, "--positive", "mut")[1] == [], "one event may be chance"


def test_risks_at_a_horizon_far_from_the_observed_one(mil: Mil, tmp_path: Path) -> None:
    words = (*SURVIVAL, "--risk", "24=r")
    assert evaluated(mil, tmp_path, FOLLOWED, *words)[1] == []
    out, warnings, _ = evaluated(mil, tmp_path, FOLLOWED.assign(r=RISK / 20), *words)
    assert [(warning["code"], warning["about"]) for warning in warnings] == [("frequency", "risk_24")]
    assert f"mean predicted risk at 24 months is {(RISK / 20).mean():.3f}, the observed one 0." in out


@pytest.mark.parametrize(
    ("score", "hint"),
    [
        (100 * SCORE, "they look like percentages, which divided by 100 are probabilities"),
        (logit(SCORE), "they look like logits, of which 1 / (1 + exp(-score)) is the probability"),
        (1000 * SCORE, "and are not probabilities. Only their ranks"),
    ],
)
def test_scores_on_another_scale_are_named(mil: Mil, tmp_path: Path, score: Any, hint: str) -> None:
    out, warnings, _ = evaluated(mil, tmp_path, BINARY.assign(score=score), "--positive", "mut")
    assert [(warning["code"], warning["about"]) for warning in warnings] == [("scale", "score")]
    assert hint in out
    turned = evaluated(mil, tmp_path, BINARY.assign(score=score), "--positive", "wt")[1]
    assert [warning["code"] for warning in turned] == ["scale", "inverse"]


def test_percentages_of_classes_are_refused_with_the_reason(mil: Mil, tmp_path: Path) -> None:
    table = BINARY.assign(a=100 * SCORE, b=100 - 100 * SCORE)
    table.to_csv(tmp_path / "t.csv", index=False)
    said = mil("evaluate", "--predictions", tmp_path / "t.csv", "--score", "mut=a", "--score", "wt=b")
    assert said.code != 0
    assert "expected probabilities; they look like percentages" in said.err

"""`mil evaluate`: a run gives its report again to the byte; anybody's table of predictions is scored."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mil import files
from tests.conftest import Mil

RNG = np.random.default_rng(3)
LABEL = np.array(["neg", "pos", "neg"] * 20)
SCORE = np.clip(0.3 * (LABEL == "pos") + RNG.uniform(0, 0.7, 60), 0, 1)
CENTRE = np.array(["a", "b"] * 30)
BINARY = pd.DataFrame({"patient": [f"{n:03d}" for n in range(60)], "truth": LABEL, "p": SCORE, "centre": CENTRE})
OPTIONS = {"--target": "truth", "--score": "p", "--positive": "pos", "--resamples": "50"}
WORDS = [word for pair in OPTIONS.items() for word in pair]


def table(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("run", ["crc_run", "surv_run"])
def test_evaluating_a_run_gives_its_report_and_cards_again_to_the_byte(
    run: str, request: pytest.FixtureRequest, mil: Mil, tmp_path: Path
) -> None:
    folder: Path = request.getfixturevalue(run)
    copy = shutil.copytree(folder, tmp_path / "run")
    said = mil("evaluate", copy)
    assert said.code == 0
    metric = "C-index" if run == "surv_run" else "AUROC"
    assert said.out.startswith("Predicted: ")
    assert f"\nDiscrimination: {metric} " in said.out
    for path in sorted(folder.rglob("*")):
        if path.name != "looks.json" and path.suffix in (".json", ".md", ".csv", ".png", ".svg", ".safetensors"):
            assert (copy / path.relative_to(folder)).read_bytes() == path.read_bytes(), path


def test_a_run_whose_description_was_interrupted_is_described_anew(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    copy = shutil.copytree(crc_run, tmp_path / "run")
    (copy / "fold_0" / "checkpoint" / "report.json").unlink()
    (copy / "fold_0" / "checkpoint" / "README.md").write_text("half")
    (copy / "fold_1" / "checkpoint" / ".README.md.k1ll3d").write_text("half")
    assert mil("evaluate", copy).code == 0
    for fold in ("fold_0", "fold_1"):
        for name in ("manifest.json", "README.md"):
            assert (copy / fold / "checkpoint" / name).read_bytes() == (
                crc_run / fold / "checkpoint" / name
            ).read_bytes()
    assert not list(copy.rglob(".README*"))


def test_an_unfinished_run_is_refused(mil: Mil, tmp_path: Path) -> None:
    said = mil("evaluate", tmp_path)
    assert (said.code, said.err) == (2, f"mil: {tmp_path}: holds no config.yaml, expected a finished run\n")
    assert mil("evaluate").code == 2
    assert mil("evaluate", tmp_path, "--predictions", tmp_path / "x.csv").code == 2


def test_a_binary_table_is_scored_as_scikit_learn_does(mil: Mil, tmp_path: Path) -> None:
    said = mil("evaluate", "--predictions", table(tmp_path / "t.csv", BINARY), *WORDS, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    report = files.read_json(tmp_path / "out" / "report.json")
    found = {name: one["value"] for name, one in report["metrics"].items()}
    positive = LABEL == "pos"
    assert found["auroc"] == pytest.approx(roc_auc_score(positive, SCORE), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(positive, SCORE > 0.5), abs=1e-12)
    assert report["patients"] == {"n": 60, "neg": 40, "pos": 20}
    assert (tmp_path / "out" / "figures" / "roc.png").is_file()
    assert f"AUROC {found['auroc']:.3f}" in said.out
    assert "n 60, neg 40, pos 20" in said.out


def test_scores_of_different_folds_are_not_compared(mil: Mil, tmp_path: Path) -> None:
    shifted = BINARY.assign(p=np.where(CENTRE == "a", SCORE, SCORE / 100))
    words = [
        "--predictions",
        table(tmp_path / "t.csv", shifted),
        *WORDS,
        "--group",
        "centre",
        "--out",
        tmp_path / "out",
    ]
    assert mil("evaluate", *words).code == 0
    found = files.read_json(tmp_path / "out" / "report.json")["metrics"]["auroc"]
    each = [roc_auc_score(LABEL[name == CENTRE] == "pos", SCORE[name == CENTRE]) for name in "ab"]
    assert found["folds"] == pytest.approx(each, abs=1e-12)
    assert found["value"] == pytest.approx(np.mean(each), abs=1e-12)


def test_of_scores_that_are_no_probabilities_only_ranks_are_reported(mil: Mil, tmp_path: Path) -> None:
    words = [
        "--predictions",
        table(tmp_path / "t.csv", BINARY.assign(p=30 * SCORE - 9)),
        *WORDS,
        "--out",
        tmp_path / "out",
    ]
    said = mil("evaluate", *words)
    assert said.code == 0
    assert "Only their ranks are used" in said.out
    report = files.read_json(tmp_path / "out" / "report.json")
    assert list(report["metrics"]) == ["auroc"]
    assert report["metrics"]["auroc"]["value"] == pytest.approx(roc_auc_score(LABEL == "pos", SCORE), abs=1e-12)
    assert "balanced_accuracy" not in said.out


def test_a_survival_table_is_scored_as_lifelines_does(mil: Mil, tmp_path: Path) -> None:
    time, event = RNG.exponential(10, 60), RNG.integers(0, 2, 60)
    risk = -time + RNG.normal(0, 10, 60)
    frame = pd.DataFrame({"id": range(60), "months": time, "dead": event, "risk": risk})
    words = ["--time", "months", "--event", "dead", "--score", "risk", "--patient", "id", "--resamples", "50"]
    said = mil("evaluate", "--predictions", table(tmp_path / "t.csv", frame), *words, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    report = files.read_json(tmp_path / "out" / "report.json")
    assert report["metrics"]["c_index"]["value"] == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)
    assert report["patients"] == {"n": 60, "events": int(event.sum())}
    assert (tmp_path / "out" / "figures" / "kaplan_meier.png").is_file()


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {"--score": "prob"}, "has no column 'prob', it has patient, truth, p, centre"),
        ({}, {"--target": "MSI"}, "has no column 'MSI'"),
        ({}, {"--patient": "case"}, "has no column 'case'"),
        ({}, {"--group": "fold"}, "has no column 'fold'"),
        ({}, {"--positive": "yes"}, "found 'yes' and 'neg', 'pos', expected one other label"),
        ({"p": "high"}, {}, "60 of 60 values of p are not finite numbers"),
        ({"patient": "one"}, {}, "repeat a patient"),
        ({"truth": "pos"}, {}, "found 'pos' and nothing else"),
    ],
)
def test_a_table_that_cannot_be_scored_is_refused_in_one_line(
    change: dict[str, str], options: dict[str, str], said: str, mil: Mil, tmp_path: Path
) -> None:
    path = table(tmp_path / "t.csv", BINARY.assign(**change))
    words = [word for pair in (OPTIONS | options).items() for word in pair]
    found = mil("evaluate", "--predictions", path, *words, "--out", tmp_path / "out")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert said in found.err
    assert not (tmp_path / "out").exists()


def test_no_table_and_an_empty_one_are_refused_in_one_line(mil: Mil, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    for name in ("none.csv", "empty.csv"):
        said = mil("evaluate", "--predictions", tmp_path / name)
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert name in said.err

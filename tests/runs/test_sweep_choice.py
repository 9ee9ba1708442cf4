"""Nested cross-validation: the choice for an outer part knows nothing of its patients."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival import Cox
from mil.errors import PredictionsError
from mil.report.predictions import report_folds
from mil.runs.sweep_choice import choose, chosen_by_outer_fold, combine, outer_folds
from mil.splits.folds import Nested
from tests.report.tables import refitted

PATIENTS, OUTER, INNER = 120, 3, 2


def sweep(kind: str, seed: int = 0, configs: int = 3) -> tuple[dict[str, pd.DataFrame], Endpoint]:
    """Predictions of several configurations in the same nested folds, scores drawn anew by fold and configuration."""
    rng = np.random.default_rng(seed)
    names = [f"P{at:03}" for at in range(PATIENTS)]
    label = rng.permutation(np.arange(PATIENTS) % 3 == 0).astype(int)
    split = Nested(OUTER, INNER)(names, label, pd.DataFrame(), seed).table
    at = split["patient"].str[1:].astype(int).to_numpy()
    tables = {}
    for config in range(configs):
        score = label[at] + rng.normal(size=len(split)) * (1 + 0.1 * config)
        if kind == "binary":
            columns = {"label": label[at], "p_1": 1 / (1 + np.exp(-score))}
        elif kind == "survival":
            columns = {"time": 10.0 + at % 37, "event": label[at], "log_hazard": score + 5 * split["fold"].to_numpy()}
        else:
            shares = np.exp(np.stack([-score, score, rng.normal(size=len(at))], 1))
            shares /= shares.sum(1, keepdims=True)
            columns = {"label": np.array(list("abc"))[label[at] + (at % 4 == 1)]}
            columns |= {f"p_{name}": shares[:, k] for k, name in enumerate("abc")}
        tables[str(config)] = split.assign(**columns)
    endpoints = {"binary": Binary(), "survival": Cox(), "multiclass": Multiclass(classes=("a", "b", "c"))}
    return tables, endpoints[kind]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "survival"])
def test_no_outer_patients_target_or_score_changes_the_choice_for_them(kind: str) -> None:
    tables, endpoint = sweep(kind)
    before = choose(tables, endpoint)
    scores = [str(name) for name in tables["0"] if str(name).startswith("p_") or name == "log_hazard"]
    rng = np.random.default_rng(1)
    for outer, folds in enumerate(outer_folds(tables["0"])):
        shuffled = {}
        for name, table in tables.items():
            mine = table["fold"].isin(folds) & (table["role"] == "report")
            changed = table.copy()
            for columns in (list(endpoint.columns), scores):
                changed.loc[mine, columns] = table.loc[mine, columns].to_numpy()[rng.permutation(mine.sum())]
            assert not changed.equals(table)
            shuffled[name] = changed
        pd.testing.assert_frame_equal(choose(shuffled, endpoint), before, check_exact=True)
        # everywhere in the tables, not only where they report: other parts may then choose otherwise, this one not
        who = set(tables["0"].loc[tables["0"]["fold"].isin(folds) & (tables["0"]["role"] == "report"), "patient"])
        everywhere = {name: relabelled(table, who, list(endpoint.columns), rng) for name, table in tables.items()}
        after = choose(everywhere, endpoint)
        assert after[after["outer"] == outer].equals(before[before["outer"] == outer])
        assert not after.equals(before)


def relabelled(table: pd.DataFrame, who: set[str], columns: list[str], rng: np.random.Generator) -> pd.DataFrame:
    targets = table.drop_duplicates("patient").set_index("patient")[columns]
    names = sorted(who)
    targets.loc[names] = targets.loc[list(rng.permutation(names))].to_numpy()
    return table.assign(**{name: targets.loc[table["patient"], name].to_numpy() for name in columns})


def test_the_choice_is_the_best_mean_of_the_inner_folds() -> None:
    tables, endpoint = sweep("binary")
    choices = choose(tables, endpoint)
    for outer, folds in enumerate([[0, 1], [2, 3], [4, 5]]):
        expected = {}
        for name, table in tables.items():
            inner = [table[(table["fold"] == fold) & (table["role"] == "select")] for fold in folds]
            expected[name] = np.mean([roc_auc_score(rows["label"], rows["p_1"]) for rows in inner])
        candidates = choices[choices["outer"] == outer].set_index("config")
        assert candidates["value"].to_dict() == pytest.approx(expected, abs=1e-12)
        assert candidates.index[candidates["chosen"]].tolist() == [max(expected, key=lambda name: expected[name])]
        assert (candidates["patients"] == PATIENTS * (OUTER - 1) // OUTER).all()


def test_of_equals_the_first_is_chosen() -> None:
    tables, endpoint = sweep("binary", configs=1)
    choices = choose({"9": tables["0"], "1": tables["0"]}, endpoint)
    assert choices.loc[choices["chosen"], "config"].tolist() == ["9"] * OUTER


def test_every_patient_is_predicted_once_by_the_mean_of_the_chosen_models() -> None:
    tables, endpoint = sweep("binary")
    chosen = {0: "2", 1: "0", 2: "1"}
    combined = combine(tables, chosen, endpoint)
    assert sorted(combined.loc[combined["role"] == "report", "patient"]) == sorted(set(combined["patient"]))
    for outer, folds in enumerate([[0, 1], [2, 3], [4, 5]]):
        source = tables[chosen[outer]]
        patients = combined[combined["fold"] == outer].set_index("patient")
        report = source[source["fold"].isin(folds) & (source["role"] == "report")].groupby("patient")["p_1"].mean()
        assert patients.loc[patients["role"] == "report", "p_1"].to_dict() == pytest.approx(report.to_dict(), abs=1e-15)
        unseen = source[source["fold"].isin(folds) & (source["role"] == "select")].set_index("patient")["p_1"]
        inside = patients[patients["role"] != "report"]
        assert inside["p_1"].to_dict() == unseen.to_dict(), "no row is of a model that trained on its patient"
        assert set(inside["role"]) == {"train", "select"}
    evaluation = refitted(combined, endpoint)
    assert (len(evaluation.folds), evaluation.counts["n"]) == (OUTER, PATIENTS)


def test_hazards_without_an_origin_are_brought_to_one_before_they_are_averaged() -> None:
    tables, endpoint = sweep("survival")
    combined = combine(tables, {0: "0", 1: "0", 2: "0"}, endpoint)
    # a shift of one fold's model is nobody's risk
    shifted = {name: table.assign(log_hazard=table["log_hazard"] + 7 * table["fold"]) for name, table in tables.items()}
    again = combine(shifted, {0: "0", 1: "0", 2: "0"}, endpoint)
    np.testing.assert_allclose(combined["log_hazard"], again["log_hazard"], atol=1e-9)
    assert abs(combined["log_hazard"].mean()) < 1


def test_an_ordinary_cross_validation_keeps_its_rows() -> None:
    tables, endpoint = sweep("binary")
    single = {
        name: table[table["fold"] % INNER == 0].assign(fold=table["fold"] // INNER) for name, table in tables.items()
    }
    combined = combine(single, {0: "0", 1: "1", 2: "0"}, endpoint)
    expected = pd.concat([single[name][single[name]["fold"] == fold] for fold, name in enumerate("010")])
    pd.testing.assert_frame_equal(combined, expected.sort_values(["fold", "patient"], ignore_index=True))


def test_what_cannot_be_chosen_from_is_refused() -> None:
    tables, endpoint = sweep("binary")
    with pytest.raises(PredictionsError, match="1 configurations, expected two or more"):
        choose({"0": tables["0"]}, endpoint)
    with pytest.raises(PredictionsError, match="1 has other patients, folds or roles than 0"):
        choose({"0": tables["0"], "1": tables["1"].iloc[1:]}, endpoint)
    single = {name: table[table["role"] != "select"] for name, table in tables.items()}
    with pytest.raises(PredictionsError, match="fold 0 has no report or no select patients"):
        choose(single, endpoint)
    one_class = {name: table.assign(label=0) for name, table in tables.items()}
    with pytest.raises(PredictionsError, match="outer fold 0: the select patients define no auroc"):
        choose(one_class, endpoint)


def test_the_chosen_configuration_is_scored_without_its_luck() -> None:
    """All configurations guess: the best one's own mean is above a half, the nested estimate is not."""
    lucky, nested = [], []
    for seed in range(5):
        tables, endpoint = sweep("binary", seed, configs=4)
        rng = np.random.default_rng(seed)
        guesses = {name: table.assign(p_1=rng.random(len(table))) for name, table in tables.items()}
        selection = choose(guesses, endpoint)
        lucky.append(selection.loc[selection["chosen"], "value"].mean())
        folds = report_folds(combine(guesses, chosen_by_outer_fold(selection), endpoint), endpoint)
        nested.append(np.mean([endpoint.score(fold.logits, fold.target)["auroc"] for fold in folds]))
    assert np.mean(lucky) > 0.53
    assert abs(np.mean(nested) - 0.5) < 0.06

"""What is fitted from sums over sites is what `mil train` fits to all patients in one place, up to a cell of a grid."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mil.federation.measures import Grid
from mil.federation.shared_state import StateQuestions, finish_endpoint, fit_state
from mil.fitted import novelty
from mil.fitted.options import NoveltyOptions
from mil.fitted.specification import Specification
from mil.fitted.state import BagSummaries, FittedState
from mil.inference.forward import logits
from mil.models.mil_model import MILModel
from mil.study import build
from mil.study.run_config import RunConfig
from mil.training.fold import Fold, predictions
from tests.federation.hospitals import Federated, config_of, federated, options_of, split_of, study_of

SITES = {"a": 90, "b": 70, "c": 80}
PLAIN = ("model=abmil", "model.dropout=0.0", "model.embed_dim=8", "model.attention_dim=4", "trainer.max_epochs=2")
SURVIVAL = ("tool.endpoint.horizons={1y: 12}",)


def with_rules(config: RunConfig, **rules: object) -> RunConfig:
    """Return the options with what a tool asks to be fitted."""
    return config.replaced({f"tool.{name}": value for name, value in rules.items()})


def fitted(config: RunConfig, **rules: object) -> tuple[Federated, FittedState, FittedState]:
    """Return a federation, its state, and the state of the same weights fitted to all patients in one place."""
    config = with_rules(config, **rules)
    tool = config.tool
    federation = federated(config, options_of(norm_factor=1e9), SITES)
    training = federation.training()
    weights = training.run().weights
    questions = StateQuestions(federation.coordinator, federation.setup, weights)
    finish_endpoint(questions)
    together = fit_state(questions, tool, {"train": 1, "select": 1})
    return federation, together, in_one_place(federation, training.model, tool)


def plain(state: FittedState) -> Any:
    return state.endpoint


def in_one_place(federation: Federated, model: MILModel, tool: Specification) -> FittedState:
    config, tables, bags = federation.config, [], {}
    endpoint = copy.deepcopy(study_of(config, federation.train_table).endpoint)
    endpoint.fit(study_of(config, federation.train_table).target, config.data.balance == "loss")
    for role in ("train", "select"):
        everybody = [table.loc[split_of(table).patients(0, role)] for _, table in sorted(federation.tables.items())]
        study = study_of(config, pd.concat(everybody))
        from mil.features.batches import BagDataset

        data = BagDataset(study.store, list(study.bags["slides"]), study.target)
        raw = logits(model, data)
        if role == "train":
            endpoint.finish(raw, study.target)
        fold = Fold(0, study.source, endpoint, {role: study.bags}, {role: data})
        tables.append(predictions(study, fold, {role: raw}).set_index("patient"))
        means = np.stack([study.store.read(name).features.double().mean(0).numpy() for name in study.patients.index])
        bags[role] = BagSummaries(np.asarray(data.sizes), means)
    return FittedState.fit(tool, endpoint, tables[0], tables[1], bags)


def test_a_binary_tool() -> None:
    _, together, pooled = fitted(
        config_of("binary", *PLAIN),
        decision={"rule": "sensitivity", "at_least": 0.9},
        calibration="platt",
        conformal={"coverage": 0.9},
        novelty={"quantile": 0.95},
    )
    [cut], [expected] = together.decisions, pooled.decisions
    assert cut.cuts == pytest.approx(expected.cuts, abs=0.003)
    assert cut.achieved == expected.achieved
    assert (cut.n, cut.positives) == (expected.n, expected.positives)
    assert together.conformal is not None
    assert pooled.conformal is not None
    for part, other in zip(together.conformal.parts, pooled.conformal.parts, strict=True):
        for limit, wanted_limit in zip(part.limits, other.limits, strict=True):
            assert limit.n == wanted_limit.n
            assert limit.cut == pytest.approx(wanted_limit.cut, abs=1 / 8000)
            assert (limit.cut or 0) >= (wanted_limit.cut or 0)  # coverage is not lost by rounding
    assert set(together.left_out) == set(pooled.left_out)
    assert together.novelty is not None
    assert pooled.novelty is not None
    assert together.novelty.features is not None
    assert pooled.novelty.features is not None
    np.testing.assert_allclose(
        together.novelty.features.space().mean, pooled.novelty.features.space().mean, rtol=1e-5, atol=1e-6
    )
    assert together.novelty.features.n == pooled.novelty.features.n


def test_the_space_of_moments_is_that_of_the_bags() -> None:
    means = np.random.default_rng(0).normal(size=(60, 9)) @ np.diag(np.arange(1.0, 10))
    direct = novelty._space(means)
    covariance = np.cov(means.T, bias=True)
    space = novelty.space_of_moments(60, means.mean(0), covariance)
    probe = np.random.default_rng(1).normal(size=(20, 9)) * 5
    np.testing.assert_allclose(space.log_distances(probe), direct.log_distances(probe), atol=1e-4)


def test_labels_and_their_calibration() -> None:
    rules = {"decision": {"rule": "youden"}, "calibration": "platt"}
    _, together, pooled = fitted(config_of("multilabel", *PLAIN), **rules)
    for decision, expected in zip(together.decisions, pooled.decisions, strict=True):
        assert decision.name == expected.name
        assert decision.n == expected.n
        assert decision.cuts == pytest.approx(expected.cuts, abs=0.003)
    for check, other in zip(together.calibration_checks, pooled.calibration_checks, strict=True):
        assert check.before == pytest.approx(other.before, abs=0.002)
        assert check.n == other.n


def test_several_classes_have_one_temperature() -> None:
    rules = {"decision": {"rule": "argmax"}, "calibration": "temperature"}
    _, together, pooled = fitted(config_of("multiclass", *PLAIN, "optimizer.lr=0.05"), **rules)
    [check], [expected] = together.calibration_checks, pooled.calibration_checks
    assert check.before == pytest.approx(expected.before, rel=1e-9)
    assert check.after == pytest.approx(expected.after, abs=0.02)  # the parts are divided within each site
    if together.calibration is not None and pooled.calibration is not None:
        assert together.calibration.curves[0].slope == pytest.approx(pooled.calibration.curves[0].slope, rel=1e-3)
    assert together.decisions[0].calls == pooled.decisions[0].calls


def test_survival_has_the_baseline_hazard_and_the_groups_of_all_patients() -> None:
    rules = {"decision": {"rule": "quantiles", "cuts": [0.5]}, "calibration": "baseline"}
    _, together, pooled = fitted(config_of("survival", *PLAIN, *SURVIVAL), **rules)
    state, expected = plain(together), plain(pooled)
    np.testing.assert_allclose(state["baseline_times"], expected["baseline_times"])
    np.testing.assert_allclose(state["baseline_hazard"], expected["baseline_hazard"], rtol=1e-6)
    assert state["follow_up"] == expected["follow_up"]
    assert together.decisions[0].cuts == pytest.approx(pooled.decisions[0].cuts, rel=0.01, abs=0.01)
    assert together.decisions[0].positives == pooled.decisions[0].positives
    assert together.decisions[0].n == pooled.decisions[0].n
    for check, other in zip(together.calibration_checks, pooled.calibration_checks, strict=True):
        assert check.before == pytest.approx(other.before, rel=0.02)
        assert check.n == other.n


def test_strata_have_baselines_of_their_own() -> None:
    config = config_of("survival", *PLAIN, "tool.endpoint.strata=site")
    _, together, pooled = fitted(config)
    assert set(plain(together)["strata"]) == set(plain(pooled)["strata"])
    for code, (times, hazard) in plain(together)["strata"].items():
        expected_times, expected = plain(pooled)["strata"][code]
        np.testing.assert_allclose(times, expected_times)
        np.testing.assert_allclose(hazard, expected, rtol=1e-6)


@pytest.mark.parametrize("loss", ["squared", "gaussian", "quantile"])
def test_a_number_has_mean_spread_and_interval_of_all_patients(loss: str) -> None:
    config = config_of("regression", *PLAIN, f"tool.endpoint.loss={loss}")
    _, together, pooled = fitted(config, conformal={"coverage": 0.8})
    assert together.endpoint == pytest.approx(pooled.endpoint)
    assert together.conformal is not None
    assert pooled.conformal is not None
    limit, expected = together.conformal.parts[0].limits[0], pooled.conformal.parts[0].limits[0]
    assert limit.n == expected.n
    assert limit.cut == pytest.approx(expected.cut, rel=0.01, abs=0.01)


def test_classes_are_weighted_by_the_patients_of_all_sites() -> None:
    config = config_of("binary", *PLAIN, "data.balance=loss")
    federation = federated(config, options_of(), SITES)
    endpoint = build.endpoint(config)
    endpoint.fit(study_of(config, federation.train_table).target, balance=True)
    assert federation.setup.endpoint.state() == endpoint.state()


def test_covariates_are_standardised_by_the_patients_of_all_sites() -> None:
    words = ("+tool.covariates.numeric=[age]", "+tool.covariates.fusion=late")
    config = config_of("binary", *PLAIN, *words)
    federation = federated(config, options_of(secure=True), SITES)
    table = federation.train_table
    assert federation.setup.covariates is not None
    covariates = build.covariates(config)
    assert covariates is not None
    expected = covariates.fit(table).state()
    for name, values in federation.setup.covariates.state().items():
        assert values == pytest.approx(expected[name], rel=1e-9)
    federation.training().run()


def test_counts_below_the_minimum_are_withheld_and_the_state_says_so() -> None:
    config = with_rules(config_of("binary", *PLAIN), decision={"rule": "youden"}, calibration="platt")
    federation = federated(config, options_of(minimum=5), SITES)
    weights = federation.training().run().weights
    questions = StateQuestions(federation.coordinator, federation.setup, weights)
    state = fit_state(questions, config.tool, {"train": 1, "select": 1})
    assert not state.decisions
    assert "federation.secure=true" in state.left_out["calibration"]
    federation = federated(config, options_of(minimum=5, secure=True), SITES)
    weights = federation.training().run().weights
    questions = StateQuestions(federation.coordinator, federation.setup, weights)
    assert len(fit_state(questions, config.tool, {"train": 1, "select": 1}).decisions) == 1


@pytest.mark.parametrize("scale", ["logit", "share", "asinh"])
def test_a_cut_at_the_edge_of_a_cell_divides_scores_as_their_cells_do(scale: str) -> None:
    grid, rng = Grid(scale), np.random.default_rng(0)
    scores = rng.random(2000) if scale != "asinh" else rng.normal(size=2000) * 10.0 ** rng.integers(-3, 4, 2000)
    cells = grid.cell(scores)
    for cell in cells[:50]:
        np.testing.assert_array_equal(scores >= grid.lower(np.array([cell]))[0], cells >= cell)
    assert (grid.upper(cells) >= scores).all()
    assert (grid.lower(cells) <= scores).all()
    assert NoveltyOptions(quantile=0.9).quantile == 0.9

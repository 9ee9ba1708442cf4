"""Predictions of several checkpoints together: means that stay valid predictions, and the spread of the members."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mil import checkpoint
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import CheckpointError
from mil.inference.ensemble import combined, ensemble, same_tool
from mil.inference.forward import decoded
from mil.inference.predict import predict
from mil.report.prediction_files import read

NAMES = ["A", "B", "C", "D"]


def member_predictions(endpoint: Endpoint, seed: int, scale: float = 1.0) -> pd.DataFrame:
    logits = scale * torch.randn(4, endpoint.out_dim, generator=torch.Generator().manual_seed(seed)).double()
    return pd.DataFrame({"patient": NAMES, "tiles": 9.0, **decoded(endpoint, logits)})


def cox(factor: float) -> Cox:
    """Return a Cox endpoint whose baseline hazard is scaled by the factor."""
    endpoint = Cox(horizons={"2y": 24})
    endpoint.load_state(
        {"baseline_times": [6.0, 12.0, 30.0], "baseline_hazard": [0.1 * factor, 0.2 * factor, 0.5 * factor]}
    )
    return endpoint


@pytest.mark.parametrize("endpoint", [Multiclass(classes=("a", "b", "c")), Ordinal(classes=("a", "b", "c"))])
def test_mean_probabilities_sum_to_one(endpoint: Endpoint) -> None:
    tables = [member_predictions(endpoint, seed, 3.0) for seed in range(3)]
    ensemble_table = combined([endpoint] * 3, tables)
    columns = ["p_a", "p_b", "p_c"]
    assert ensemble_table[columns].to_numpy() == pytest.approx(np.mean([table[columns] for table in tables], axis=0))
    assert ensemble_table[columns].sum(axis=1).to_numpy() == pytest.approx(1)
    spread = np.std([table["p_a"] for table in tables], axis=0, ddof=1)
    assert ensemble_table["spread_p_a"].to_numpy() == pytest.approx(spread)
    assert endpoint.recode(ensemble_table).isfinite().all(), "the table can be evaluated"


def test_identical_members_have_no_spread() -> None:
    table = member_predictions(Binary(), 0)
    ensemble_table = combined([Binary()] * 2, [table, table])
    assert ensemble_table["p_1"].equals(table["p_1"])
    assert (ensemble_table["spread_p_1"] == 0).all()


def test_constant_shift_of_log_hazards_is_no_spread() -> None:
    first, second = cox(1.0), cox(np.exp(-5.0))
    table = member_predictions(first, 0)
    shifted = table.assign(log_hazard=table["log_hazard"] + 5)
    assert decoded(second, torch.tensor(shifted[["log_hazard"]].to_numpy()))["risk_2y"] == pytest.approx(
        table["risk_2y"].to_numpy()
    )
    ensemble_table = combined([first, second], [table, shifted])
    assert ensemble_table["spread_log_hazard"].to_numpy() == pytest.approx(0, abs=1e-12)
    assert ensemble_table["log_hazard"].to_numpy() == pytest.approx((table["log_hazard"] + 2.5).to_numpy())
    assert ensemble_table["risk_2y"].to_numpy() == pytest.approx(table["risk_2y"].to_numpy())


def test_uninformative_member_does_not_change_the_ranking() -> None:
    informative = member_predictions(cox(1), 0)
    uninformative = informative.assign(log_hazard=1e-9 * np.array([3.0, -1, 2, -4]))
    ensemble_table = combined([cox(1), cox(1)], [informative, uninformative])
    assert ensemble_table["log_hazard"].rank().equals(informative["log_hazard"].rank())


def test_predicted_standard_deviation_is_that_of_the_mixture() -> None:
    tables = [
        pd.DataFrame({"patient": ["A"], "tiles": [9.0], "value": [value], "value_sd": [sd]})
        for value, sd in ((0.0, 1.0), (4.0, 3.0))
    ]
    ensemble_table = combined([Regression(loss="gaussian")] * 2, tables)
    samples = np.concatenate(
        [np.random.default_rng(0).normal(0, 1, 400_000), np.random.default_rng(1).normal(4, 3, 400_000)]
    )
    assert ensemble_table["value"][0] == 2
    assert ensemble_table["value_sd"][0] == pytest.approx(np.sqrt(9)) == pytest.approx(samples.std(), rel=0.01)


def test_quantiles_keep_their_order() -> None:
    endpoint = Regression(loss="quantile")
    ensemble_table = combined([endpoint] * 4, [member_predictions(endpoint, seed) for seed in range(4)])
    assert (ensemble_table["value_q10"] <= ensemble_table["value"]).all()
    assert (ensemble_table["value"] <= ensemble_table["value_q90"]).all()


def test_members_vote_with_their_own_cuts() -> None:
    calls = [["x", "x", "", "x"], ["x", "y", "y", ""], ["y", "z", "y", ""]]
    tables = [
        member_predictions(Binary(), at).assign(call=member_calls, set="x", low=0.0)
        for at, member_calls in enumerate(calls)
    ]
    ensemble_table = combined([Binary()] * 3, tables)
    assert ensemble_table["call"].tolist() == ["x", "", "y", "x"]
    assert ensemble_table["agreement"].tolist() == pytest.approx([2 / 3, 1 / 3, 2 / 3, 1 / 3])
    assert not {"set", "low"} & set(ensemble_table), "limits of a member are not those of the ensemble"


def test_result_is_withheld_if_half_of_the_members_withhold_it() -> None:
    reasons = [["", "few", "few", "few"], ["", "", "few", "few"], ["", "", "", "few"], ["", "", "", "few"]]
    tables = []
    for at, member_reasons in enumerate(reasons):
        table = member_predictions(Binary(), at).assign(call="x", withheld=member_reasons)
        tables.append(
            table.assign(
                p_1=table["p_1"].mask(table["withheld"] != ""), call=["" if w else "x" for w in member_reasons]
            )
        )
    ensemble_table = combined([Binary()] * 4, tables)
    assert ensemble_table["withheld"].tolist() == ["", "", "2 of 4 members: few", "4 of 4 members: few"]
    assert ensemble_table["call"].tolist() == ["x", "x", "", ""]
    assert ensemble_table["p_1"].isna().tolist() == [False, False, True, True]
    assert ensemble_table["spread_p_1"].isna().tolist() == [False, False, True, True]
    assert ensemble_table["p_1"][1] == pytest.approx(np.mean([table["p_1"][1] for table in tables[1:]]))


def test_folds_of_a_run_form_an_ensemble(surv_run: Path, crc_run: Path) -> None:
    from mil.study.compose import read_config
    from mil.study.pipeline import read_study

    source = read_study(read_config(surv_run / "config.yaml")).source
    members = [checkpoint.load(surv_run / f"fold_{fold}" / "checkpoint") for fold in (0, 1)]
    ensemble_table = ensemble(members, source.parent / "features", source)
    member_tables = [predict(member, source.parent / "features", source) for member in members]
    assert ensemble_table["patient"].equals(member_tables[0]["patient"])
    for name in ("log_hazard", "risk_5y"):
        assert ensemble_table[name].to_numpy() == pytest.approx(
            np.mean([table[name] for table in member_tables], axis=0), abs=1e-12
        )
    assert (ensemble_table["spread_risk_5y"] > 0).any()
    of_another_tool = checkpoint.load(crc_run / "fold_0" / "checkpoint")
    with pytest.raises(CheckpointError, match=r"tool msi-crc, expected surv-crc"):
        same_tool([members[0], of_another_tool])


def test_members_of_different_tools_are_refused(crc_run: Path) -> None:
    first, second = (checkpoint.load(crc_run / f"fold_{fold}" / "checkpoint") for fold in (0, 1))
    same_tool([first, second])
    with pytest.raises(CheckpointError, match=r"1 checkpoints, expected two or more"):
        same_tool([first])
    with pytest.raises(CheckpointError, match=r"the weights of .*expected another member"):
        same_tool([first, second, first])
    of_another_encoder = dataclasses.replace(second, encoder=dataclasses.replace(second.encoder, name="another"))
    with pytest.raises(CheckpointError, match=r"encoder \('another', 16\), expected"):
        same_tool([first, of_another_encoder])
    options = second.manifest.endpoint.model_copy(update={"options": {}})
    of_another_endpoint = dataclasses.replace(second, manifest=second.manifest.model_copy(update={"endpoint": options}))
    with pytest.raises(CheckpointError, match=r"endpoint .*expected"):
        same_tool([first, of_another_endpoint])


def test_predict_withholds_results_of_novel_bags(crc_run: Path) -> None:
    from mil.fitted import novelty
    from mil.fitted.options import NoveltyOptions
    from mil.study.compose import read_config
    from mil.study.pipeline import read_study
    from mil.training.baseline import mean_features

    study = read_study(read_config(crc_run / "config.yaml"))
    loaded = checkpoint.load(crc_run / "fold_0" / "checkpoint")
    means = mean_features(study.store, list(study.bags["slides"])).numpy()
    fitted_novelty = novelty.fit(NoveltyOptions(min_tiles=1, quantile=0.5), np.full(len(means), 9), means)
    manifest = loaded.manifest.model_copy(
        update={"fitted": loaded.manifest.fitted.model_copy(update={"novelty": fitted_novelty})}
    )
    predictions = predict(
        dataclasses.replace(loaded, manifest=manifest), study.source.parent / "features", study.source
    )
    expected = [fitted_novelty.judge(mean, 9) is not None for mean in means]
    assert (predictions["withheld"] != "").tolist() == expected
    assert 0 < sum(expected) < len(expected)
    run_scores = read(crc_run / "fold_0" / "predictions.csv").set_index("patient")["p_MSI-H"]
    reported_scores = predictions[predictions["withheld"] == ""].set_index("patient")["p_MSI-H"]
    assert reported_scores.to_dict() == run_scores[reported_scores.index].to_dict()
    assert predictions.loc[predictions["withheld"] != "", "p_MSI-H"].isna().all()


def test_what_a_member_lacks_is_left_out_of_the_ensemble(caplog: pytest.LogCaptureFixture) -> None:
    tables = [
        member_predictions(Binary(), 0).assign(calibrated_1=0.5, call="x"),
        member_predictions(Binary(), 1).assign(call="x"),
    ]
    for order in (tables, tables[::-1]):
        together = combined([Binary()] * 2, order)
        assert "calibrated_1" not in together
        assert together["call"].tolist() == ["x"] * len(together)
    assert "left out calibrated_1, which not every member has" in caplog.text

"""Several checkpoints together: means that keep their meaning, and how far the members differ."""

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
from mil.inference.predict import decoded, predict
from mil.report.prediction_files import read

NAMES = ["A", "B", "C", "D"]


def member(endpoint: Endpoint, seed: int, scale: float = 1.0) -> pd.DataFrame:
    logits = scale * torch.randn(4, endpoint.out_dim, generator=torch.Generator().manual_seed(seed)).double()
    return pd.DataFrame({"patient": NAMES, "tiles": 9.0, **decoded(endpoint, logits)})


def cox(factor: float) -> Cox:
    """A baseline hazard that is this many times another."""
    endpoint = Cox(horizons={"2y": 24})
    endpoint.load_state(
        {"baseline_times": [6.0, 12.0, 30.0], "baseline_hazard": [0.1 * factor, 0.2 * factor, 0.5 * factor]}
    )
    return endpoint


@pytest.mark.parametrize("endpoint", [Multiclass(classes=("a", "b", "c")), Ordinal(classes=("a", "b", "c"))])
def test_probabilities_are_averaged_and_still_sum_to_one(endpoint: Endpoint) -> None:
    tables = [member(endpoint, seed, 3.0) for seed in range(3)]
    found = combined([endpoint] * 3, tables)
    columns = ["p_a", "p_b", "p_c"]
    assert found[columns].to_numpy() == pytest.approx(np.mean([table[columns] for table in tables], axis=0))
    assert found[columns].sum(axis=1).to_numpy() == pytest.approx(1)
    spread = np.std([table["p_a"] for table in tables], axis=0, ddof=1)
    assert found["spread_p_a"].to_numpy() == pytest.approx(spread)
    assert endpoint.recode(found).isfinite().all(), "the table can be evaluated"


def test_members_that_agree_have_no_spread() -> None:
    table = member(Binary(), 0)
    found = combined([Binary()] * 2, [table, table])
    assert found["p_1"].equals(table["p_1"])
    assert (found["spread_p_1"] == 0).all()


def test_a_members_constant_in_its_log_hazards_is_no_difference() -> None:
    one, other = cox(1.0), cox(np.exp(-5.0))
    table = member(one, 0)
    shifted = table.assign(log_hazard=table["log_hazard"] + 5)
    assert decoded(other, torch.tensor(shifted[["log_hazard"]].to_numpy()))["risk_2y"] == pytest.approx(
        table["risk_2y"].to_numpy()
    )
    found = combined([one, other], [table, shifted])
    assert found["spread_log_hazard"].to_numpy() == pytest.approx(0, abs=1e-12)
    assert found["log_hazard"].to_numpy() == pytest.approx((table["log_hazard"] + 2.5).to_numpy())
    assert found["risk_2y"].to_numpy() == pytest.approx(table["risk_2y"].to_numpy())


def test_a_member_without_learning_orders_nobody() -> None:
    sure = member(cox(1), 0)
    idle = sure.assign(log_hazard=1e-9 * np.array([3.0, -1, 2, -4]))
    found = combined([cox(1), cox(1)], [sure, idle])
    assert found["log_hazard"].rank().equals(sure["log_hazard"].rank())


def test_the_spread_that_an_endpoint_writes_becomes_that_of_the_mixture() -> None:
    tables = [
        pd.DataFrame({"patient": ["A"], "tiles": [9.0], "value": [value], "value_sd": [sd]})
        for value, sd in ((0.0, 1.0), (4.0, 3.0))
    ]
    found = combined([Regression(loss="gaussian")] * 2, tables)
    drawn = np.concatenate(
        [np.random.default_rng(0).normal(0, 1, 400_000), np.random.default_rng(1).normal(4, 3, 400_000)]
    )
    assert found["value"][0] == 2
    assert found["value_sd"][0] == pytest.approx(np.sqrt(9)) == pytest.approx(drawn.std(), rel=0.01)


def test_quantiles_keep_their_order() -> None:
    endpoint = Regression(loss="quantile")
    found = combined([endpoint] * 4, [member(endpoint, seed) for seed in range(4)])
    assert (found["value_q10"] <= found["value"]).all()
    assert (found["value"] <= found["value_q90"]).all()


def test_members_vote_by_their_own_cuts() -> None:
    calls = [["x", "x", "", "x"], ["x", "y", "y", ""], ["y", "z", "y", ""]]
    tables = [member(Binary(), at).assign(call=own, set="x", low=0.0) for at, own in enumerate(calls)]
    found = combined([Binary()] * 3, tables)
    assert found["call"].tolist() == ["x", "", "y", "x"]
    assert found["agreement"].tolist() == pytest.approx([2 / 3, 1 / 3, 2 / 3, 1 / 3])
    assert not {"set", "low"} & set(found), "a member's limits are not the ensemble's"


def test_half_of_the_members_withhold_and_fewer_do_not() -> None:
    why = [["", "few", "few", "few"], ["", "", "few", "few"], ["", "", "", "few"], ["", "", "", "few"]]
    tables = []
    for at, own in enumerate(why):
        table = member(Binary(), at).assign(call="x", withheld=own)
        tables.append(
            table.assign(p_1=table["p_1"].mask(table["withheld"] != ""), call=["" if w else "x" for w in own])
        )
    found = combined([Binary()] * 4, tables)
    assert found["withheld"].tolist() == ["", "", "2 of 4 members: few", "4 of 4 members: few"]
    assert found["call"].tolist() == ["x", "x", "", ""]
    assert found["p_1"].isna().tolist() == [False, False, True, True]
    assert found["spread_p_1"].isna().tolist() == [False, False, True, True]
    assert found["p_1"][1] == pytest.approx(np.mean([table["p_1"][1] for table in tables[1:]]))


def test_folds_of_a_run_predict_together(surv_run: Path, crc_run: Path) -> None:
    from mil.study.compose import read_config
    from mil.study.pipeline import read_study

    source = read_study(read_config(surv_run / "config.yaml")).source
    members = [checkpoint.load(surv_run / f"fold_{fold}" / "checkpoint") for fold in (0, 1)]
    found = ensemble(members, source.parent / "features", source)
    own = [predict(one, source.parent / "features", source) for one in members]
    assert found["patient"].equals(own[0]["patient"])
    for name in ("log_hazard", "risk_5y"):
        assert found[name].to_numpy() == pytest.approx(np.mean([table[name] for table in own], axis=0), abs=1e-12)
    assert (found["spread_risk_5y"] > 0).any()
    other = checkpoint.load(crc_run / "fold_0" / "checkpoint")
    with pytest.raises(CheckpointError, match=r"tool msi-crc, expected surv-crc"):
        same_tool([members[0], other])


def test_members_of_other_kinds_are_refused(crc_run: Path) -> None:
    one, other = (checkpoint.load(crc_run / f"fold_{fold}" / "checkpoint") for fold in (0, 1))
    same_tool([one, other])
    with pytest.raises(CheckpointError, match=r"1 checkpoints, expected two or more"):
        same_tool([one])
    with pytest.raises(CheckpointError, match=r"the weights of .*expected another member"):
        same_tool([one, other, one])
    wide = dataclasses.replace(other, encoder=dataclasses.replace(other.encoder, name="another"))
    with pytest.raises(CheckpointError, match=r"encoder \('another', 16\), expected"):
        same_tool([one, wide])
    options = other.manifest.endpoint.model_copy(update={"options": {}})
    asks = dataclasses.replace(other, manifest=other.manifest.model_copy(update={"endpoint": options}))
    with pytest.raises(CheckpointError, match=r"endpoint .*expected"):
        same_tool([one, asks])


def test_a_checkpoint_with_everything_fitted_concludes_in_predict(crc_run: Path) -> None:
    from mil.fitted import novelty
    from mil.fitted.options import NoveltyOptions
    from mil.study.compose import read_config
    from mil.study.pipeline import read_study
    from mil.training.baseline import mean_features

    study = read_study(read_config(crc_run / "config.yaml"))
    one = checkpoint.load(crc_run / "fold_0" / "checkpoint")
    means = mean_features(study.store, list(study.bags["slides"])).numpy()
    known = novelty.fit(NoveltyOptions(min_tiles=1, quantile=0.5), np.full(len(means), 9), means)
    manifest = one.manifest.model_copy(update={"fitted": one.manifest.fitted.model_copy(update={"novelty": known})})
    found = predict(dataclasses.replace(one, manifest=manifest), study.source.parent / "features", study.source)
    expected = [known.judge(mean, 9) is not None for mean in means]
    assert (found["withheld"] != "").tolist() == expected
    assert 0 < sum(expected) < len(expected)
    own = read(crc_run / "fold_0" / "predictions.csv").set_index("patient")["p_MSI-H"]
    told = found[found["withheld"] == ""].set_index("patient")["p_MSI-H"]
    assert told.to_dict() == own[told.index].to_dict()
    assert found.loc[found["withheld"] != "", "p_MSI-H"].isna().all()

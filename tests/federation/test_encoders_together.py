"""Features of several encoders at every hospital: side by side, or an ensemble with a member for each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from mil import api, checkpoint
from mil.bags import Bags
from mil.features.encoders import Encoder, joined
from mil.features.feature_folders import placed_features
from mil.federation.bag_gradients import vector
from mil.federation.coordinator import Coordinator
from mil.federation.engines.local import LocalEngine
from mil.federation.federated_run import FederatedRun
from mil.federation.job_site import SiteFile
from mil.federation.messages import FederationError
from mil.federation.protocol import Training
from mil.models.network_ensemble import NetworkEnsemble, members_of
from mil.report.prediction_files import read
from mil.study import build
from tests.conftest import Mil
from tests.federation.hospitals import (
    SITES,
    WIDTH,
    config_of,
    hospital_of,
    options_of,
    patients_of,
    study_of,
)
from tests.federation.hospitals import joined as set_up

BOTH = joined([Encoder("first", 5), Encoder("second", 3)])
PLAIN = ("model=abmil", "model.dropout=0.0", "model.embed_dim=8", "model.attention_dim=4", "trainer.max_epochs=3")


@pytest.mark.parametrize(("how", "members"), [("concatenate", 1), ("ensemble", 1), ("concatenate", 2)])
def test_exact_steps_are_those_of_all_patients_in_one_place(how: str, members: int) -> None:
    words = [f"model.encoders={how}", f"model.members={members}", "data.whole_cohort=true"]
    config = config_of("binary", *PLAIN, *words)
    options, tables = options_of(), {site: patients_of(site, count) for site, count in SITES.items()}
    hospitals = {site: hospital_of(config, site, table, options) for site, table in tables.items()}
    for hospital in hospitals.values():
        hospital.study = replace(hospital.study, encoder=BOTH)
    federation = set_up(config, options, tables, hospitals, Coordinator(LocalEngine(hospitals), options))
    weights = (
        Training(config, federation.coordinator, federation.setup, WIDTH, federation.counts, None, BOTH.widths)
        .run()
        .weights
    )
    np.testing.assert_allclose(weights, pooled(config, federation.train_table), rtol=0, atol=1e-6)


def pooled(config: object, table: pd.DataFrame) -> np.ndarray:
    from mil.study.run_config import RunConfig

    assert isinstance(config, RunConfig)
    study = study_of(config, table)
    torch.manual_seed(config.seed)
    study.endpoint.fit(study.target)
    model = build.network(config, WIDTH, study.endpoint, BOTH.widths)
    options = config.model.options
    assert isinstance(model, NetworkEnsemble) == (options.encoders == "ensemble" or options.members > 1)
    optimizer, schedule = build.optimizer(config)(model.parameters()), build.make(config.schedule)
    bags = Bags.pack([study.store.read(str(name)).features for name in table.index])
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * schedule(step, 3)
        loss = model.loss(model(bags), study.target, study.endpoint)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        members = members_of(model)
        for member in members:
            for weight in member.parameters():
                if weight.grad is not None:
                    weight.grad = weight.grad * len(members)
            if clip := config.trainer.options.gradient_clip_val:
                torch.nn.utils.clip_grad_norm_(member.parameters(), clip)
        optimizer.step()
    return vector(model)


def test_a_site_with_encoders_of_other_widths_is_refused_by_name(tmp_path: Path) -> None:
    config, options = config_of("binary", *PLAIN), options_of()
    hospitals = {site: hospital_of(config, site, patients_of(site, 12), options) for site in "abc"}
    for site, hospital in hospitals.items():
        widths = (3, 5) if site == "b" else (5, 3)
        parts = [Encoder(name, width) for name, width in zip(("first", "second"), widths, strict=True)]
        hospital.study = replace(hospital.study, encoder=joined(parts))
    with pytest.raises(FederationError, match=r"site b: encoders and their widths \[\['first', 3\], \['second', 5\]\]"):
        FederatedRun(config, options, LocalEngine(hospitals), None, tmp_path).join()


def test_the_coordinator_learns_the_encoders_from_the_sites(tmp_path: Path) -> None:
    config, options = config_of("binary", *PLAIN), options_of()
    hospitals = {site: hospital_of(config, site, patients_of(site, 12), options) for site in "abc"}
    run = FederatedRun(config, options, LocalEngine(hospitals), None, tmp_path)
    run.join()
    assert run.encoder == Encoder("simulated", WIDTH)
    for hospital in hospitals.values():
        hospital.study, hospital.session = replace(hospital.study, encoder=BOTH), None
    run = FederatedRun(config, options, LocalEngine(hospitals), None, tmp_path)
    run.join()
    assert run.encoder == BOTH


def test_folders_of_several_encoders_begin_at_the_file_that_names_them(tmp_path: Path) -> None:
    expected = f"a={tmp_path}/first,b={tmp_path}/second"
    assert placed_features("a=first,b=second", tmp_path) == expected
    assert placed_features(["a=first", f"b={tmp_path}/second"], tmp_path) == expected
    assert placed_features("features", tmp_path) == f"{tmp_path}/features"
    file = SiteFile.parse({"data": {"cohort": "c.csv", "features": "a=first,b=second"}}, tmp_path, "test")
    assert file.data == {"cohort": f"{tmp_path}/c.csv", "features": expected}


def test_hospitals_train_an_ensemble_of_encoders_and_checkpoints_of_federations_predict_together(
    mil: Mil, tmp_path: Path
) -> None:
    sites = []
    small = ["simulation.patients=30", "simulation.tiles=20", "simulation.width=12", "simulation.second_width=8"]
    for seed, name in enumerate(("north", "south")):
        done = mil("simulate", tmp_path / name, "tool=msi-crc", *small, f"simulation.seed={seed}")
        assert done.code == 0, done.err
        data = {"cohort": "cohort.csv", "features": ["simulated=features", "simulated2=features_second"]}
        (tmp_path / name / "site.yaml").write_text(yaml.safe_dump({"name": name, "data": data}))
        sites.append(str(tmp_path / name / "site.yaml"))
    words = ["tool=msi-crc", "split=holdout", "model.encoders=ensemble", "model.embed_dim=8", "model.attention_dim=4"]
    words += [
        "model.members=2",
        "trainer.max_epochs=1",
        "data.workers=0",
        "resamples=20",
        "figures=false",
        "baseline=false",
    ]
    words += ["++tool.novelty=null", f"federation.sites=[{','.join(sites)}]", "federation.minimum=2"]
    for seed in (0, 1):
        done = mil("federate", *words, f"seed={seed}", f"hydra.run.dir={tmp_path}/run{seed}")
        assert done.code == 0, done.err
    members = [tmp_path / f"run{seed}" / "checkpoint" for seed in (0, 1)]
    loaded = checkpoint.load(members[0])
    assert isinstance(loaded.model, NetworkEnsemble)
    assert loaded.manifest.encoder.combined == "ensemble"
    assert (loaded.manifest.members, len(loaded.model.models)) == (2, 4)
    assert [(part.name, part.dim) for part in loaded.encoder.parts] == [("simulated", 12), ("simulated2", 8)]
    north = tmp_path / "north"
    folders = {"simulated": north / "features", "simulated2": north / "features_second"}
    scores = [
        api.predict(member, folders, north / "cohort.csv").set_index("patient")["p_MSI-H"] for member in [*members]
    ]
    at_site = read(tmp_path / "run0" / "sites" / "north" / "run" / "predictions.csv").set_index("patient")
    assert scores[0].loc[at_site.index].tolist() == at_site["p_MSI-H"].tolist()
    together = api.predict(members, folders, north / "cohort.csv").set_index("patient")["p_MSI-H"]
    assert together.tolist() == pytest.approx(((scores[0] + scores[1]) / 2).loc[together.index].tolist())

"""`mil federate`: from one command to run folder, report, card and checkpoint; sites keep their patients."""

import json
from pathlib import Path

import pandas as pd
import pytest

from mil import checkpoint
from mil.report.report_files import read_report
from mil.report.sections.federation import Federation
from mil.runs.run_inputs import CONFIG
from mil.study.compose import read_config
from tests.conftest import Mil, as_real

WORDS = [
    "experiment=quick",
    "split=holdout",
    "model.embed_dim=8",
    "model.attention_dim=4",
    "simulation.patients=90",
    "simulation.tiles=30",
    "simulation.width=8",
    "simulation.sites=3",
    "simulation.target.prevalence=0.4",
    "resamples=50",
    "figures=false",
    "data.workers=0",
    "federation.minimum=2",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("federated")


def test_a_federation_of_simulated_centres_ends_in_a_run_without_patients(mil: Mil, tmp_path: Path) -> None:
    said = mil("federate", *WORDS, "federation.leave_one_site_out=true", f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    run = tmp_path / "run"
    assert said.out.splitlines()[-1] == str(run)
    assert len(pd.read_csv(run / "predictions.csv")) == 0
    report = read_report(run / "report.json")
    section = report.section(Federation)
    assert section is not None
    assert [result.site for result in section.sites] == ["site-1", "site-2", "site-3"]
    assert len(section.left_out) == 3
    assert section.algorithm == "exact"
    assert section.secure
    loaded = checkpoint.load(run / "checkpoint")
    assert loaded.manifest.data.patients["train"]["n"] == sum(result.train for result in section.sites)
    card = (run / "checkpoint" / "README.md").read_text()
    assert "no patient's data left its site" in card
    assert "site-2" in card
    reported = 0
    for site in ("site-1", "site-2", "site-3"):
        own = run / "sites" / site
        table = pd.read_csv(own / "run" / "predictions.csv")
        assert read_report(own / "run" / "report.json").patients["n"] == (table["role"] == "report").sum()
        reported += len(table)
        audit = [json.loads(line) for line in (own / "audit.jsonl").read_text().splitlines()]
        assert {line["kind"] for line in audit} >= {"description", "gradient", "state sums", "evaluation"}
        assert all(line["masked"] for line in audit if line["kind"] == "gradient")
        names = set(table["patient"])
        for path in run.rglob("*"):  # the coordinator's own files name no patient
            if (
                path.is_file()
                and "sites" not in path.relative_to(run).parts
                and path.suffix in (".json", ".csv", ".md")
            ):
                assert not [name for name in names if name in path.read_text()]
    assert reported == 90


def test_folders_of_three_hospitals_and_a_site_of_another_encoder(mil: Mil, tmp_path: Path) -> None:
    places = []
    for at, name in enumerate(("north", "south", "west")):
        words = [word for word in WORDS if word.startswith("simulation.")]
        said = mil("simulate", tmp_path / name, *words, f"simulation.seed={at}", "simulation.patients=30")
        assert said.code == 0, said.err
        as_real(tmp_path / name / "cohort.csv")
        places.append(str(tmp_path / name))
    words = [word for word in WORDS if not word.startswith("simulation.")]
    sites = f"federation.sites=[{','.join(places)}]"
    said = mil("federate", *words, sites, "federation.algorithm=fedavg", f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    config = read_config(tmp_path / "run" / CONFIG)
    assert config.data.cohort == "at the sites"
    report = read_report(tmp_path / "run" / "report.json")
    assert report.about.simulated is False
    words_of_card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert "FedAvg" in words_of_card
    assert str(tmp_path) not in words_of_card
    other = mil(
        "simulate", tmp_path / "east", *[w for w in WORDS if w.startswith("simulation.")], "simulation.width=16"
    )
    assert other.code == 0, other.err
    refused = mil("federate", *words, f"{sites[:-1]},{tmp_path}/east]", f"hydra.run.dir={tmp_path}/second")
    assert refused.code == 2
    assert "site east: width of features 16, expected 8" in refused.err
    again = mil("federate", *words, sites, f"hydra.run.dir={tmp_path}/run")
    assert again.code == 2
    assert "holds a federation with other options" in again.err


@pytest.mark.parametrize("algorithm", ["local", "pooled"])
def test_each_site_alone_and_all_pooled(mil: Mil, tmp_path: Path, algorithm: str) -> None:
    said = mil("federate", *WORDS, f"federation.algorithm={algorithm}", f"hydra.run.dir={tmp_path}/run")
    assert said.code == 0, said.err
    section = read_report(tmp_path / "run" / "report.json").section(Federation)
    assert section is not None
    names = [result.site for result in section.sites]
    assert names == (["site-1", "site-2", "site-3"] if algorithm == "local" else ["all sites"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("federation.sites=[nowhere,elsewhere]", "nowhere, expected a folder with cohort.csv and features/"),
        ("federation.quorums=2", "option 'federation.quorums' does not exist"),
        ("federation=none", "federation=none does not exist"),
        ("federation.minimum=60", "the minimum is 60"),
    ],
)
def test_wrong_options_are_one_line(mil: Mil, tmp_path: Path, word: str, message: str) -> None:
    said = mil("federate", *WORDS, word, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 2
    assert message in said.err
    assert len([line for line in said.err.splitlines() if line.startswith("mil: ")]) == 1

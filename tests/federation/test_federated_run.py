"""`mil federate`: from one command to run folder, report, card and checkpoint; sites keep their patients."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mil import checkpoint
from mil.federation.engines import local
from mil.federation.federated_run import OPTIONS
from mil.federation.federation_options import FederationOptions
from mil.federation.hospital import Hospital
from mil.federation.joined_run import check_joinable, join_predictions
from mil.federation.measures import Grid
from mil.federation.messages import FederationError, Message
from mil.federation.protocol import Training
from mil.federation.site_sources import site_sources
from mil.files import read_json
from mil.report.report_files import read_report
from mil.report.schema import GateResult
from mil.report.sections.federation import FILE, Federation
from mil.runs.run import open_run
from mil.runs.run_inputs import CONFIG
from mil.study.compose import read_config
from mil.zoo.gates import Evidence, gates
from mil.zoo.verify import verify
from tests.conftest import Mil, as_real, once, run_quietly

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
SITES = ["site-1", "site-2", "site-3"]
MESSAGES = "messages.jsonl"


@pytest.fixture(scope="session")
def finished(_cache: None, shared: Path) -> Path:
    """Return the run of a federation of simulated centres, with each centre left out in turn."""
    words = [*WORDS, "federation.leave_one_site_out=true"]

    def run(at: Path) -> Path:
        at.mkdir(parents=True, exist_ok=True)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(local, "answer_of", recorded(at / MESSAGES))
            return run_quietly("federate", *words, f"hydra.run.dir={at}/run")

    return once(shared / "federated", run) / "run"


def recorded(path: Path) -> Callable[[Hospital, bytes], Message | FederationError]:
    """Return what asks hospitals, and writes the head of each answer to a file: all but the numbers in its arrays."""
    answer_of = local.answer_of

    def ask(hospital: Hospital, content: bytes) -> Message | FederationError:
        answer = answer_of(hospital, content)
        assert isinstance(answer, Message), answer
        head = json.loads(answer.to_bytes().partition(b"\n")[0])
        with path.open("a") as file:
            file.write(json.dumps({"site": hospital.name, "question": Message.from_bytes(content).kind, **head}) + "\n")
        return answer

    return ask


def section_of(run: Path) -> Federation:
    section = read_report(run / "report.json").section(Federation)
    assert section is not None
    return section


def test_a_federation_of_simulated_centres_ends_in_a_run_without_patients(finished: Path) -> None:
    assert len(pd.read_csv(finished / "predictions.csv")) == 0
    section = section_of(finished)
    assert [result.site for result in section.sites] == SITES
    assert len(section.left_out) == 3
    assert section.algorithm == "exact"
    assert section.secure
    loaded = checkpoint.load(finished / "checkpoint")
    assert loaded.manifest.data.patients["train"]["n"] == sum(result.train for result in section.sites)
    assert loaded.manifest.data.geometry.mpp == 0.5
    card = (finished / "checkpoint" / "README.md").read_text()
    assert "no patient's data left its site" in card
    assert re.search(r"Federated learning\*\*: exact, over 3 sites .*site-2 \d+", card)
    losses = pd.read_csv(finished / "log" / "version_0" / "metrics.csv")
    assert list(losses["epoch"]) == [1, 2]
    assert losses[["train_loss", "select_loss"]].notna().all(axis=None)


def test_patients_and_what_left_stay_with_their_site(finished: Path) -> None:
    reported = 0
    own_files = [path for path in finished.rglob("*") if "sites" not in path.relative_to(finished).parts]
    texts = [path.read_text() for path in own_files if path.suffix in (".json", ".csv", ".md")]
    assert len(texts) > 5
    for site in SITES:
        own = finished / "sites" / site
        table = pd.read_csv(own / "run" / "predictions.csv")
        assert read_report(own / "run" / "report.json").patients["n"] == (table["role"] == "report").sum()
        reported += len(table)
        audit = [json.loads(line) for line in (own / "audit.jsonl").read_text().splitlines()]
        assert {line["kind"] for line in audit} >= {"description", "gradient", "state sums", "evaluation"}
        assert all(line["masked"] for line in audit if line["kind"] == "gradient")
        names = set(table["patient"])
        assert not [name for name in names for text in texts if name in text]
    assert reported == 90


def test_no_message_of_a_run_names_a_patient_or_a_slide_or_has_a_row_of_one(finished: Path) -> None:
    """From the first question to the last, the models that leave a site out among them."""
    heads = [json.loads(line) for line in (finished.parent / MESSAGES).read_text().splitlines()]
    kinds = {head["question"] for head in heads}
    fitted = {"target sums", "loss sums", "gradient", "select sums", "state sums"}
    assert kinds == fitted | {"describe", "join", "setup", "finish", "evaluate", "external"}
    names = set[str]()
    for site in SITES:
        run = finished / "sites" / site / "run"
        patients = pd.read_csv(run / "patients.csv", dtype=str)
        names |= {str(value) for column in ("patient", "slide") if column in patients for value in patients[column]}
    assert len(names) >= 90
    for head in heads:
        text = json.dumps(head)
        assert not [name for name in names if name in text]
        if head["question"] in fitted:
            assert head["masked"]
            assert head["patients"] >= 2
            continue
        assert head["arrays"] == []
        assert head["kind"] in ("description", "key", "done", "evaluation")
        for estimate in head["facts"].get("metrics", {}).values():
            assert min([10, *estimate.get("counts", {}).values()]) >= 2


def plain_weights(run: Path) -> dict[str, list[float]]:
    loaded = checkpoint.load(run / "checkpoint")
    return {name: weight.ravel().tolist() for name, weight in loaded.model.state_dict().items()}


def test_a_federation_that_was_stopped_is_resumed_with_the_same_bits(
    mil: Mil, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save = tmp_path / "run", Training._save

    def save_and_stop(training: Training) -> None:
        save(training)
        raise FederationError("stopped here")

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_save", save_and_stop)
        assert mil("federate", *WORDS, f"hydra.run.dir={run}").code == 2
    said = mil("federate", "--resume", run)
    assert said.code == 0, said.err
    assert plain_weights(run) == plain_weights(finished)
    assert section_of(run).sites == section_of(finished).sites


KILLED = """
import os, signal, sys
from pathlib import Path
from mil.cli.federate_command import start
from mil.federation.protocol import Training
from mil.federation.site_sources import site_sources
from mil.files import read_json

save = Training._save

def save_and_die(training):
    save(training)
    os.kill(os.getpid(), signal.SIGKILL)

Training._save = save_and_die
start(sys.argv[1:], None)
"""


@pytest.mark.slow
def test_a_federation_that_was_killed_is_resumed_with_the_same_bits(mil: Mil, finished: Path, tmp_path: Path) -> None:
    """Kill -9 of the process that holds coordinator and sites, after the first epoch was saved."""
    run = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, *WORDS, f"hydra.run.dir={run}"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    said = mil("federate", "--resume", run)
    assert said.code == 0, said.err
    assert plain_weights(run) == plain_weights(finished)


def test_only_a_federation_is_resumed_and_with_its_options(mil: Mil, finished: Path, tmp_path: Path) -> None:
    said = mil("federate", "--resume", tmp_path)
    assert said.code == 2
    assert "holds no federation_options.json, expected the run folder of a federation" in said.err
    said = mil("federate", "--resume", finished, "federation.minimum=3")
    assert said.code == 2
    assert "takes the options of that run, found federation.minimum=3" in said.err


def test_simulated_patients_are_brought_together_to_release_the_run(mil: Mil, finished: Path, tmp_path: Path) -> None:
    """What `federation.together=true` adds, and what `scripts/build_zoo` does with it."""
    run, cards = tmp_path / "run", tmp_path / "cards"
    shutil.copytree(finished, run)
    options = FederationOptions.parse({**read_json(run / OPTIONS), "together": True})
    config = read_config(run / CONFIG).replaced({"baseline": True})
    check_joinable(config, options)
    join_predictions(config, site_sources(config, options), run)
    table = pd.read_csv(run / "predictions.csv")
    assert len(table) == 90
    report = read_report(run / "report.json")
    assert report.patients["n"] == (table["role"] == "report").sum()
    assert [result.site for result in section_of(run).sites] == SITES
    assert len(pd.read_csv(run / "baseline.csv")) > 0
    said = mil("release", run, "--version", "1.0.0", "--out", cards)
    assert said.code == 0, said.err
    released = next(path for path in cards.iterdir() if path.is_dir())
    assert "exact, over 3 sites" in (released / "README.md").read_text()
    assert verify(released) == []
    holds, sentence = frozen(read_report(released / "report.json").gates)
    assert holds is True
    assert "again from the stored scores on the declared grid of 8000 cells: MSI-H on" in sentence
    federation = json.loads((released / FILE).read_text())
    federation["sites"][0]["metrics"]["auroc"]["value"] = 0.99
    (released / FILE).write_text(json.dumps(federation))
    assert verify(released) != []


def frozen(results: Sequence[GateResult]) -> tuple[bool | None, str]:
    """Return what the gate says of cuts: that they were frozen beforehand, by the patients who are to set them."""
    [gate] = [each for each in results if each.number == 5]
    return gate.holds, gate.sentence


def test_cuts_of_a_federation_are_chosen_again_from_totals_when_it_is_released(
    mil: Mil, finished: Path, tmp_path: Path
) -> None:
    """No patient is at the coordinator: the gate reads the totals over sites, and refuses any other cut."""
    done = mil("release", finished, "--version", "1.0.0", "--out", tmp_path)
    assert done.code == 0, done.err
    [released] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert not [path for path in released.rglob("*") if "counts" in path.name]  # which stay with the coordinator
    report, manifest = read_report(released / "report.json"), checkpoint.read_manifest(released)
    holds, sentence = frozen(report.gates)
    assert holds is True
    assert "again from the totals over sites on the declared grid of 8000 cells: MSI-H on 15 select" in sentence
    run, [decision] = open_run(finished), manifest.fitted.decisions
    edges = Grid("logit").edges
    cell = int(np.argmin(abs(edges - decision.cuts[0])))
    assert decision.cuts[0] == pytest.approx(edges[cell], abs=1e-15)
    for cut in (0.99, float(edges[cell + 1]), float(edges[cell - 1]), decision.cuts[0] + 1e-5):
        moved = manifest.fitted.model_copy(update={"decisions": (decision.model_copy(update={"cuts": (cut,)}),)})
        holds, sentence = frozen(gates(Evidence(run, manifest.model_copy(update={"fitted": moved}), report)))
        assert holds is False
        assert f"MSI-H is cut at {cut:.6g}, its select patients give {decision.cuts[0]:.6g}" in sentence
    elsewhere = replace(run, folder=tmp_path)
    holds, sentence = frozen(gates(Evidence(elsewhere, manifest, report)))
    assert holds is False
    assert "neither predictions nor counts of all sites are here" in sentence


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("federation.sites=[a,b]", "only simulated ones may be"),
        ("federation.algorithm=local", "no common model of separate sites"),
    ],
)
def test_real_patients_are_never_brought_together(mil: Mil, tmp_path: Path, word: str, message: str) -> None:
    said = mil("federate", *WORDS, "federation.together=true", word, f"hydra.run.dir={tmp_path}/run")
    assert said.code == 2
    assert message in said.err


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


@pytest.mark.usefixtures("_cache")
def test_exact_and_pooled_report_the_same_numbers(tmp_path: Path) -> None:
    """One step an epoch, of all patients: batches of several sites are others than those of one."""
    words = (*WORDS, "data.batch_bags=1000", "trainer.max_epochs=5", "model.dropout=0")
    exact = run_quietly("federate", *words, "federation.together=true", f"hydra.run.dir={tmp_path}/exact")
    pooled = run_quietly("federate", *words, "federation.algorithm=pooled", f"hydra.run.dir={tmp_path}/pooled")
    ours, theirs = scores_of(exact / "predictions.csv"), scores_of(pooled / "sites/all sites/run/predictions.csv")
    pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-6)
    [all_sites] = section_of(pooled).sites
    metrics = read_report(exact / "report.json").metrics
    assert "auroc" in all_sites.metrics.keys() & metrics.keys()
    for name in all_sites.metrics.keys() & metrics.keys():
        assert all_sites.metrics[name].value == pytest.approx(metrics[name].value, abs=1e-6), name


def scores_of(path: Path) -> pd.DataFrame:
    """Return the predictions of reported patients by their own names."""
    table = pd.read_csv(path, dtype={"patient": str}).query("role == 'report'")
    table.index = pd.Index(table["patient"].str.split("/").str[-1])
    return table.select_dtypes("number").sort_index()


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

"""The same federation over NVIDIA FLARE: in its simulator, and between processes with certificates that are killed."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mil.federation.coordinator import Coordinator, RoundError
from mil.federation.federation_job import JOB, FederationJob, export
from mil.federation.federation_options import FederationOptions
from mil.federation.local_run import federate
from mil.federation.messages import FederationError, Message
from mil.study.compose import compose
from tests.conftest import Mil, as_real
from tests.federation.flare_network import Network, foreign_job, simulate, wait_for
from tests.federation.test_federation_job import WORDS

pytest.importorskip("nvflare", reason="needs the extra federated")
SITES = ("site-1", "site-2", "site-3")
STATE = Path("mil") / "job" / "coordinator" / "state" / "fold_0.pt"
WEIGHTS = Path("checkpoint") / "weights.safetensors"


def exported(folder: Path, *words: str, **options: object) -> FederationJob:
    export(compose([*WORDS, *words]), FederationOptions.parse({"minimum": 2, **options}), folder)
    return FederationJob.read(folder / "app" / "config" / JOB)


class Context:
    """FLARE's context of a job, as far as `FlareEngine` uses it."""

    def __init__(self, replies: dict[str, Any] | None) -> None:
        self.replies, self.targets = replies, list[str]()

    def get_engine(self) -> "Context":
        return self

    def get_clients(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in ("site-1", "site-2")]

    def send_aux_request(
        self, targets: list[str], topic: str, request: Any, timeout: float, context: Any
    ) -> dict[str, Any] | None:
        self.targets = targets
        return self.replies


def replies(context: Context, aborted: bool = False) -> dict[str, Message | FederationError]:
    from mil.federation.engines.flare import FlareEngine

    engine = FlareEngine(context, SITES, SimpleNamespace(triggered=aborted))
    return dict(engine.ask(Message("describe"), SITES, 1.0))


def test_a_site_that_is_not_in_the_job_or_does_not_answer_is_named() -> None:
    from nvflare.apis.fl_constant import ReturnCode
    from nvflare.apis.shareable import make_reply

    good = make_reply(ReturnCode.OK)
    good["content"] = Message("key").to_bytes()
    context = Context({"site-1": good, "site-2": make_reply(ReturnCode.COMMUNICATION_ERROR)})
    answers = replies(context)
    assert context.targets == ["site-1", "site-2"]
    assert isinstance(answers["site-1"], Message)
    assert str(answers["site-2"]) == "site site-2: no answer (COMMUNICATION_ERROR)"
    assert str(answers["site-3"]) == "site site-3: takes no part in the job"
    assert set(replies(Context(None))) == {"site-3"}  # nobody answered in time


def test_an_aborted_job_ends() -> None:
    with pytest.raises(FederationError, match="the job was aborted; submitted again, it goes on"):
        replies(Context({}), aborted=True)


def test_a_site_with_numbers_that_are_not_finite_ends_the_round_by_name() -> None:
    from nvflare.apis.fl_constant import ReturnCode
    from nvflare.apis.shareable import make_reply

    from mil.federation.engines.flare import FlareEngine

    class Sites(Context):
        def send_aux_request(self, targets: list[str], topic: str, request: Any, *_: Any) -> dict[str, Any]:
            question = Message.from_bytes(bytes(request["content"]))
            answers = {}
            for site in targets:
                gradient = np.full(3, np.nan if site == "site-2" else 1.0)
                answer = Message("gradient", {"gradient": gradient}, {"round": question.facts["round"]}, 10)
                answers[site] = make_reply(ReturnCode.OK)
                answers[site]["content"] = answer.to_bytes()
            return answers

    engine = FlareEngine(Sites(None), SITES[:2], SimpleNamespace(triggered=False))
    with pytest.raises(RoundError, match="site site-2: gradient holds numbers that are not finite"):
        Coordinator(engine, FederationOptions.parse({"secure": False})).ask("gradient")


@pytest.mark.slow
def test_the_simulator_ends_in_the_weights_of_the_embedded_engine(mil: Mil, tmp_path: Path) -> None:
    """With folders of three hospitals, masked sums, and each left out in turn; at first with a class that the workspace
    does not allow.
    """
    for seed, site in enumerate(SITES):
        words = [word for word in WORDS if word.startswith("simulation.")]
        done = mil("simulate", tmp_path / site, *words, f"simulation.seed={seed}", "simulation.patients=30")
        assert done.code == 0, done.err
        as_real(tmp_path / site / "cohort.csv")
    job = exported(tmp_path / "job", sites=list(SITES), leave_one_site_out=True)
    places = {"sites": [str(tmp_path / site) for site in SITES]}
    federate(compose(WORDS), job.options.model_copy(update=places), tmp_path / "embedded")
    workspace = tmp_path / "workspace"
    assert "is not in allow_list" in simulate(tmp_path / "job", workspace, 3, 300)
    here = f"{tmp_path}/SITE_NAME"
    words = [f"data.cohort={here}/cohort.csv", f"data.features={here}/features", f"out={tmp_path}/out", "minimum=2"]
    done = mil("federate", "site", tmp_path / "workspace-2", *words)
    assert done.code == 0, done.err
    log = simulate(tmp_path / "job", tmp_path / "workspace-2", 3, 500)
    coordinator = tmp_path / "out" / "job" / "coordinator"
    assert (coordinator / "report.json").is_file(), log[-3000:]
    assert (coordinator / WEIGHTS).read_bytes() == (tmp_path / "embedded" / WEIGHTS).read_bytes()
    assert (tmp_path / "out" / "job" / "site-2" / "run" / "predictions.csv").is_file()
    embedded, over_flare = (
        json.loads((run / "federation.json").read_text()) for run in (tmp_path / "embedded", coordinator)
    )
    assert {**embedded, "seconds": 0} == {**over_flare, "seconds": 0}
    assert [result["site"] for result in over_flare["left_out"]] == list(SITES)


@pytest.fixture
def network(tmp_path: Path, mil: Mil) -> Iterator[Network]:
    made = Network(tmp_path / "network", SITES)
    for name in ("localhost", *SITES):
        done = mil("federate", "site", made.kit(name))
        assert done.code == 0, done.err
    made.keep_storage_here()
    yield made
    made.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_processes_that_are_killed_and_started_again_end_in_the_same_weights(network: Network, tmp_path: Path) -> None:
    """A late site is waited for; code that a job brings does not run; a site and the server are killed with -9."""
    job = exported(tmp_path / "job", "trainer.max_epochs=40", seconds=30.0)
    federate(compose([*WORDS, "trainer.max_epochs=40"]), job.options, tmp_path / "embedded")
    network.start("localhost", "site-1", "site-2")
    network.wait_for_sites(SITES[:2])
    job_id = network.submit(tmp_path / "job")
    state = network.kit("localhost") / STATE
    with pytest.raises(AssertionError):
        wait_for(lambda: network.status(job_id) != "SUBMITTED", 10, "two of three sites")
    network.start("site-3")
    network.wait_for_change(job_id, state, 400)
    network.kill("site-2")
    assert network.finish(job_id, 400) == "FINISHED:EXECUTION_EXCEPTION"
    network.start("site-2")
    network.wait_for_sites(SITES)
    network.wait_for_change(network.submit(tmp_path / "job"), state, 400)
    network.kill("localhost")
    network.start("localhost")
    network.wait_for_sites(SITES)
    job_id = network.submit(tmp_path / "job")
    assert network.finish(job_id, 600) == "FINISHED:COMPLETED"
    results = network.download(job_id) / "workspace" / "mil"
    assert (results / WEIGHTS).read_bytes() == (tmp_path / "embedded" / WEIGHTS).read_bytes()
    assert not [path for path in results.rglob("*") if path.name == "state"]
    assert "site-2" in (results / "checkpoint" / "README.md").read_text()
    exported(tmp_path / "foreign")
    foreign_job(tmp_path / "foreign", tmp_path / "marker")
    assert network.finish(network.submit(tmp_path / "foreign"), 300) != "FINISHED:COMPLETED"
    assert not (tmp_path / "marker").exists()
    # nor does an administrator elsewhere read files of a site, such as the predictions of its patients
    with network.session() as session, pytest.raises(Exception, match="not authorized for the action 'cat site-1"):
        session.cat_target("site-1", file="mil/job/site-1/run/predictions.csv")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_with_a_quorum_a_job_goes_on_without_the_site_that_was_killed(network: Network, tmp_path: Path) -> None:
    """FLARE lists the job as running until it gives the site up, after ten minutes, and then as abnormal."""
    exported(tmp_path / "job", "trainer.max_epochs=40", seconds=20.0, attempts=1, quorum=2)
    network.start("localhost", *SITES)
    network.wait_for_sites(SITES)
    job_id = network.submit(tmp_path / "job")
    network.wait_for_change(job_id, network.kit("localhost") / STATE, 400)
    network.kill("site-2")
    coordinator = network.kit("localhost") / STATE.parents[1]
    wait_for((coordinator / "report.json").exists, 400, "the report of two sites")
    section = json.loads((coordinator / "federation.json").read_text())
    assert [site["site"] for site in section["sites"]] == ["site-1", "site-3"]
    assert any("left out of round" in sentence and "site-2" in sentence for sentence in section["incidents"])

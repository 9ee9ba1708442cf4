"""Jobs for NVIDIA FLARE without FLARE: what is exported, what a site accepts, and what leaves it."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mil.cli.federate_command import action_of, options_in, site_words
from mil.errors import ConfigError
from mil.federation import federation_job, job_site, left_out, local_run
from mil.federation.coordinator import Engine, Reply
from mil.federation.engines.local import LocalEngine
from mil.federation.federated_run import FederatedRun
from mil.federation.federation_job import CLASSES, JOB, FederationJob, export
from mil.federation.federation_options import FederationOptions
from mil.federation.job_site import SITE_FILE, JobSite, SiteFile, packed, refuse_foreign_code, rehearsed, unpacked
from mil.federation.left_out import WithoutSite, with_left_out
from mil.federation.messages import FederationError, Message, NotReadyError
from mil.federation.site_sources import SiteSource, simulated_sites
from mil.federation.startup_kit import prepare_kit
from mil.report.sections.federation import Federation
from mil.study.compose import compose
from mil.study.run_config import RunConfig
from tests.conftest import Mil

WORDS = [
    "experiment=quick",
    "split=holdout",
    "model.embed_dim=8",
    "model.attention_dim=4",
    "simulation.patients=60",
    "simulation.tiles=30",
    "simulation.width=8",
    "simulation.sites=3",
    "simulation.target.prevalence=0.4",
    "resamples=20",
    "figures=false",
    "data.workers=0",
    "++tool.novelty=null",
]
CENTRES: list[SiteSource] = []
QUESTION = Message("describe", facts={"session": "1", "round": "1", "sites": ["site-1", "site-2", "site-3"]})


@pytest.fixture(autouse=True)
def _cohort_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the simulated cohort once for all tests."""
    monkeypatch.setattr(job_site, "simulated_sites", centres)
    monkeypatch.setattr(federation_job, "simulated_names", lambda config: [source.name for source in centres(config)])


def centres(config: RunConfig) -> list[SiteSource]:
    if not CENTRES:
        CENTRES.extend(simulated_sites(config))
    return [replace(source, config=config) for source in CENTRES]


class Kits:
    """Startup kits as FLARE 2.9 delivers them, as far as this package reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def made(self, name: str, server: bool = False) -> Path:
        kit = self.folder / name
        (kit / "startup").mkdir(parents=True)
        (kit / "local").mkdir()
        (kit / "startup" / ("fed_server.json" if server else "fed_client.json")).write_text("{}")
        resources = {"class_allow_list": ["nvflare.a.B"], "allow_log_streaming": True, "components": []}
        (kit / "local" / "resources.json.default").write_text(json.dumps(resources))
        rights = {"project_admin": "any", "lead": {"byoc": "any", "submit_job": "any"}, "member": {"view": "any"}}
        (kit / "local" / "authorization.json.default").write_text(json.dumps({"permissions": rights}))
        return kit


class JobEngine:
    """Asks sites of a job in this process, through the bytes that travel."""

    def __init__(self, sites: dict[str, JobSite]) -> None:
        self.by_name = sites

    @property
    def sites(self) -> list[str]:
        return sorted(self.by_name)

    def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
        for site in sites:
            yield site, unpacked(self.by_name[site].answer(question.to_bytes()))


def job_of(folder: Path, *words: str, **options: object) -> FederationJob:
    export(compose([*WORDS, *words]), FederationOptions.parse({"minimum": 2, **options}), folder)
    return FederationJob.read(folder / "app" / "config" / JOB)


def sites_of(job: FederationJob, folder: Path) -> dict[str, JobSite]:
    return {site: JobSite(job, site, folder / site, folder / "custom") for site in job.sites}


def test_a_job_waits_for_all_sites_and_holds_names_and_options_only(mil: Mil, tmp_path: Path) -> None:
    words = [*WORDS, "federation.sites=[north,south,west]", "federation.minimum=12"]
    done = mil("federate", "export", tmp_path / "msi", *words)
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["a job of 3 sites: north, south, west", str(tmp_path / "msi")]
    meta = json.loads((tmp_path / "msi" / "meta.json").read_text())
    assert (meta["min_clients"], meta["mandatory_clients"]) == (3, ["north", "south", "west"])
    assert meta["deploy_map"] == {"app": ["server", "north", "south", "west"]}
    written = sorted(
        str(path.relative_to(tmp_path / "msi")) for path in (tmp_path / "msi").rglob("*") if path.is_file()
    )
    config = [f"app/config/{name}" for name in ("config_fed_client.json", "config_fed_server.json", JOB)]
    assert written == [*config, "meta.json"]  # no code: no folder `custom`
    text = "".join((tmp_path / "msi" / name).read_text() for name in written)
    assert str(tmp_path) not in text
    assert str(Path.cwd()) not in text
    job = FederationJob.read(tmp_path / "msi" / config[-1])
    assert (job.simulated, job.options.minimum, job.run_config.data.cohort) == (False, 12, "at the sites")


def test_with_a_quorum_a_job_starts_and_goes_on_with_fewer_sites(tmp_path: Path) -> None:
    job_of(tmp_path / "job", quorum=2)
    meta = json.loads((tmp_path / "job" / "meta.json").read_text())
    assert (meta["min_clients"], meta["mandatory_clients"]) == (2, [])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["algorithm=local"], "federation.algorithm=local: each site alone needs no job"),
        (["algorithm=pooled"], "federation.algorithm=pooled: patients in one place"),
        (["leave_one_site_out=true", "sites=[north,south]"], "leave_one_site_out: 2 sites, expected three or more"),
        (["leave_one_site_out=true", "quorum=2"], "with federation.quorum sites may be absent, expected all"),
        (["sites=[north]"], "federation.sites: north, expected two or more different names"),
        (["sites=[north,north]"], "north, north, expected two or more different names"),
        (["sites=[a/b,c]"], "federation.sites: 'a/b', expected a name of letters"),
        (["sites=[server,c]"], "federation.sites: 'server', expected a name"),
    ],
)
def test_what_no_job_can_hold_is_refused(words: list[str], reason: str, tmp_path: Path) -> None:
    options = options_in([f"federation.{word}" for word in words])
    with pytest.raises(ConfigError, match=re.escape(reason)):
        export(compose(WORDS), options, tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_a_job_is_not_written_over_one_with_code(tmp_path: Path) -> None:
    job_of(tmp_path / "job")
    assert job_of(tmp_path / "job", minimum=3).options.minimum == 3  # an earlier one is replaced
    (tmp_path / "job" / "app" / "custom").mkdir()
    with pytest.raises(ConfigError, match="holds a job with code of its own"):
        job_of(tmp_path / "job")


def test_a_path_of_this_machine_is_refused(tmp_path: Path) -> None:
    config = compose(WORDS).replaced({"split": {"_target_": "mil.splits.folds.Fixed", "file": "/data/split.csv"}})
    with pytest.raises(ConfigError, match=r"split\.file=/data/split.csv: a path of this machine"):
        export(config, FederationOptions.parse({"sites": ["north", "south"]}), tmp_path / "job")
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["exprt", "out"], "'exprt' is no option, did you mean 'export'"),
        (["export"], "mil federate export: 0 folders"),
        (["site", "a", "b"], "mil federate site: 2 folders"),
        (["site", "kit", "minimm=3"], "option 'minimm' does not exist, did you mean 'minimum'"),
        (["site", "kit", "minimum=none"], "minimum=none, expected"),
        (["site", ".", "minimum=3"], "expected a startup kit of FLARE"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], reason: str, mil: Mil) -> None:
    done = mil("federate", *words)
    assert done.code == 2
    assert reason in done.err


def test_words_without_an_action_train_here() -> None:
    assert action_of(["tool=msi-crc"]) == (None, Path(), ["tool=msi-crc"])
    file, job = site_words(["data.cohort=c.csv", "data.features=f", "data.columns.patient=ID", "minimum=20"])
    assert job is None
    assert file.minimum == 20
    assert file.data["cohort"] == str(Path.cwd() / "c.csv")
    assert file.data["columns"] == {"patient": "ID"}


def test_a_kit_runs_the_installed_package_and_at_a_site_nothing_that_a_job_brings(mil: Mil, tmp_path: Path) -> None:
    kits = Kits(tmp_path)
    site, server = kits.made("north"), kits.made("server", server=True)
    done = mil("federate", "site", site, f"data.cohort={tmp_path}/c.csv", f"data.features={tmp_path}/f")
    assert done.code == 0, done.err
    for _ in range(2):  # again is the same
        prepare_kit(server, SiteFile())
    resources = json.loads((site / "local" / "resources.json").read_text())
    assert resources["class_allow_list"] == ["nvflare.a.B", CLASSES]
    assert resources["allow_log_streaming"] is False
    permissions = json.loads((site / "local" / "authorization.json").read_text())["permissions"]
    assert {rights["byoc"] for rights in permissions.values()} == {"none"}
    assert {rights["shell_commands"] for rights in permissions.values()} == {"none"}
    assert permissions["project_admin"]["submit_job"] == "any"
    assert permissions["member"]["view"] == "any"
    assert SiteFile.read(site / "local" / SITE_FILE, "north").data["features"] == f"{tmp_path}/f"
    of_server = json.loads((server / "local" / "resources.json").read_text())
    assert of_server["class_allow_list"] == ["nvflare.a.B", CLASSES]
    assert of_server["allow_log_streaming"] is True
    assert not (server / "local" / "authorization.json").exists()


def test_the_kit_of_an_earlier_flare_is_refused_and_stays_as_it_was(tmp_path: Path) -> None:
    kit = Kits(tmp_path).made("north")
    (kit / "local" / "resources.json.default").write_text("{}")
    with pytest.raises(ConfigError, match=r"no class_allow_list, expected a kit of NVIDIA FLARE 2\.9"):
        prepare_kit(kit, SiteFile())
    assert not (kit / "local" / SITE_FILE).exists()


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("minimum", 5, "federation.minimum=5, this site's mil_site.yaml accepts 10 or more"),
        ("secure", False, "federation.secure=false, this site's mil_site.yaml accepts masked sums only"),
        ("times", "exact", "federation.times=exact, this site's mil_site.yaml accepts federation.times=grid"),
    ],
)
def test_a_site_refuses_a_job_that_asks_for_less_privacy(
    option: str, value: object, reason: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"minimum": 10, "sites": ["north", "south"], option: value}
    job = job_of(tmp_path / "job", **options)
    kit = Kits(tmp_path).made("north")
    prepare_kit(kit, SiteFile.parse({"data": {"cohort": "c.csv", "features": "f"}}, tmp_path, "test"))
    answer = unpacked(JobSite(job, "north", kit, tmp_path / "custom").answer(QUESTION.to_bytes()))
    assert str(answer) == f"site north: {reason}"


def test_errors_about_files_stay_at_the_site(hospital: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They name patients and slides: the coordinator learns that there is an error, the site's log which."""
    table = (hospital / "cohort.csv").read_text().splitlines()
    secret = table[1].split(",")[0]
    broken = tmp_path / "cohort.csv"
    broken.write_text("\n".join([*table, table[1].replace(table[1].split(",")[1], "no-such-slide")]) + "\n")
    kit = Kits(tmp_path).made("north")
    data = {"cohort": str(broken), "features": str(hospital / "features")}
    prepare_kit(kit, SiteFile.parse({"data": data, "minimum": 2}, tmp_path, "test"))
    job = job_of(tmp_path / "job", sites=["north", "south"])
    content = JobSite(job, "north", kit, tmp_path / "custom").answer(QUESTION.to_bytes())
    assert str(unpacked(content)) == "site north: its files or options do not work; the reason is in the site's log"
    assert "no-such-slide" in caplog.text
    assert secret.encode() not in content
    with pytest.raises(Exception, match="no-such-slide"):  # who prepares a kit sees the reason
        rehearsed(tmp_path / "job", SiteFile.read(kit / "local" / SITE_FILE, "north"), kit)


def test_a_site_is_tried_before_it_takes_part(hospital: Path, mil: Mil, tmp_path: Path) -> None:
    job_of(tmp_path / "job", sites=["north", "south"])
    kit = Kits(tmp_path).made("north")
    words = [f"data.cohort={hospital}/cohort.csv", f"data.features={hospital}/features", f"job={tmp_path}/job"]
    done = mil("federate", "site", kit, *words, "minimum=2")
    assert done.code == 0, done.err
    assert "north in job: 14 train, 4 select, 6 report" in done.out
    refused = mil("federate", "site", Kits(tmp_path).made("south"), *words)
    assert refused.code == 2
    assert "site south: federation.minimum=2, this site's mil_site.yaml accepts 10 or more" in refused.err


def test_a_job_that_brings_code_is_refused(tmp_path: Path) -> None:
    custom = tmp_path / "app" / "custom"
    custom.mkdir(parents=True)
    refuse_foreign_code(custom)
    (custom / "surprise.so").write_text("")
    job = job_of(tmp_path / "job")
    answer = unpacked(JobSite(job, "site-1", tmp_path / "kit", custom).answer(QUESTION.to_bytes()))
    assert "brought code of its own (surprise.so)" in str(answer)


def test_a_job_that_names_a_foreign_class_is_refused(tmp_path: Path) -> None:
    job_of(tmp_path / "job")
    path = tmp_path / "job" / "app" / "config" / JOB
    content = json.loads(path.read_text())
    content["config"]["optimizer"]["_target_"] = "subprocess.Popen"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"subprocess\.Popen.* is no class of this package"):
        FederationJob.read(path)


def test_one_process_and_one_federation_at_a_time_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_site, "WAIT_SECONDS", 0.0)
    job = job_of(tmp_path / "job")
    first, second = (JobSite(job, "site-1", tmp_path / "kit", tmp_path / "custom") for _ in range(2))
    assert isinstance(unpacked(first.answer(QUESTION.to_bytes())), Message)
    assert "another job works in its folder for job" in str(unpacked(second.answer(QUESTION.to_bytes())))
    first.close()
    assert isinstance(unpacked(second.answer(QUESTION.to_bytes())), Message)
    second.close()
    other_job = job_of(tmp_path / "job", "seed=7")
    answer = unpacked(JobSite(other_job, "site-1", tmp_path / "kit", tmp_path / "custom").answer(QUESTION.to_bytes()))
    assert "has a folder of another federation called job" in str(answer)


def test_errors_keep_their_kind_on_the_way() -> None:
    assert isinstance(unpacked(packed(NotReadyError("site north: has no fold 0"))), NotReadyError)
    assert type(unpacked(packed(FederationError("withheld")))) is FederationError
    assert isinstance(unpacked(b"broken"), FederationError)


def test_sites_of_a_job_train_the_weights_of_the_embedded_engine(tmp_path: Path) -> None:
    """Also after the coordinator and all sites were killed between two epochs and the job was submitted again."""
    job = job_of(tmp_path / "job", "trainer.max_epochs=3", "data.batch_bags=40")
    config, options = job.run_config, job.options
    hospitals = {source.name: source.hospital(options) for source in centres(config)}

    class KilledError(Exception): ...

    class Dying(JobEngine):
        def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
            if question.facts.get("epoch") == 2:
                raise KilledError
            return super().ask(question, sites, seconds)

    def weights(engine: Engine, folder: str) -> bytes:
        run = FederatedRun(config, options, engine, None, tmp_path / folder)
        run.join()
        return run.train_fold(0).weights.tobytes()

    sites = sites_of(job, tmp_path)
    with pytest.raises(KilledError):
        weights(Dying(sites), "coordinator")
    for site in sites.values():
        site.close()  # as the end of a process does
    assert weights(JobEngine(sites_of(job, tmp_path)), "coordinator") == weights(LocalEngine(hospitals), "embedded")
    audit = (tmp_path / "site-2" / "mil" / "job" / "site-2" / "audit.jsonl").read_text().splitlines()
    assert {json.loads(line)["kind"] for line in audit} >= {"gradient", "state sums"}


def test_sites_of_a_job_are_left_out_in_turn_as_by_the_embedded_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every site answers for the model of all sites and for those without one, each with keys of its own."""
    job = job_of(tmp_path / "job", leave_one_site_out=True)
    config, options = job.run_config, job.options
    monkeypatch.setattr(local_run, "site_sources", lambda config, options: centres(config))
    monkeypatch.setattr(left_out, "describe_run", lambda folder: None)
    empty = Federation(algorithm="exact", minimum=2, secure=True)
    monkeypatch.setattr(FederatedRun, "run", lambda run: empty)
    expected = local_run.federate(config, options, tmp_path / "embedded")
    sites, asked = sites_of(job, tmp_path), dict[str, set[str]]()

    class Watched(JobEngine):
        def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
            if question.kind == "gradient":
                asked.setdefault(str(question.facts["without"]), set()).update(sites)
            return super().ask(question, sites, seconds)

    def engine_of(test: str, names: Sequence[str]) -> Engine:
        return WithoutSite(Watched({name: sites[name] for name in names}), test)

    (tmp_path / "coordinator").mkdir()
    section = with_left_out(empty, config, options, job.sites, engine_of, None, tmp_path / "coordinator")
    assert [result.site for result in section.left_out] == ["site-1", "site-2", "site-3"]
    assert section.left_out == expected.left_out
    assert asked == {site: set(job.sites) - {site} for site in job.sites}
    question = Message("describe", facts={**QUESTION.facts, "without": "elsewhere"})
    answer = unpacked(sites["site-1"].answer(question.to_bytes()))
    assert str(answer) == "site site-1: the job trains no model without elsewhere"

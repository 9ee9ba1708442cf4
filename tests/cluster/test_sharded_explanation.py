"""An explanation by parts of the patients has, to the byte, the files of one process."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mil.cluster.job_ledger import Ledger, jobs_folder
from mil.cluster.job_states import job_states, overall
from mil.cluster.shard_results import part
from mil.cluster.sharded_explanation import ExplainJoin, ExplainRequest, ExplainStep
from mil.cluster.sharded_run_explanation import run_explanation_work
from mil.cluster.sharded_work import ShardedWork, job_group
from mil.cluster.submission import JobGroup
from mil.errors import ConfigError, FeatureError, TrainingError
from mil.explain.explain_patients import Request
from mil.explain.writers import FileChoices
from mil.runs.explain_report import explain_report, explanation_of
from mil.runs.run import open_run
from tests.cluster.fake_scheduler import FakeScheduler
from tests.conftest import Mil

FORMATS = ("parquet", "csv", "geojson", "dsa")


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def all_over(group: JobGroup) -> None:
    """Write a list without jobs, as if all of them were over."""
    Ledger(engine="local", result="", request=group.request, logs="", submitted="").write(group.place)


def test_shards_give_the_files_of_one_process(real_run: Path, hospital: Path, tmp_path: Path) -> None:
    names = tuple(sorted({line.split(",")[0] for line in (hospital / "cohort.csv").read_text().splitlines()[1:]}))[:5]
    request = ExplainRequest(
        (str(real_run / "checkpoint"),),
        hospital / "features",
        hospital / "cohort.csv",
        None,
        Request(),
        FileChoices(formats=FORMATS),
        None,
        None,
    )
    request.write(tmp_path / "together", names)
    out = tmp_path / "out"
    work = ShardedWork("mil-explain", (ExplainStep(request, names),), ExplainJoin(), ())
    group = job_group(work, out, 2)
    for unit in group.units:
        unit.run()
    group.last.run()
    assert files_in(out) == files_in(tmp_path / "together")
    assert not part(group.place, "shard_00000").exists()
    all_over(group)
    with pytest.raises(TrainingError, match="2 of 2 shards are not done; shard_00000"):
        group.last.run()


def test_a_shard_of_which_no_slide_can_be_used_adds_nothing(real_run: Path, hospital: Path, tmp_path: Path) -> None:
    features = tmp_path / "features"
    features.mkdir()
    for at, path in enumerate(sorted((hospital / "features").iterdir())[:3]):
        (features / path.name).write_bytes(path.read_bytes() if at else b"")
    names = tuple(path.stem for path in sorted(features.iterdir()))
    checkpoint, choices = str(real_run / "checkpoint"), FileChoices(formats=("csv",))
    request = ExplainRequest((checkpoint,), features, None, None, Request(on_bad="skip"), choices, None, None)
    request.write(tmp_path / "together", names)
    work = ShardedWork("mil-explain", (ExplainStep(request, names),), ExplainJoin(), ())
    group = job_group(work, tmp_path / "out", len(names))
    for unit in group.units:
        unit.run()
    group.last.run()
    assert files_in(tmp_path / "out") == files_in(tmp_path / "together")
    assert len(files_in(tmp_path / "out")) == 2
    broken = ShardedWork("mil-explain", (ExplainStep(request, names[:1]),), ExplainJoin(), ())
    group = job_group(broken, tmp_path / "none", 1)
    group.units[0].run()
    with pytest.raises(FeatureError, match="none of the slides can be used"):
        group.last.run()
    assert not (tmp_path / "none").exists()


def test_shards_of_a_run_give_the_files_the_pages_and_the_report_of_one_process(crc_run: Path, tmp_path: Path) -> None:
    together, apart = (shutil.copytree(crc_run, tmp_path / name / "run") for name in ("together", "apart"))
    request, choices = Request(methods=("single",)), FileChoices(formats=("parquet", "csv"))
    explain_report(together, request, most=5, cases=True, choices=choices, measure=3)
    work = explanation_of(open_run(apart), request, None, 5, True, choices, 3)
    group = job_group(run_explanation_work(open_run(apart), work), work.place, 2)
    measuring, explaining = group.stages
    assert [unit.name for unit in measuring] == ["measure_00000", "measure_00001"]
    assert set(explaining[0].waits_for) == {unit.name for unit in measuring}
    measuring[1].run()
    all_over(group)
    with pytest.raises(TrainingError, match="1 of 2 shards are not done; measure_00000"):
        explaining[0].run()
    measuring[0].run()
    explaining[0].run()
    resumed = job_group(run_explanation_work(open_run(apart), work), work.place, 2)
    assert [[unit.name for unit in stage] for stage in resumed.stages] == [[], ["shard_00001"]]
    for unit in resumed.units:
        unit.run()
    resumed.last.run()
    shutil.rmtree(resumed.place)
    assert files_in(apart) == files_in(together)
    assert "cases/index.html" in files_in(apart / "explain")


@pytest.mark.slow
def test_local_jobs_explain_a_run_as_one_process_does(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    words = ("explain", str(crc_run), "--most", "4", "--measure", "2", "--format", "csv", "--out")
    fresh = [sys.executable, "-m", "mil", *words, str(tmp_path / "together")]  # as the jobs: figures by nobody's state
    subprocess.run(fresh, check=True, capture_output=True)
    out = tmp_path / "out"
    submitted = mil(*words, out, "cluster=local", "cluster.shards=1")  # jobs import torch for seconds
    assert (submitted.code, submitted.out) == (0, f"{out}\n"), submitted.err
    started = time.monotonic()
    while overall(job_states(jobs_folder(out))).is_active and time.monotonic() < started + 900:
        time.sleep(0.2)
    assert mil("runs", str(out)).out.splitlines()[-2:] == ["done", str(out)], mil("runs", str(out), "--logs").out
    assert files_in(out) == files_in(tmp_path / "together")


def test_shards_of_an_explanation_are_submitted(
    real_run: Path, hospital: Path, slurm: FakeScheduler, mil: Mil, tmp_path: Path
) -> None:
    words = ("--features", str(hospital / "features"), "--out", str(tmp_path / "out"), "cluster=slurm")
    submitted = mil("explain", str(real_run / "checkpoint"), *words, "cluster.shards=3")
    assert submitted.code == 0, submitted.err
    assert submitted.out == f"{tmp_path / 'out'}\n"
    scripts = slurm.scripts(tmp_path / "out.jobs" / "logs")
    assert "array=0-2" in scripts["4711"]
    assert "dependency=afterany:4711_0:4711_1:4711_2\n" in scripts["4712"]
    unknown = mil("explain", str(real_run / "checkpoint"), *words, "--patients", "nobody")
    assert "--patients: nobody is not among the" in unknown.err


def test_the_explanation_of_a_run_waits_for_what_is_measured(
    crc_run: Path, slurm: FakeScheduler, mil: Mil, tmp_path: Path
) -> None:
    words = ("explain", crc_run, "--out", tmp_path / "out", "cluster=slurm", "cluster.shards=2")
    submitted = mil(*words, "--measure", "3")
    assert (submitted.code, submitted.out) == (0, f"{tmp_path / 'out'}\n"), submitted.err
    scripts = slurm.scripts(tmp_path / "out.jobs" / "logs")
    assert "array=0-1" in scripts["4711"]
    assert "dependency=afterany:4711_0:4711_1\n" in scripts["4712"]
    assert "array=0-1" in scripts["4712"]
    assert "dependency=afterany:4711_0:4711_1:4712_0:4712_1\n" in scripts["4713"]
    assert not (tmp_path / "out").exists()
    slurm.answer("squeue", "4712_1|PENDING|Dependency")
    assert "its job 4712_1 (shard_00001) is queued" in mil(*words, "--measure", "3").err
    slurm.answer("squeue")
    path = part(tmp_path / "out.jobs", "measure_00000")
    path.parent.mkdir()
    path.write_text("{}")
    assert "holds shards of another request" in mil(*words, "--measure", "2").err


def test_an_older_checkpoint_of_a_run_is_explained_together(crc_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(crc_run)
    monkeypatch.setattr("mil.cluster.sharded_explanation.stored_reference", lambda _: None)
    with pytest.raises(ConfigError, match="an older checkpoint, whose tiles are compared with the mean of all given"):
        run_explanation_work(run, explanation_of(run))

"""A prediction by shards of the patients is, to the byte, that of one process."""

import shutil
import time
from pathlib import Path

import pytest

from mil.cluster.job_ledger import Ledger, jobs_folder
from mil.cluster.job_states import job_states, overall
from mil.cluster.shard_results import part
from mil.cluster.sharded_prediction import PredictJoin, PredictRequest, PredictStep, merged_csv
from mil.cluster.sharded_work import ShardedWork, job_group
from mil.errors import FeatureError, TrainingError
from tests.cluster.fake_scheduler import FakeScheduler
from tests.conftest import Mil

SHARDS = 3


@pytest.fixture
def broken_hospital(hospital: Path, tmp_path: Path) -> Path:
    """Return the files of the hospital, of which those of the first shard and one of the others are broken."""
    site = shutil.copytree(hospital, tmp_path / "site")
    for path in site.rglob("*.h5"):
        if path.name < "P0008" or path.name.startswith("P0023"):
            path.write_bytes(b"")
    return site


@pytest.mark.parametrize("by_patient", [True, False])
def test_shards_give_the_bytes_of_one_process(
    by_patient: bool, real_run: Path, broken_hospital: Path, slurm: FakeScheduler, mil: Mil, tmp_path: Path
) -> None:
    cohort = broken_hospital / "cohort.csv" if by_patient else None
    given = ("--cohort", str(cohort)) if cohort else ()
    words = ("--features", str(broken_hospital / "features"), *given, "--on-bad", "skip")
    together = tmp_path / "together.csv"
    result = mil("predict", str(real_run / "checkpoint"), *words, "--out", str(together))
    assert result.code == 0, result.err
    features = broken_hospital / "features"
    request = PredictRequest((str(real_run / "checkpoint"),), features, cohort, on_bad="skip")
    place, out = tmp_path / "out.csv.jobs", tmp_path / "out.csv"
    names = tuple(path.stem for path in sorted(features.iterdir()))[:SHARDS]  # as many as shards: each reads its own
    work = ShardedWork("mil-predict", (PredictStep(request, names),), PredictJoin(), ())
    group = job_group(work, out, SHARDS)
    (units,), last = group.stages, group.last
    for unit in units[1:]:
        unit.run()
    Ledger(engine="slurm", result=str(out), logs="", submitted="").write(place)
    with pytest.raises(TrainingError, match="1 of 3 shards are not done; shard_00000"):
        last.run()
    units[0].run()
    if by_patient:
        first = part(place, "shard_00000").read_text().splitlines()[0]
        assert "p_" not in first, "none of its slides can be used"
    last.run()
    assert out.read_bytes() == together.read_bytes()
    assert not part(place, "shard_00000").exists()


def test_local_jobs_predict_the_bytes_of_one_process(real_run: Path, hospital: Path, mil: Mil, tmp_path: Path) -> None:
    words = (str(real_run / "checkpoint"), "--features", str(hospital / "features"), "--out")
    assert mil("predict", *words, str(tmp_path / "together.csv")).code == 0
    out = tmp_path / "scores.csv"
    submitted = mil("predict", *words, str(out), "cluster=local", "cluster.shards=2")
    assert submitted.code == 0, submitted.err
    assert submitted.out == f"{out}\n"
    started = time.monotonic()
    while overall(job_states(jobs_folder(out))).is_active and time.monotonic() < started + 900:
        time.sleep(0.2)
    assert mil("runs", str(out)).out.splitlines()[-2:] == ["done", str(out)], mil("runs", str(out), "--logs").out
    assert out.read_bytes() == (tmp_path / "together.csv").read_bytes()


def test_only_missing_shards_of_the_same_request_are_submitted(
    real_run: Path, hospital: Path, slurm: FakeScheduler, mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("predict", str(real_run / "checkpoint"), "--features", str(hospital / "features"), "--out", "out.csv")
    submitted = mil(*words, "cluster=slurm", "cluster.shards=4")
    assert submitted.code == 0, submitted.err
    place = tmp_path / "out.csv.jobs"
    assert "array=0-3" in slurm.scripts(place / "logs")["4711"]
    slurm.answer("squeue", "4711_0|CANCELLED|None", "4711_1|PENDING|None")
    assert mil("runs").out == "queued     out.csv\n"
    assert "its job 4711_1 (shard_00001) is queued" in mil(*words, "cluster=slurm", "cluster.shards=4").err
    slurm.answer("squeue")
    for number in (0, 2):
        path = part(place, f"shard_{number:05d}")
        path.parent.mkdir(exist_ok=True)
        path.write_text("slide,tiles\n")
    assert mil(*words, "cluster=slurm", "cluster.shards=4").code == 0
    ledger = Ledger.read(place)
    assert ledger is not None
    assert [job.name for job in ledger.jobs] == ["shard_00001", "shard_00003", "merge"]
    another = mil(*words, "--max-tiles", "10", "cluster=slurm", "cluster.shards=4")
    assert another.code == 2
    assert "out.csv.jobs: holds shards of another request" in another.err


def test_wrong_inputs_are_an_error_before_anything_is_submitted(
    real_run: Path, hospital: Path, slurm: FakeScheduler, mil: Mil, tmp_path: Path
) -> None:
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("patient,slide\nA,absent\n")
    words = ("--features", str(hospital / "features"), "--out", str(tmp_path / "out.csv"), "cluster=slurm")
    result = mil("predict", str(real_run / "checkpoint"), *words, "--cohort", str(cohort))
    assert result.code == 2
    assert "none of 1 slides has a feature file" in result.err
    assert mil("predict", *words).code == 2
    assert not slurm.calls("sbatch")
    assert not (tmp_path / "out.csv.jobs").exists()


def test_a_column_that_a_shard_lacks_is_empty_and_nothing_but_skipped_rows_is_an_error() -> None:
    texts = ["slide,tiles,p,threshold\na,3,0.5,0.1\n", 'slide,tiles,p,skipped,threshold\nb,0,,"b: no, file",0.1\n']
    assert merged_csv(texts) == ('slide,tiles,p,skipped,threshold\na,3,0.5,,0.1\nb,0,,"b: no, file",0.1\n')
    with pytest.raises(FeatureError, match=r"none of the slides of 1 rows can be used; the first, b: no, file"):
        merged_csv(texts[1:])

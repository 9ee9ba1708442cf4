"""An explanation by shards of the patients has, to the byte, the files of one process."""

from pathlib import Path

import pytest

from mil.cluster.shard_results import part
from mil.cluster.sharded_explanation import ExplainRequest, ExplainUnit, JoinUnit
from mil.errors import TrainingError
from mil.explain.explain_patients import Request
from mil.explain.writers import FileChoices
from mil.inference.cohort_shards import Shard
from tests.cluster.fake_scheduler import FakeScheduler
from tests.conftest import Mil

FORMATS = ("parquet", "csv", "geojson", "dsa")


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    place, out = tmp_path / "out.jobs", tmp_path / "out"
    units = [ExplainUnit(request, place, number, Shard(number, 2).among(names)) for number in range(2)]
    assert [len(unit.patients) for unit in units] == [2, 3]
    for unit in units:
        unit.run()
    JoinUnit(place, out, 2, ("shard_00000", "shard_00001")).run()
    assert files_in(out) == files_in(tmp_path / "together")
    assert not part(place, 0).exists()
    place.joinpath("jobs.json").write_text('{"engine": "local", "result": "", "logs": "", "submitted": ""}')
    with pytest.raises(TrainingError, match="2 of 2 shards are not done"):
        JoinUnit(place, out, 2, ()).run()


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
    of_a_run = mil("explain", str(real_run), "cluster=slurm")
    assert (of_a_run.code, "expected a checkpoint of it with cluster=slurm" in of_a_run.err) == (2, True)
    unknown = mil("explain", str(real_run / "checkpoint"), *words, "--patients", "nobody")
    assert "--patients: nobody is not among the" in unknown.err

"""The words of a cluster: read as text, checked, and told apart from those of a training."""

from pathlib import Path

import pytest

from mil.cli.complete import groups_help
from mil.cluster.cluster_options import divided, minutes, options_in
from mil.config import choices
from mil.errors import ConfigError
from tests.conftest import Mil


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("90", 90),
        ("01:30", 2),
        ("04:00:00", 240),
        ("00:00:30", 1),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("2-00:00:01", 2881),
    ],
)
def test_every_format_of_sbatch_is_a_number_of_minutes(time: str, expected: int) -> None:
    assert minutes(time) == expected


@pytest.mark.parametrize("time", ["", "4h", "04:00:00:00", "00:00:00", "1-", "-5", "1.5"])
def test_what_is_no_time_is_none(time: str) -> None:
    with pytest.raises(ValueError, match=f"^{time}$"):
        minutes(time)


def test_options_are_those_of_the_file_with_the_words_on_top() -> None:
    words = ["cluster=slurm", "cluster.time=1-00:00:00", "cluster.partition=007", "cluster.gpus=1"]
    words += ["cluster.setup=[module load python, source env/bin/activate]", "cluster.sbatch.nice=100"]
    options = options_in(words)
    assert options is not None
    assert (options.engine, options.minutes, options.partition, options.gpus) == ("slurm", 1440, "007", 1)
    assert options.setup == ("module load python", "source env/bin/activate")
    assert options.sbatch == {"nice": "100"}
    assert options_in(["cluster=slurm", "cluster.sbatch={nice: 100}"]) == options_in(words[:1] + words[-1:])
    assert options_in([]) is None
    assert options_in(["cluster=null"]) is None


@pytest.mark.parametrize("name", choices("cluster"))
def test_every_file_of_the_group_can_be_chosen(name: str) -> None:
    options = options_in([f"cluster={name}"])
    assert options is not None
    assert options.engine == name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster=slum"], "cluster=slum does not exist, did you mean 'slurm'?, expected one of local, slurm"),
        (["cluster.time=5"], "cluster.time: without a cluster, expected cluster=slurm"),
        (["cluster=slurm", "cluster.tme=5"], "option 'cluster.tme' does not exist, did you mean 'cluster.time'?"),
        (["cluster=slurm", "cluster.time=4h"], "cluster.time=4h, expected minutes, HH:MM:SS or D-HH:MM:SS, such as"),
        (["cluster=slurm", "cluster.shards=0"], "cluster.shards=0, expected greater than or equal to 1"),
        (["cluster=slurm", "cluster.time=1"], "cluster.warning=120, expected fewer seconds than a job has, cluster.t"),
    ],
)
def test_wrong_words_are_an_error_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        options_in(words)
    assert str(raised.value).startswith(message)


def test_words_of_the_cluster_are_told_from_those_of_the_training() -> None:
    words = ["tool=msi-crc", "cluster=slurm", "-m", "cluster.time=5", "clusters=1", "data.cohort=cluster=1"]
    assert divided(words) == (["cluster=slurm", "cluster.time=5"], [words[0], "-m", "clusters=1", words[-1]])


def test_the_words_are_completed_and_no_options_of_a_check(mil: Mil, tmp_path: Path) -> None:
    assert "  cluster=local|slurm" in groups_help()
    result = mil("check", f"data.cohort={tmp_path}/none.csv", "data.features=none", "cluster=slurm", "cluster.gpus=1")
    assert "none.csv" in result.out + result.err
    assert "cluster" not in result.out + result.err

"""The endpoint benchmarks: only targets are permuted, and the scripts print their tables."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from tests.conftest import Mil

ROOT = Path(__file__).resolve().parents[2]
Script = Callable[[str], ModuleType]


def read_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.mark.parametrize("tool", ["survival", "several"])
def test_only_targets_are_permuted_among_patients(tool: str, script: Script, mil: Mil, tmp_path: Path) -> None:
    size = ["simulation.patients=30", "simulation.tiles=20", "simulation.width=8", "simulation.slides=2"]
    mil("simulate", tmp_path / "cohort", f"tool={tool}", *size)
    script("benchmark_endpoints")._permute(tmp_path, tool, 0)
    old, new = read_table(tmp_path / "cohort" / "cohort.csv"), read_table(tmp_path / "permuted.csv")
    targets = [name for name in old if name in {"time", "event", "label", "score"}]
    assert len(targets) == {"survival": 2, "several": 4}[tool]
    assert new.drop(columns=targets).equals(old.drop(columns=targets))
    before, after = (rows.drop_duplicates("patient").set_index("patient")[targets] for rows in (old, new))
    assert sorted(map(tuple, before.to_numpy())) == sorted(map(tuple, after.to_numpy()))
    assert not before.equals(after)
    assert (new.groupby("patient")[targets].nunique() == 1).all(axis=None), "slides of a patient agree"


def script_output(script: str, *words: str | Path) -> str:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_endpoint_table_has_a_row_per_tool(tmp_path: Path) -> None:
    size = ("--patients", "60", "--work", tmp_path, "--out", tmp_path / "table.md")
    out = script_output(
        "benchmark_endpoints.py", "--tools", "binary", "regression", *size, "--", "trainer.max_epochs=1"
    )
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert rows[2:] == out.splitlines()[-2:]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| `binary`", "| `regression`"]
    for row in rows[2:]:
        assert len(re.findall(r"-?\d\.\d{3} \(-?\d+\.\d{3} to -?\d+\.\d{3}\)", row)) == 2, row


@pytest.mark.slow
def test_batches_and_whole_cohort_are_compared_per_seed(tmp_path: Path) -> None:
    size = ("--patients", "300", "--epochs", "1", "--rates", "1e-3", "--work", tmp_path)
    lines = script_output("benchmark_whole_cohort.py", "--seeds", "2", *size).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "batches of 32",
        "whole cohort",
        "whole cohort, 5 passes an epoch",
        "whole cohort less batches of 32",
        "whole cohort, 5 passes an epoch less batches of 32",
        "batches of 32",
        "whole cohort",
    ]
    assert re.search(r"\d+ MiB with 30 patients, \d+ MiB with 300 patients$", lines[-1])

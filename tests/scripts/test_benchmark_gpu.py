"""The benchmark of a GPU runs on a CPU too, to try its code."""

from pathlib import Path

import pytest
import torch

from mil import config
from tests.scripts.test_benchmark_endpoints import Script, script_output


@pytest.mark.slow
def test_a_dry_run_prints_every_rate_and_every_model(tmp_path: Path) -> None:
    out = tmp_path / "tables.md"
    script_output("benchmark_gpu.py", "--dry", "--out", out)
    text = out.read_text()
    assert text.count("| `mil train`, ") == 2
    assert "| plain loop: one bag a step, single precision | " in text
    assert all(f"| `{name}` | 0.0e+00 |" in text for name in config.choices("model")), "a CPU says what it says"


def test_a_machine_without_gpu_is_told_of_the_dry_run(
    script: Script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["benchmark_gpu"])
    assert script("benchmark_gpu").main() == 2
    assert capsys.readouterr().err == (
        "benchmark_gpu: this machine has no CUDA GPU; --dry runs the same code on the CPU\n"
    )

"""Fixtures of the tests of cluster jobs."""

from pathlib import Path

import pytest

from tests.cluster.fake_scheduler import FakeScheduler, install


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeScheduler:
    """Return a SLURM whose programs only write down how they were called."""
    return install(tmp_path / "bin", monkeypatch)

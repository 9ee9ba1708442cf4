"""Released folders that every test may read."""

from pathlib import Path

import pytest

from mil.zoo import release as module
from mil.zoo import verify as verification
from tests.conftest import once


@pytest.fixture(scope="session")
def crc_release(crc_run: Path, shared: Path) -> Path:
    """A release of a simulated run of two folds."""
    return once(shared / "released_crc", lambda at: module.release(crc_run, "1.0.0", at)) / "msi-crc"


@pytest.fixture(scope="session")
def surv_release(surv_run: Path, shared: Path) -> Path:
    """The same of survival."""
    return once(shared / "released_surv", lambda at: module.release(surv_run, "1.0.0", at)) / "surv-crc"


@pytest.fixture(scope="session")
def real_release(real_run: Path, shared: Path) -> Path:
    """Of a hold-out run on files."""
    return once(shared / "released_real", lambda at: module.release(real_run, "1.0.0", at)) / "msi-crc"


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than all the rest of a release, and not every test is of them."""
    monkeypatch.setattr(module, "draw_figures", lambda *_: None)


@pytest.fixture
def _not_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw the figures again is most of a verification, and not every test of it is of them."""
    monkeypatch.setattr(verification, "redrawn_problems", lambda *_: iter(()))

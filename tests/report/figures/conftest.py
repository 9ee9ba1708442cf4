"""Figures are made as `draw` makes them, with bands of few resamples."""

from collections.abc import Iterator

import pytest

from mil.report.figures import threshold_curves
from mil.report.figures.style import styled


@pytest.fixture(autouse=True)
def _styled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threshold_curves, "RESAMPLES", 20)
    with styled():
        yield

"""Feature folders for the tests of packing."""

from pathlib import Path

import pytest

from mil.errors import FeatureError
from mil.features.packing import pack
from mil.features.store import FeatureStore
from mil.simulation.simulated_cohort import Simulation
from mil.simulation.targets.class_targets import Binary
from tests.features.conftest import random_features, write_clam

COHORT = Simulation(Binary("msi", ("MSS", "MSI-H"), 0.3, 0.9), patients=4, tiles=20, width=8, slides=1.5)
SLIDES = ["a", "b", "c", "d", "e", "f"]


def write_six_slides(folder: Path) -> Path:
    """Write six slides of float32, one of them without tiles, and return the folder."""
    for number, slide in enumerate(SLIDES):
        write_clam(folder / f"{slide}.h5", random_features(4 * number, dtype="float32"))
    return folder


def refusal(source: Path, out: Path, dtype: str | None = None) -> str:
    """Return the one-line message with which packing is refused."""
    with pytest.raises(FeatureError) as raised:
        pack(FeatureStore(source), out, dtype=dtype)
    assert "\n" not in str(raised.value)
    return str(raised.value)

"""One cohort in every layout: training depends only on the stored values, not on the file format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mil.errors import MilError
from mil.features.packing import pack
from mil.features.store import FeatureStore
from mil.simulation.layouts import LAYOUTS
from mil.simulation.simulated_cohort import write
from mil.study import build
from mil.study.compose import compose
from mil.study.pipeline import read_study, split_study
from mil.study.run_config import RunConfig
from mil.training.train import train
from tests.conftest import TINY

SMALLER = [
    *("simulation.patients=12", "simulation.tiles=20", "split=holdout", "baseline=false"),
    *("trainer.max_epochs=1", "trainer.precision=32-true"),  # lower precision would hide differences between dtypes
]
UNKNOWN = "encoder=simulated"
MICROMETRES = "data.slide_mpp=0.25"
OPTIONS: dict[str, tuple[str, ...]] = {
    "trident": (),
    "trident_pt": (UNKNOWN,),
    "clam": (UNKNOWN,),
    "clam_pt": (UNKNOWN,),
    "nnmil": (UNKNOWN,),
    "stamp": (MICROMETRES,),
    "mussel": (UNKNOWN,),
    "slideflow": (MICROMETRES,),
    "mil_baseline": (UNKNOWN,),
    "owkin": (MICROMETRES,),
    "flamby": (UNKNOWN, "data.layout=flamby"),
    "torchmil": (UNKNOWN,),
    "lazyslide": (),
}
"""Options that each layout needs: the encoder if files do not name it, and the resolution for micrometres."""
GROUPS = {
    "float16": ("trident", "trident_pt", "stamp"),
    "bfloat16": ("mussel",),
    "float32": ("clam", "clam_pt", "nnmil", "slideflow", "mil_baseline", "owkin", "flamby", "torchmil", "lazyslide"),
}
"""Layouts by the dtype of their features."""


@dataclass(frozen=True)
class Result:
    """Weights and predictions of a run."""

    weights: bytes
    predictions: bytes


class Lab:
    """Writes the cohort in any layout, and trains on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        words = [word for word in TINY if not word.startswith("split.")]
        # compose once per choice of encoder, because it takes longer than training
        self.composed = {
            with_encoder: compose([*words, *SMALLER, *([UNKNOWN] if with_encoder else [])])
            for with_encoder in (False, True)
        }
        self.cohort = build.simulation(self.composed[False])

    def features(self, layout: str) -> Path:
        """Return the layout's folder of features, written on first use."""
        folder = self.root / layout
        if not folder.exists():
            write(replace(self.cohort, layout=layout), folder)
        return folder / "features"

    def packed(self, layout: str, dtype: str) -> Path:
        """Return the features of a layout as a packed file."""
        out = self.root / f"{layout}-{dtype}.h5"
        pack(FeatureStore(self.features(layout)), out, dtype=dtype)
        return out

    def settings(self, features: Path, words: Sequence[str] = ()) -> RunConfig:
        """Return the configuration for these features, with the table of the cohort."""
        self.features("trident")
        cohort = self.root / "trident" / "cohort.csv"
        options = OmegaConf.from_dotlist([word for word in words if word != UNKNOWN]).get("data", {})
        values = {f"data.{key}": value for key, value in options.items()}
        given = {"data.cohort": str(cohort), "data.features": str(features)}
        return self.composed[UNKNOWN in words].replaced(values | given)

    def train_on(self, features: Path, words: Sequence[str] = ()) -> Result:
        """Train on these features and return the result."""
        settings = self.settings(features, words)
        folder = self.root / "runs" / features.relative_to(self.root)
        study = read_study(settings)
        train(settings, study, split_study(settings, study), folder)
        weights, table = folder / "checkpoint" / "weights.safetensors", folder / "predictions.csv"
        return Result(weights.read_bytes(), table.read_bytes())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def first_result(lab: Lab) -> dict[str, Result]:
    """Return the result of the first layout of each dtype."""
    return {dtype: lab.train_on(lab.features(layouts[0]), OPTIONS[layouts[0]]) for dtype, layouts in GROUPS.items()}


def test_every_layout_is_listed_once() -> None:
    assert sorted(layout for group in GROUPS.values() for layout in group) == sorted(LAYOUTS) == sorted(OPTIONS)


def test_each_dtype_gives_another_result(first_result: dict[str, Result]) -> None:
    assert (
        len({run.weights for run in first_result.values()})
        == len({run.predictions for run in first_result.values()})
        == 3
    )


@pytest.mark.parametrize(
    ("dtype", "layout"), [(dtype, layout) for dtype, group in GROUPS.items() for layout in group[1:]]
)
def test_equal_values_give_equal_weights_in_every_layout(
    lab: Lab, first_result: dict[str, Result], dtype: str, layout: str
) -> None:
    assert lab.train_on(lab.features(layout), OPTIONS[layout]) == first_result[dtype]


@pytest.mark.parametrize(
    ("layout", "dtype"), [("trident", "float16"), ("mussel", "bfloat16"), ("clam", "float32"), ("clam", "float16")]
)
def test_packed_features_give_equal_weights(lab: Lab, first_result: dict[str, Result], layout: str, dtype: str) -> None:
    words = (UNKNOWN,) if UNKNOWN in OPTIONS[layout] else ()
    assert lab.train_on(lab.packed(layout, dtype), words) == first_result[dtype]


@pytest.mark.parametrize("layout", [layout for layout, options in OPTIONS.items() if UNKNOWN in options])
def test_missing_encoder_is_asked_for(lab: Lab, layout: str) -> None:
    with pytest.raises(MilError, match="do not name their encoder: give encoder="):
        read_study(lab.settings(lab.features(layout)))

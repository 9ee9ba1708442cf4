"""One cohort in every layout: what is learnt depends on the values that are stored, and on nothing around them."""

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
    *("trainer.max_epochs=1", "trainer.precision=32-true"),  # in fewer bits, types would not differ
]
UNKNOWN = "encoder=simulated"
MICROMETRES = "data.slide_mpp=0.25"
SAID: dict[str, tuple[str, ...]] = {
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
"""What the user says of each layout: the encoder where no file names it, and what places in micrometres need."""
GROUPS = {
    "float16": ("trident", "trident_pt", "stamp"),
    "bfloat16": ("mussel",),
    "float32": ("clam", "clam_pt", "nnmil", "slideflow", "mil_baseline", "owkin", "flamby", "torchmil", "lazyslide"),
}
"""Layouts by the type that features are stored in."""


@dataclass(frozen=True)
class Learnt:
    """What a run ends in."""

    weights: bytes
    predictions: bytes


class Lab:
    """Makes the cohort in any layout, and trains on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        words = [word for word in TINY if not word.startswith("split.")]
        # composing takes longer than training, and is done once for each choice of an encoder
        self.composed = {own: compose([*words, *SMALLER, *([UNKNOWN] if own else [])]) for own in (False, True)}
        self.cohort = build.simulation(self.composed[False])

    def features(self, layout: str) -> Path:
        """The layout's folder of features, made now if it is not there."""
        folder = self.root / layout
        if not folder.exists():
            write(replace(self.cohort, layout=layout), folder)
        return folder / "features"

    def packed(self, layout: str, dtype: str) -> Path:
        """The same in one file."""
        out = self.root / f"{layout}-{dtype}.h5"
        pack(FeatureStore(self.features(layout)), out, dtype=dtype)
        return out

    def settings(self, features: Path, words: Sequence[str] = ()) -> RunConfig:
        """The configuration for these features, with the cohort's own table."""
        self.features("trident")
        cohort = self.root / "trident" / "cohort.csv"
        options = OmegaConf.from_dotlist([word for word in words if word != UNKNOWN]).get("data", {})
        values = {f"data.{key}": value for key, value in options.items()}
        given = {"data.cohort": str(cohort), "data.features": str(features)}
        return self.composed[UNKNOWN in words].replaced(values | given)

    def learnt(self, features: Path, words: Sequence[str] = ()) -> Learnt:
        """What training on these features ends in."""
        settings = self.settings(features, words)
        folder = self.root / "runs" / features.relative_to(self.root)
        study = read_study(settings)
        train(settings, study, split_study(settings, study), folder)
        weights, table = folder / "checkpoint" / "weights.safetensors", folder / "predictions.csv"
        return Learnt(weights.read_bytes(), table.read_bytes())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def first(lab: Lab) -> dict[str, Learnt]:
    """What the first layout of each group ends in."""
    return {dtype: lab.learnt(lab.features(layouts[0]), SAID[layouts[0]]) for dtype, layouts in GROUPS.items()}


def test_the_table_has_every_layout_once() -> None:
    assert sorted(layout for group in GROUPS.values() for layout in group) == sorted(LAYOUTS) == sorted(SAID)


def test_another_type_is_learnt_otherwise(first: dict[str, Learnt]) -> None:
    assert len({run.weights for run in first.values()}) == len({run.predictions for run in first.values()}) == 3


@pytest.mark.parametrize(("dtype", "layout"), [(dtype, own) for dtype, group in GROUPS.items() for own in group[1:]])
def test_the_same_values_are_learnt_to_the_same_weights(
    lab: Lab, first: dict[str, Learnt], dtype: str, layout: str
) -> None:
    assert lab.learnt(lab.features(layout), SAID[layout]) == first[dtype]


@pytest.mark.parametrize(
    ("layout", "dtype"), [("trident", "float16"), ("mussel", "bfloat16"), ("clam", "float32"), ("clam", "float16")]
)
def test_a_packed_cohort_is_learnt_to_the_same_weights(
    lab: Lab, first: dict[str, Learnt], layout: str, dtype: str
) -> None:
    words = (UNKNOWN,) if UNKNOWN in SAID[layout] else ()
    assert lab.learnt(lab.packed(layout, dtype), words) == first[dtype]


@pytest.mark.parametrize("layout", [layout for layout, said in SAID.items() if UNKNOWN in said])
def test_who_does_not_say_the_encoder_is_asked_for_it(lab: Lab, layout: str) -> None:
    with pytest.raises(MilError, match="do not name their encoder: give encoder="):
        read_study(lab.settings(lab.features(layout)))

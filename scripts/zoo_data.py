"""The data on which `benchmark_models` compares the models: in memory, complete bags, one label per bag.

Real: musk1, musk2, elephant, the UCSB breast cancer images, and the nuclei of sixty colon cancers. Simulated: cohorts
of `mil simulate` whose positive tiles are sparse, in regions, or everywhere. Generated: the algorithmic unit tests
of E. Raff, J. Holt: Reproducibility in multiple instance learning: a case for algorithmic unit tests. NeurIPS 2023,
whose test bags distinguish a model that keeps to an assumption from one that learnt a shortcut.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.features.store import FeatureStore
from mil.simulation.simulated_cohort import Simulation, write
from mil.simulation.targets.class_targets import Binary
from mil.stats import auroc

CLASSIC = {"musk1": "musk1", "musk2": "musk2", "elephant": "elephant", "ucsb": "ucsb_breast_cancer"}
SIGNALS = ("sparse", "regional", "diffuse")
PATIENTS, TILES, WIDTH = 120, 150, 64
DIMENSIONS, UNIT_BAGS, BACKGROUND = 16, 200, 10


@dataclass(frozen=True, eq=False)
class Data:
    """Bags with their labels."""

    features: Sequence[Tensor]
    """`(n_i, d)` each"""
    label: NDArray[np.int64]
    """`(b,)`, 0 or 1"""
    metric: str
    """`accuracy` at probability one half, as the published tables have it, or `auroc`"""
    coords: Sequence[Tensor] | None = None
    truth: Sequence[NDArray[np.bool_]] | None = None
    """which tiles carry the label, for each bag"""
    oracle: float | None = None
    """metric of a perfect reader of the tiles"""
    published: Mapping[str, float] | None = None
    """published values for the same data, by model"""

    def standardised(self, train: NDArray[np.intp]) -> "list[Tensor]":
        """Return features standardised by the tiles of these bags; constant columns become zero."""
        spread, middle = torch.std_mean(torch.cat([self.features[bag] for bag in train]), 0)
        scale = torch.where(spread > 1e-8, spread, torch.inf)
        return [(bag - middle) / scale for bag in self.features]


def classic(name: str, root: Path) -> Data:
    """Return a classic data set with the accuracies of Ilse et al. 2018, Table 1, which were not checked in the paper.

    Their protocol differs: ten folds, five times.
    """
    stored = np.load(root / "classic_mil" / f"{CLASSIC[name]}.npz")
    owner = stored["bag_id"]
    bags = [torch.from_numpy(stored["X"][owner == bag]) for bag in np.unique(owner)]
    return Data(bags, stored["y_bag"].astype(np.int64), "accuracy", published=PUBLISHED.get(name))


PUBLISHED = {
    "musk1": {"abmil_gated": 0.900, "abmil": 0.892},
    "musk2": {"abmil_gated": 0.863, "abmil": 0.858},
    "elephant": {"abmil_gated": 0.857, "abmil": 0.868},
}


def crc_nuclei(root: Path) -> Data:
    """Return sixty patients, label "holds an epithelial nucleus", with the label of every nucleus; no coordinates."""
    folder = root / "crc_nuclei_mil" / "main_60"
    stored = np.load(folder / "features_efflite0_1280.npz")
    owner, epithelial = stored["bag_id"], stored["instance_label"] == 1
    table = pd.read_csv(folder / "bags.csv")
    rows = [owner == bag for bag in table["bag_id"]]
    bags = [torch.from_numpy(stored["X"][in_bag]).float() for in_bag in rows]
    return Data(bags, table["label"].to_numpy(np.int64), "auroc", truth=[epithelial[in_bag] for in_bag in rows])


def simulated(signal: str, work: Path, seed: int = 0) -> Data:
    """Return a simulated cohort with one slide per patient, prevalence 0.4, attainable AUROC 0.95."""
    folder = work / f"simulated_{signal}_{seed}"
    if not (folder / "cohort.csv").exists():
        target = Binary(column="label", classes=("0", "1"), prevalence=0.4, attainable=0.95)
        cohort = Simulation(target, PATIENTS, TILES, WIDTH, slides=1, signal=signal, seed=seed)
        write(cohort, folder)
    table = pd.read_csv(folder / "cohort.csv", dtype=str)
    store = FeatureStore(folder / "features")
    slides = [store.read(slide) for slide in table["slide"]]
    phenotypes = [pd.read_csv(folder / "phenotypes" / f"{slide}.csv")["phenotype"] for slide in table["slide"]]
    label = table["label"].to_numpy(np.int64)
    oracle = pd.read_csv(folder / "truth.csv", dtype={"patient": str}).set_index("patient")["oracle"]
    return Data(
        [slide.features.float() for slide in slides],
        label,
        "auroc",
        coords=[slide.coords for slide in slides if slide.coords is not None],
        truth=[(names == "biomarker").to_numpy() for names in phenotypes],
        oracle=float(auroc(oracle.loc[table["patient"]].to_numpy(), label == 1)),
    )


def data_sets(root: Path, work: Path) -> dict[str, Callable[[], Data]]:
    """Return functions that read the data sets, by name; real ones only if their folder exists."""
    makers: dict[str, Callable[[], Data]] = {}
    if (root / "classic_mil").exists():
        makers |= {name: partial(classic, name, root) for name in CLASSIC}
    if (root / "crc_nuclei_mil").exists():
        makers["crc_nuclei"] = partial(crc_nuclei, root)
    return makers | {f"{signal} signal": partial(simulated, signal, work) for signal in SIGNALS}


@dataclass(frozen=True, eq=False)
class UnitTest:
    """Training bags, and test bags on which a shortcut misleads."""

    train: Data
    test: Data


def unit_tests(seed: int) -> dict[str, UnitTest]:
    """Return Raff and Holt's algorithms 1, 2 and 3: a model that fails has an AUROC below one half on the test bags."""
    return {
        name: UnitTest(*(_bags(maker, part == "train", (seed, place, part == "train")) for part in ("train", "test")))
        for place, (name, maker) in enumerate(MAKERS.items())
    }


def _single_concept(positive: bool, train: bool, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """One concept makes a bag positive. A poison marks negatives in training, positives in the test."""
    tiles = [rng.normal(0, 1, (BACKGROUND, DIMENSIONS))]
    if positive:
        wide = rng.integers(0, 2, rng.integers(1, 4)).astype(bool)
        tiles += [rng.normal(0, 3, DIMENSIONS) if is_wide else rng.normal(1, 1, DIMENSIONS) for is_wide in wide]
    return tiles + ([_poison(rng)] if positive != train else [])


def _multi_concept(positive: bool, train: bool, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Both concepts make a bag positive, a single one does not. The poison as before."""
    tiles = [rng.normal(0, 1, (rng.integers(1, 10), DIMENSIONS))]
    concepts = [2, 3] * int(rng.integers(1, 4)) if positive else [int(rng.integers(2, 4))]
    tiles += [rng.normal(concept, 0.1, DIMENSIONS) for concept in concepts]
    return tiles + ([_poison(rng)] if positive != train else [])


def _false_frequency(positive: bool, train: bool, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Both concepts make a bag positive; in the test negatives hold one of them many times."""
    tiles = [rng.normal(0, 1, (rng.integers(1, 10), DIMENSIONS))]
    many = 1 if train else int(rng.integers(35, 45))
    concepts = [2, 3] if positive else [2] * many
    return tiles + [rng.normal(concept, 0.1, DIMENSIONS) for concept in concepts]


MAKERS: Mapping[str, Callable[[bool, bool, np.random.Generator], list[NDArray[np.float64]]]] = {
    "single concept": _single_concept,
    "multi-concept": _multi_concept,
    "false frequency": _false_frequency,
}


def _poison(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.normal(-10, 0.1, DIMENSIONS)


def _bags(
    maker: Callable[[bool, bool, np.random.Generator], list[NDArray[np.float64]]], train: bool, seed: Sequence[int]
) -> Data:
    rng = np.random.default_rng([int(part) for part in seed])
    label = np.arange(UNIT_BAGS) % 2
    bags = [torch.from_numpy(np.vstack(maker(bool(positive), train, rng))).float() for positive in label]
    return Data(bags, label, "auroc", coords=[_row(len(bag)) for bag in bags])


def _row(tiles: int) -> Tensor:
    """Return coordinates in a row: the order of tiles carries no information in these tests."""
    return torch.stack([512 * torch.arange(tiles), torch.zeros(tiles, dtype=torch.int64)], 1)

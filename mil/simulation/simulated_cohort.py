"""Simulated cohorts on disk: feature files in a producer's layout, the clinical table, and the truth."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil import files
from mil.errors import ConfigError
from mil.progress import counted
from mil.simulation.clinical_variables import DEFAULT, ClinicalVariable, parse
from mil.simulation.layouts import EXTENT, LAYOUTS, TABLES, require
from mil.simulation.layouts.scan import Scan
from mil.simulation.patients import Patients, enrol
from mil.simulation.simulated_encoder import Encoder, Shift, encode, encoder, patient_shift, shift_of
from mil.simulation.targets.simulated_target import Target
from mil.simulation.tissue import PHENOTYPES, SIGNALS, Tissue, grow, infiltrate, realised
from mil.tables import SIMULATED_COLUMN, csv_text

SECOND = "features_second"
"""Folder of the second encoder's features."""
FIRST_ENCODER, SECOND_ENCODER = "simulated", "simulated2"
"""Names of the encoders, as far as producers write them."""
GENERATOR = 3
"""Version of the generative model: a change of it makes cached cohorts anew."""

UNFINISHED = ".unfinished"
"""Marks a folder whose simulation has not ended."""
_LATER = {"contrast": 1.0, "clinical": None, "second_width": None}
"""Parameters that came later, and what every cohort before them had: that is no part of a cached cohort's name."""

_REVISED = {"lazyslide": 2, "stamp": 2, "torchmil": 2}
"""Layouts whose files have changed since cohorts were first cached."""

_OWN_COLUMNS = ("patient", "slide", "site", "scanner", "severity", "share", SIMULATED_COLUMN)
_PATIENTS, _TILES, _SITES, _SCANNERS, _CLINICAL, _SECOND = range(
    6
)  # what random numbers are for, so that none depends on another's order


@dataclass(frozen=True)
class Simulation:
    """The parameters of a simulated cohort; the same parameters make the same bytes.

    Args:
        target: what is predicted, and how well that is possible.
        patients: how many.
        tiles: median tiles a slide.
        width: of a feature, at least 8.
        slides: mean slides a patient, at least one. Some are without tumour, never all of a patient.
        sites: hospitals, each with its own stain, scanner and case mix.
        signal: how the tumour tiles that carry the biomarker lie: in large regions (`regional`), mixed with the others
            (`diffuse`), or in small groups of 0.2 to 5% of all tiles (`sparse`).
        contrast: how clearly the encoder tells tissue apart: distances between phenotypes are so many times the usual.
            At 1 it takes some tiles for another tissue, as real encoders do; at 2 hardly any, and what a model lacks to
            the oracle is what it did not learn.
        label_noise: share of patients whose label is wrong in cohort.csv.
        clinical: the clinical variables by column, as `mil.simulation.clinical_variables` reads them; None for its
            `DEFAULT`: age, sex and stage, weakly related to the severity. They change no tile, label or time.
        second_width: of the features that a second encoder gives of the same tiles, in a folder of their own and in
            another order; None for one encoder alone. The first encoder's features are the same with and without it.
        layout: a key of `LAYOUTS`: whose files, as which producer writes them.
        seed: of everything random.

    Raises:
        ConfigError: A parameter is out of its range.
    """

    target: Target
    patients: int = 200
    tiles: int = 1500
    width: int = 256
    slides: float = 1.2
    sites: int = 4
    signal: str = "regional"
    contrast: float = 1.0
    label_noise: float = 0.0
    clinical: Mapping[str, object] | None = None
    second_width: int | None = None
    layout: str = "trident"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("patients", 4), ("tiles", 20), ("width", 8), ("slides", 1), ("sites", 1), ("seed", 0)):
            if not least <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name}: {getattr(self, name)} found, at least {least} expected")
        for name in ("patients", "tiles", "width", "sites", "seed"):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"{name}: {getattr(self, name)} found, a whole number expected")
        for name, choices in (("signal", SIGNALS), ("layout", tuple(LAYOUTS))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}: {getattr(self, name)} found, one of {', '.join(choices)} expected")
        if self.second_width is not None and not (isinstance(self.second_width, int) and self.second_width >= 8):
            raise ConfigError(f"second_width: {self.second_width} found, a whole number of at least 8 expected")
        if not 0 < self.contrast < np.inf:
            raise ConfigError(f"contrast: {self.contrast} found, a positive number expected")
        if not 0 <= self.label_noise <= 0.5:
            raise ConfigError(f"label_noise: {self.label_noise} found, a number from 0 to 0.5 expected")
        if taken := set(self.target.columns) & {*_OWN_COLUMNS, *self.variables}:
            raise ConfigError(f"target: column {min(taken)} found, a name that a cohort does not use itself expected")
        if taken := set(self.variables) & set(_OWN_COLUMNS):
            raise ConfigError(f"clinical: column {min(taken)} found, a name that a cohort does not use itself expected")

    @cached_property
    def variables(self) -> dict[str, ClinicalVariable]:
        """The clinical variables by column."""
        return parse(DEFAULT if self.clinical is None else self.clinical)


def draw_patients(simulation: Simulation) -> Patients:
    """Draw the patients of a cohort without tiles; `oracle` is what an infinite number of tiles would show."""
    cohort = simulation
    sizes = (cohort.patients, cohort.slides, cohort.sites, cohort.label_noise)
    return enrol(cohort.target, cohort.variables, *sizes, _rng(cohort, _PATIENTS), _rng(cohort, _CLINICAL))


def write(simulation: Simulation, folder: Path) -> None:
    """Write a cohort: `features/`, `phenotypes/<slide>.csv`, `truth.csv` and, last, `cohort.csv`.

    The column `simulated` of `cohort.csv` tells whoever reads it that no such patient exists.

    Raises:
        ConfigError: The folder is not empty, or libraries of the layout are not installed.
        OSError: The disk is full, or the folder cannot be written; it is empty again, so that the call can be repeated.
    """
    require(simulation.layout)
    begun = folder / UNFINISHED
    if begun.is_file():  # an earlier process was killed here, or the disk was full
        _clear(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: something is there already, a new or empty folder expected")
    folder.mkdir(parents=True, exist_ok=True)
    begun.touch()
    try:
        with files.writing(folder):
            _write_cohort(simulation, folder)
    except BaseException:
        _clear(folder)
        raise
    begun.unlink()


def _clear(folder: Path) -> None:
    """Remove what an unfinished simulation has written; the folder was empty before, but for its mark."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_cohort(simulation: Simulation, folder: Path) -> None:
    patients = draw_patients(simulation)
    second = () if simulation.second_width is None else (SECOND,)
    for name in ("features", "phenotypes", *second):
        (folder / name).mkdir(parents=True, exist_ok=True)
    laboratory = _Laboratory(simulation)
    numbers = counted(range(simulation.patients), "simulating patients", simulation.patients)
    shares = [laboratory.process(number, patients, folder) for number in numbers]
    _write_truth(simulation.target, patients, shares, folder)
    cohort = patients.clinic.loc[np.repeat(patients.clinic.index, patients.slides)]
    cohort.insert(1, "slide", [slide for i in patients.clinic.index for slide in _slides(patients, i)])
    if simulation.layout in TABLES:
        TABLES[simulation.layout](folder, cohort, list(simulation.target.columns))
    (folder / "cohort.csv").write_text(csv_text(cohort.assign(**{SIMULATED_COLUMN: "yes"})), encoding="utf-8")


def cached(simulation: Simulation, root: Path) -> Path:
    """Return the folder of a cohort under `root`, and write it if it does not exist.

    A cohort appears only when it is complete; of two processes that write it at the same time, one result is used.
    """
    folder = root / _name(simulation)
    if folder.exists():
        return folder
    draft = root / f".{folder.name}-{uuid4().hex}"
    try:
        write(simulation, draft)
        draft.replace(folder)
    except OSError:
        if not (folder / "cohort.csv").exists():  # else another process was first
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


class _Laboratory:
    """Draws the slides of one cohort."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.encoder: Encoder = encoder(simulation.width, len(simulation.target.biomarkers), simulation.contrast)
        self.second = _second_encoder(simulation)
        self.names = np.array([*PHENOTYPES, *simulation.target.biomarkers])

    def process(self, index: int, patients: Patients, folder: Path) -> tuple[NDArray[np.float64], float]:
        """Write a patient's slides; return the realised shares of the biomarkers `(k,)` and of all tiles."""
        simulation = self.simulation
        rng = _rng(simulation, _TILES, index)
        tissues = self._grow(int(patients.slides[index]), rng)
        phenotypes = infiltrate(tissues, patients.shares[index], simulation.signal)
        tumour = patient_shift(self.encoder, rng)
        shifts = self._shifts(str(patients.clinic["site"][index]), str(patients.clinic["scanner"][index]))
        for slide, tissue, phenotype in zip(_slides(patients, index), tissues, phenotypes, strict=True):
            stain = shift_of(self.encoder, "slide", rng)
            features = encode(self.encoder, phenotype, tumour, [*shifts, stain], rng)
            LAYOUTS[simulation.layout](folder / "features", slide, features, tissue.cells)
            if self.second is not None:
                self._write_second(self.second, slide, tissue, phenotype, folder / SECOND)
            self._write_phenotypes(folder / "phenotypes" / f"{slide}.csv", tissue, phenotype)
        return realised(np.concatenate(phenotypes), len(simulation.target.biomarkers), simulation.signal)

    def _write_second(
        self, second: Encoder, slide: str, tissue: Tissue, phenotype: NDArray[np.int64], folder: Path
    ) -> None:
        """Write the second encoder's features of a slide, in an order of their own; without shifts of site or stain."""
        rng = _rng(self.simulation, _SECOND, *slide.encode())
        order = rng.permutation(len(phenotype))
        features = encode(second, phenotype[order], patient_shift(second, rng), [shift_of(second, "slide", rng)], rng)
        scan = Scan(encoder=SECOND_ENCODER)
        LAYOUTS[self.simulation.layout](folder, slide, features, tissue.cells[order], scan)

    def _grow(self, slides: int, rng: np.random.Generator) -> list[Tissue]:
        """Draw a patient's slides, of which at least one has tumour."""
        tumour = rng.uniform(0.15, 0.65, slides)
        without = rng.random(slides) < 0.35
        without[rng.integers(slides)] = False
        tumour[without] = 0.0
        sizes = np.maximum(16, np.round(self.simulation.tiles * np.exp(0.35 * rng.standard_normal(slides))))
        return [grow(int(n), float(share), self.simulation.signal, rng) for n, share in zip(sizes, tumour, strict=True)]

    def _shifts(self, site: str, scanner: str) -> list[Shift]:
        keys = ((_SITES, site, "site"), (_SCANNERS, scanner, "scanner"))
        return [shift_of(self.encoder, kind, _rng(self.simulation, use, *name.encode())) for use, name, kind in keys]

    def _write_phenotypes(self, path: Path, tissue: Tissue, phenotype: NDArray[np.int64]) -> None:
        x, y = (EXTENT * (tissue.cells + 1)).T
        pd.DataFrame({"x": x, "y": y, "phenotype": self.names[phenotype]}).to_csv(path, index=False)


def _second_encoder(simulation: Simulation) -> Encoder | None:
    if simulation.second_width is None:
        return None
    return encoder(simulation.second_width, len(simulation.target.biomarkers), simulation.contrast, number=1)


def _write_truth(
    target: Target, patients: Patients, shares: list[tuple[NDArray[np.float64], float]], folder: Path
) -> None:
    truth = patients.truth.copy()
    truth.insert(2, "share", [part for _, part in shares])
    oracle = target.oracle(np.array([share for share, _ in shares]))
    for place, column in enumerate(oracle, start=3):
        truth.insert(place, column, oracle[column])
    (folder / "truth.csv").write_text(csv_text(truth), encoding="utf-8")


def _slides(patients: Patients, index: int) -> list[str]:
    return [f"{patients.clinic['patient'][index]}-{k + 1}" for k in range(patients.slides[index])]


def _name(simulation: Simulation) -> str:
    chosen = {name: value for name, value in asdict(simulation).items() if _LATER.get(name) != value}
    if simulation.layout in _REVISED:
        chosen["layout_version"] = _REVISED[simulation.layout]
    parameters = {"generator": GENERATOR, "endpoint": type(simulation.target).__name__, **chosen}
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]


def _rng(simulation: Simulation, use: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(simulation.seed, spawn_key=(use, *key)))

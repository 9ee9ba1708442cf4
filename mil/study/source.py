"""Where a study is read from and how: typed, from a configuration or from Python."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mil.cohort.columns import Columns, Words
from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.features.encoders import Encoder
from mil.features.feature_cache import CacheOptions, attach_copies
from mil.features.feature_folders import joined_text
from mil.features.formats import DETECTED, Reading
from mil.features.geometry import Expected
from mil.features.joined_store import open_store
from mil.features.store import FeatureStore
from mil.simulation.simulated_cohort import FIRST_ENCODER, SECOND, SECOND_ENCODER, cached
from mil.study import build
from mil.study.run_config import RunConfig


@dataclass(frozen=True)
class StudySource:
    """The files of a study, and what the user says of them.

    Attributes:
        cohort: The clinical table.
        features: The folder of feature files, or the packed file.
        endpoint: What is to be predicted, unfitted.
        slides: A table of slides, where the cohort has one row a patient.
        columns: What the tables call their ids.
        words: What the words of labels and covariates mean, `{column: {word: class}}`.
        covariates: Clinical columns that models read beside the tiles, unfitted.
        carried: Further clinical columns that go along, for subgroups.
        encoder: What made the features; None takes what the files say.
        known_encoders: Encoders whose names and aliases are recognised; by default those of `conf/encoder/`.
        reading: What the user says of feature files that leave something open.
        tiles: The tiles that the tool expects; None expects the encoder's.
        name: What the user calls the cohort.
        bag: What a model sees as one: all slides of a patient, or each slide.
        balance: How classes are balanced: `none`, `loss` or `sampling`.
        on_missing: What slides without feature file are: an error, or left out.
        on_bad_bag: What slides with unusable features are: an error, or left out.
        truth: Folder of the simulated cohort; None for real data.
        cache: Where a copy of the features is, or is to be made; None reads the files themselves.
    """

    cohort: Path
    features: Path
    endpoint: Endpoint
    slides: Path | None = None
    columns: Columns = field(default_factory=Columns)
    words: Words = field(default_factory=dict)
    covariates: Covariates | None = None
    carried: tuple[str, ...] = ()
    encoder: Encoder | None = None
    known_encoders: tuple[Encoder, ...] = field(default_factory=build.known_encoders)
    reading: Reading = DETECTED
    tiles: Expected | None = None
    name: str | None = None
    bag: Literal["patient", "slide"] = "patient"
    balance: Literal["none", "loss", "sampling"] = "none"
    on_missing: Literal["error", "skip"] = "error"
    on_bad_bag: Literal["error", "skip"] = "error"
    truth: Path | None = None
    cache: CacheOptions | None = None

    def __post_init__(self) -> None:
        """Refuse covariates that are the label.

        Raises:
            ConfigError: A covariate is a column of the endpoint.
        """
        columns = self.covariates.columns if self.covariates else ()
        if shared := sorted(set(columns) & set(self.endpoint.columns)):
            raise ConfigError(f"tool.covariates: column {shared[0]!r} is what is to be predicted, expected another one")

    @property
    def clinical_columns(self) -> list[str]:
        """Columns of the clinical table that go along beside the labels, each once."""
        return list(dict.fromkeys([*self.carried, *(self.covariates.columns if self.covariates else ())]))

    @property
    def declared_words(self) -> dict[str, tuple[str, ...]]:
        """Words of labels and covariates that are never read as missing values, by column."""
        return {**(self.covariates.declared_words if self.covariates else {}), **self.endpoint.declared_words}

    def store(self) -> FeatureStore:
        """Return the feature files, read as the user says and the encoder and the tool expect.

        Raises:
            FeatureError: No folder, no feature file in it, or a slide that is there twice.
        """
        store = open_store(self.features, self.encoder, self.known_encoders, self.reading, self.tiles)
        if self.cache is not None:
            attach_copies(self.cache, store)
        return store


def source_of(config: RunConfig) -> StudySource:
    """Return what a configuration says of its files; the tool's simulated cohort is made if it is asked for.

    Raises:
        ConfigError: Half of what is needed, or an argument that endpoint, encoder or covariates do not take.
    """
    data, tiles = config.data, config.tool.tiles
    endpoint, covariates = build.endpoint(config), build.covariates(config)
    cohort, features, slides, truth = _files(config)
    return StudySource(
        cohort=cohort,
        features=features,
        endpoint=endpoint,
        slides=slides,
        columns=Columns(**data.columns.plain()),
        words=data.labels,
        covariates=covariates,
        carried=tuple(data.covariates),
        encoder=None if config.encoder.options.name == "auto" else build.make(config.encoder),
        reading=Reading(data.layout, data.batch_axis, data.slide_mpp, data.table),
        tiles=None if tiles is None else Expected(tiles.mpp, tiles.tile_px, f"tool '{config.tool.name}'", "tool.tiles"),
        name=data.name,
        bag=data.bag,
        balance=data.balance,
        on_missing=data.on_missing,
        on_bad_bag=data.on_bad_bag,
        truth=truth,
        cache=cache_options(config),
    )


def cache_options(config: RunConfig) -> CacheOptions | None:
    """Return where features are copied to; None where they are not."""
    data = config.data
    return None if data.cache is None else CacheOptions(Path(data.cache).expanduser(), data.cache_dtype, data.cache_gib)


def _files(config: RunConfig) -> tuple[Path, Path, Path | None, Path | None]:
    """Return clinical table, features, table of slides and folder of the simulated truth."""
    cohort, features = config.data.cohort, config.data.features
    slides = None if config.data.slides is None else Path(config.data.slides).expanduser()
    if cohort is not None and features is not None:
        return Path(cohort).expanduser(), Path(features).expanduser(), slides, None
    if cohort is not None or features is not None:
        given, missing = ("data.cohort", "data.features") if features is None else ("data.features", "data.cohort")
        raise ConfigError(f"{given} is given without {missing}, expected both (real data) or neither (simulated)")
    if slides is not None:
        raise ConfigError("data.slides is given without data.cohort, expected the clinical table beside it")
    folder = cached(build.simulation(config), build.cache_dir() / "simulated")
    place = folder / "features"
    if (folder / SECOND).is_dir():
        place = Path(joined_text([f"{FIRST_ENCODER}={place}", f"{SECOND_ENCODER}={folder / SECOND}"]))
    return folder / "cohort.csv", place, None, folder

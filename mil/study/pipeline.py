"""A tool's patients with their bags, targets and features: read, and checked against each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd
import torch
from torch import Tensor

from mil.bags import Bags
from mil.cohort.clinical_table import Cohort
from mil.cohort.columns import Columns
from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError, FeatureError
from mil.features.encoders import Encoder
from mil.features.formats import Reading
from mil.features.geometry import Expected
from mil.features.store import FeatureStore
from mil.fitted import fitting
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel
from mil.splits.folds import Split
from mil.study import build
from mil.study.config import RunConfig
from mil.tables import listed


@dataclass(frozen=True)
class Study:
    """A tool's patients with their bags, targets and features, checked against each other."""

    cohort: Cohort
    store: FeatureStore
    encoder: Encoder
    endpoint: Endpoint
    patients: pd.DataFrame
    """one row a patient, in the order of `target`"""
    target: Tensor
    """`(p, ...)`"""
    bags: pd.DataFrame
    """one row a bag: bag, patient, slides"""
    source: Path
    """the cohort's table"""
    truth: Path | None
    """folder of the simulated cohort; none for real data"""
    covariates: Covariates | None = None
    """what models read beside the tiles, not yet fitted"""

    def rows(self, patients: list[str]) -> tuple[pd.DataFrame, Tensor]:
        """The bags of these patients `(b,)`, and each bag's target `(b, ...)`."""
        bags = self.bags[self.bags["patient"].isin(patients)].reset_index(drop=True)
        return bags, self.target[self.patients.index.get_indexer(pd.Index(bags["patient"]))]


def read_study(config: RunConfig) -> Study:
    """Reads the cohort, finds its features, and checks both against the tool.

    Raises:
        MilError: whatever is wrong with them, before any work is done.
    """
    tables = tables_of(config)
    wanted, beside = build.endpoint(config), covariates_of(config)
    cohort = Cohort.read(
        tables.cohort,
        Columns(**config.data.columns.plain()),
        labels=wanted.columns,
        covariates=carried(config, beside),
        slides=tables.slides,
        words=config.data.labels,
        known=wanted.known,
    )
    store = store_of(config, tables.features)
    cohort = cohort.having(store.slides, config.data.on_missing)
    if config.data.on_bad_bag == "skip":
        cohort = cohort.having(store.sound(cohort.table["slide"]), "skip", "unusable features")
    encoder = store.resolve(list(cohort.table["slide"]))
    _refuse_empty(store, list(cohort.table["slide"]))
    patients = cohort.patients
    target = wanted.encode(patients)
    if beside is not None:
        beside.check(patients)
    # refuses what cannot be learnt or balanced; fitted again on each fold's training patients
    wanted.fit(target, balance=config.data.balance != "none")
    bags = cohort.bags(config.data.bag)
    return Study(cohort, store, encoder, wanted, patients, target, bags, tables.cohort, tables.truth, beside)


def covariates_of(config: RunConfig) -> Covariates | None:
    """What the tool reads of the clinical table beside the slides, unfitted.

    Raises:
        ConfigError: an option that cannot be, or a column that is the answer.
    """
    beside = build.covariates(config)
    if beside is None:
        return None
    if told := sorted(set(beside.columns) & set(build.endpoint(config).columns)):
        raise ConfigError(f"tool.covariates: column {told[0]!r} is what is to be predicted, expected another one")
    return beside


def carried(config: RunConfig, beside: Covariates | None) -> list[str]:
    """Columns of the clinical table that go along, each once."""
    return list(dict.fromkeys([*config.data.covariates, *(beside.columns if beside else ())]))


def store_of(config: RunConfig, features: Path) -> FeatureStore:
    """The feature files, read as the user says and the encoder and the tool expect."""
    given = None if config.encoder.options.name == "auto" else build.make(config.encoder)
    reading = Reading(config.data.layout, config.data.batch_axis, config.data.slide_mpp)
    return FeatureStore(features, given, build.known_encoders(), reading, _expected(config))


def _expected(config: RunConfig) -> Expected | None:
    tiles = config.tool.tiles
    if tiles is None:
        return None
    return Expected(tiles.mpp, tiles.tile_px, f"tool '{config.tool.name}'", "tool.tiles")


def _refuse_empty(store: FeatureStore, slides: list[str]) -> None:
    if empty := [slide for slide in slides if store.header(slide).tiles == 0]:
        raise FeatureError(
            f"{len(empty)} of {len(slides)} slides have zero tiles, expected at least one: {listed(empty)} "
            "(data.on_bad_bag=skip leaves them out)"
        )


def split_study(config: RunConfig, study: Study) -> Split:
    """Who trains, selects and reports in each fold."""
    strategy = build.make(config.split)
    strata = study.endpoint.strata(study.target)
    return cast(Split, strategy(list(study.patients.index), strata, study.cohort.table, config.seed))


def rehearse(config: RunConfig, study: Study) -> None:
    """Makes everything that a fit is made of, without weights, so that a bad option is found before any work.

    Raises:
        ConfigError: what one of them says of its options, or the model of the endpoint or of tiles without places.
    """
    fitting.check(config.tool.plain(), study.endpoint)
    _refuse_batches(config, study)
    with torch.device("meta"):
        network = build.network(config, study.encoder.dim, study.endpoint)
    _refuse_whole(config, network)
    try:
        build.optimizer(config)(network.parameters())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{config.optimizer.target}: {' '.join(str(error).split())}") from error
    _rehearse_loss(config, study)
    build.make(config.schedule)
    for callback in config.callbacks.values():
        build.make(callback)
    precision = config.trainer.options.precision
    precision = "32-true" if precision == "auto" else precision
    build.make(config.trainer, precision=precision, logger=False, enable_checkpointing=False)


def _refuse_batches(config: RunConfig, study: Study) -> None:
    """Batches of which an endpoint that compares patients learns nothing, or that are no batches."""
    if config.data.batch_bags == 1 and not study.endpoint.alone and not config.data.whole_cohort:
        raise ConfigError(
            "data.batch_bags=1: the loss compares patients and one alone has none, expected data.batch_bags=16 or "
            "data.whole_cohort=true"
        )
    if not config.data.whole_cohort:
        return
    if config.data.balance == "sampling":
        raise ConfigError("data.balance=sampling: data.whole_cohort=true takes every bag once, expected none or loss")
    if (amount := config.trainer.options.accumulate_grad_batches) != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches={amount}: data.whole_cohort=true gathers the whole cohort, expected 1"
        )


def _refuse_whole(config: RunConfig, network: MILModel) -> None:
    """Models whose loss is more than the endpoint's of the logits: it cannot be put together from logits alone."""
    inner = network.inner if isinstance(network, Fused) else network
    if config.data.whole_cohort and type(inner).loss is not MILModel.loss:
        raise ConfigError(
            f"{config.model.target}: has a loss of its own beside the endpoint's, which data.whole_cohort=true "
            "cannot divide, expected a model without one or data.whole_cohort=false"
        )


def _rehearse_loss(config: RunConfig, study: Study) -> None:
    """The loss of two bags of one tile: a model may refuse an endpoint, or tiles without coordinates."""
    placed = all(study.store.header(slide).has_coords for slide in study.cohort.table["slide"])
    beside = None if study.covariates is None else torch.zeros(2, study.covariates.width)
    places = torch.zeros(2, 2) if placed else None
    bags = Bags(torch.zeros(2, study.encoder.dim), (1, 1), places, covariates=beside)
    with torch.random.fork_rng(devices=()):
        network = build.network(config, study.encoder.dim, study.endpoint)
        try:
            network.loss(network(bags), study.target[:2], study.endpoint)
        except ValueError as error:
            raise ConfigError(f"{config.model.target}: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class Tables:
    """Where a study is read from."""

    cohort: Path
    features: Path
    truth: Path | None = None
    """folder of the simulated cohort"""
    slides: Path | None = None
    """a table of slides, where the cohort has one row a patient"""


def tables_of(config: RunConfig) -> Tables:
    """The files that the options name, or those of the tool's simulated cohort, made now if it is not there.

    Raises:
        ConfigError: half of what is needed.
    """
    cohort, features = config.data.cohort, config.data.features
    slides = None if config.data.slides is None else Path(config.data.slides).expanduser()
    if cohort is not None and features is not None:
        return Tables(Path(cohort).expanduser(), Path(features).expanduser(), slides=slides)
    if cohort is not None or features is not None:
        given, missing = ("data.cohort", "data.features") if features is None else ("data.features", "data.cohort")
        raise ConfigError(f"{given} is given without {missing}, expected both (real data) or neither (simulated)")
    if slides is not None:
        raise ConfigError("data.slides is given without data.cohort, expected the clinical table beside it")
    folder = _simulated(config)
    return Tables(folder / "cohort.csv", folder / "features", folder)


def _simulated(config: RunConfig) -> Path:
    from mil.simulation.simulated_cohort import cached

    return cached(build.simulation(config), build.cache_dir() / "simulated")

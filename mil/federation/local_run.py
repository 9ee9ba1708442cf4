"""Federations in one process: over folders, over the centres of a simulated cohort, each site alone, or all pooled."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd
import torch

from mil import files
from mil.cohort.clinical_table import Cohort
from mil.errors import ConfigError, FeatureError
from mil.features.content_samples import TILES, Samples
from mil.features.fingerprints import Fingerprint
from mil.features.formats import Header, Slide
from mil.features.store import FeatureStore
from mil.federation.coordinator import Engine
from mil.federation.engines.local import LocalEngine
from mil.federation.federated_run import OPTIONS, FederatedRun, check_same_run, record_begin
from mil.federation.federation_options import FederationOptions
from mil.federation.joined_run import check_joinable, join_predictions
from mil.federation.left_out import FOLDER as LEFT_OUT
from mil.federation.left_out import check_left_out, with_left_out
from mil.federation.site_sources import SITES, SiteSource, site_sources
from mil.federation.synthesis import synthesis, unlike_sites
from mil.report.sections.federation import FILE, Federation, SiteResult
from mil.runs.describe import describe_run
from mil.runs.run_inputs import CONFIG
from mil.splits.folds import Split
from mil.study import build
from mil.study.compose import read_config
from mil.study.run_config import RunConfig

logger = logging.getLogger(__name__)
ALL = "all sites"


def federate(config: RunConfig, options: FederationOptions, folder: Path) -> Federation:
    """Train over sites in this process; write the coordinator's run folder, and each site's under `sites/`.

    A folder that holds the same federation is continued after its last epoch.

    Args:
        config: All options of the run.
        options: Of the federation.
        folder: The coordinator's run folder.

    Raises:
        ConfigError: Options that do not go together, or a folder with another run.
        MilError: An error in the files of a site.
    """
    options = options.model_copy(update={"sites": [str(Path(site).expanduser().absolute()) for site in options.sites]})
    if options.together:
        check_joinable(config, options)
    check_same_run(config, options, folder)
    sources = site_sources(config, options)
    for source in sources:
        source.keep_slides()
    logger.info("%s", ", ".join(f"{source.name}: {len(source.study.patients)} patients" for source in sources))
    check_left_out(options, len(sources))
    if options.algorithm == "local":
        return _each_alone(config, options, sources, folder)
    stated = options
    if options.algorithm == "pooled":
        sources = [pooled(config, sources)]
        options = options.model_copy(update={"secure": False, "minimum": 1, "quorum": None})
    run = _run_over(config, options, sources, folder)
    run.stated = stated
    section = run.run()
    if options.leave_one_site_out:
        names, engine_of = [source.name for source in sources], _left_out_engine(sources, options, folder)
        section = with_left_out(section, config, options, names, engine_of, sources[0].study.encoder, folder)
    if options.together:
        join_predictions(config, sources, folder)
    return section


def resume(folder: Path) -> Federation:
    """Continue a federation with the options that it has, after the last epoch that it finished.

    Raises:
        ConfigError: The folder holds no federation.
        MilError: As `federate`.
    """
    for name in (OPTIONS, CONFIG):
        if not (folder / name).is_file():
            raise ConfigError(f"--resume {folder}: holds no {name}, expected the run folder of a federation")
    options = FederationOptions.parse(files.read_json(folder / OPTIONS))
    return federate(read_config(folder / CONFIG), options, folder)


def _run_over(
    config: RunConfig, options: FederationOptions, sources: Sequence[SiteSource], folder: Path
) -> FederatedRun:
    hospitals = {source.name: source.hospital(options, folder / SITES / source.name) for source in sources}
    return FederatedRun(config, options, LocalEngine(hospitals), sources[0].study.encoder, folder)


def _left_out_engine(
    sources: Sequence[SiteSource], options: FederationOptions, folder: Path
) -> Callable[[str, Sequence[str]], Engine]:
    """Return what makes the hospitals of a federation in which one site is left out."""

    def engine(test: str, sites: Sequence[str]) -> Engine:
        return LocalEngine(
            {
                source.name: source.hospital(options, folder / SITES / source.name)
                if source.name == test
                else source.hospital(options, folder / LEFT_OUT / test / SITES / source.name)
                for source in sources
                if source.name in sites
            }
        )

    return engine


def _each_alone(
    config: RunConfig, options: FederationOptions, sources: Sequence[SiteSource], folder: Path
) -> Federation:
    """Train a model at each site on its own patients; nothing leaves it but its metrics."""
    at_site = options.model_copy(update={"algorithm": "exact", "secure": False, "minimum": 1, "quorum": None})
    simulated = all(source.study.simulated for source in sources)
    record_begin(config, options, folder, simulated)
    results = list[SiteResult]()
    for source in sources:
        place = folder / SITES / source.name
        hospitals = {source.name: source.hospital(at_site, place)}
        run = FederatedRun(config, at_site, LocalEngine(hospitals), source.study.encoder, place / "coordinator")
        [result] = run.run().sites
        enough = {name: each for name, each in result.metrics.items() if (each.n or 0) >= options.minimum}
        results.append(result.model_copy(update={"metrics": enough}))
    section = Federation(
        algorithm="local",
        sentences=(f"Each of {len(results)} sites trained a model on its own patients; there is no common model.",),
        sites=tuple(results),
        synthesis=tuple(synthesis(results)),
        minimum=options.minimum,
        secure=options.secure,
        unlike=tuple(unlike_sites(results, build.endpoint(config).metric)),
    )
    header = ",".join(["patient", "fold", "role", *build.endpoint(config).columns]) + "\n"
    files.write(folder / "predictions.csv", header)
    files.write(folder / FILE, section.model_dump_json(indent=2) + "\n")
    describe_run(folder)
    return section


class StoreOfSites:
    """The slides of several sites under names that begin with the site's; in simulations of pooled training only."""

    keeps = True
    rounding = None

    def __init__(self, stores: Mapping[str, FeatureStore]) -> None:
        """Join stores by site."""
        self.stores = dict(stores)
        first = next(iter(stores.values()))
        self.geometry, self.reading, self.verified = first.geometry, first.reading, first.verified

    def _place(self, slide: str) -> tuple[FeatureStore, str]:
        site, _, name = slide.partition("/")
        if site not in self.stores:
            raise FeatureError(f"slide '{slide}' is of no site")
        return self.stores[site], name

    def read(self, slide: str) -> Slide:
        """Return the features of a slide."""
        store, name = self._place(slide)
        return store.read(name)

    def header(self, slide: str) -> Header:
        """Return the header of a slide."""
        store, name = self._place(slide)
        return store.header(name)

    def fingerprints(self, slides: Iterable[str]) -> dict[str, Fingerprint]:
        """Return what shows later whether the slides are the same."""
        prints = dict[str, Fingerprint]()
        for slide in slides:
            store, name = self._place(slide)
            prints[slide] = store.fingerprints([name])[name]
        return prints

    def samples(self, slides: Iterable[str], tiles: int = TILES) -> dict[str, Samples]:
        """Return values of some tiles of the slides."""
        of_site: dict[str, list[str]] = {}
        for slide in slides:
            of_site.setdefault(slide.partition("/")[0], []).append(self._place(slide)[1])
        read = {site: self.stores[site].samples(names, tiles) for site, names in of_site.items()}
        return {f"{site}/{name}": each for site, by_name in read.items() for name, each in by_name.items()}

    def valid_headers(self, slides: Iterable[str]) -> dict[str, Header]:
        """Return the headers of slides."""
        return {slide: self.header(slide) for slide in slides}


def pooled(config: RunConfig, sources: Sequence[SiteSource]) -> SiteSource:
    """Return all sites as one; patients and slides are named after their site.

    Dropout is seeded by the names of bags, which are others here: only without dropout are `exact` and `pooled` equal.
    """
    studies = {source.name: source.study for source in sources}
    first = next(iter(studies.values()))
    store = cast(FeatureStore, StoreOfSites({name: study.store for name, study in studies.items()}))
    tables = [_named(study.cohort.table, name, ("patient", "slide")) for name, study in studies.items()]
    patients = [
        study.patients.set_index(name + "/" + study.patients.index.astype(str)) for name, study in studies.items()
    ]
    bags = [_named(study.bags, name, ("bag", "patient")) for name, study in studies.items()]
    for (name, study), table in zip(studies.items(), bags, strict=True):
        table["slides"] = [tuple(f"{name}/{slide}" for slide in slides) for slides in study.bags["slides"]]
    roles = [_named(source.split.table, source.name, ("patient",)) for source in sources]
    study = replace(
        first,
        cohort=Cohort(pd.concat(tables, ignore_index=True), first.cohort.labels, first.cohort.covariates),
        store=store,
        patients=pd.concat(patients),
        target=torch.cat([each.target for each in studies.values()]),
        bags=pd.concat(bags, ignore_index=True),
        truth=None,
    )
    return SiteSource(ALL, sources[0].config, study, Split(pd.concat(roles, ignore_index=True)))


def _named(table: pd.DataFrame, site: str, columns: Sequence[str]) -> pd.DataFrame:
    return table.assign(**{name: site + "/" + table[name].astype(str) for name in columns})

"""The sites of a federation in one process: folders, yaml files, or the centres of a simulated cohort."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from mil.errors import ConfigError
from mil.features.feature_folders import placed_features
from mil.federation.federation_options import FederationOptions
from mil.federation.hospital import Hospital
from mil.federation.messages import FederationError
from mil.findings import raise_first_error
from mil.splits.folds import Split, Strategy
from mil.study import build
from mil.study.pipeline import HINT, read_study
from mil.study.reader import StudyReader
from mil.study.run_config import RunConfig
from mil.study.source import source_of
from mil.study.split_findings import check_split
from mil.study.study import Labels, Study
from mil.yaml_files import read_yaml

logger = logging.getLogger(__name__)
SITES = "sites"
GIB = 2**30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


@dataclass(frozen=True, eq=False)
class SiteSource:
    """One site before it takes part.

    Attributes:
        name: Of the site.
        config: The options of the run, with the site's own files.
        study: Its patients.
        split: Their roles.
    """

    name: str
    config: RunConfig
    study: Study
    split: Split

    def hospital(self, options: FederationOptions, folder: Path | None = None) -> Hospital:
        """Return the hospital; its audit file and its own run go to `folder`."""
        return Hospital(self.name, self.config, self.study, self.split, options, folder)

    def keep_slides(self) -> None:
        """Keep the slides in memory once they are read, if `data.memory` has room for all; without worker processes."""
        data = self.config.data
        if not data.workers and data.memory:
            self.study.store.keep(self.study.cohort.table["slide"], data.memory * GIB)


def site_sources(config: RunConfig, options: FederationOptions) -> list[SiteSource]:
    """Return the sites that `federation.sites` names, or the centres of the tool's simulated cohort.

    Raises:
        ConfigError: Fewer than two sites, two of one name, or a site that does not say where its files are.
        MilError: The first error in a cohort, its features or its split.
    """
    sources = [source_of_site(config, place) for place in options.sites] or simulated_sites(config)
    names = [source.name for source in sources]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"federation.sites: two sites are called {repeated[0]!r}, expected different names")
    if len(sources) < 2:
        raise ConfigError(f"federation.sites: {len(sources)} site ({', '.join(names)}), expected two or more")
    return sources


def source_of_site(config: RunConfig, place: str) -> SiteSource:
    """Return the site in a folder with `cohort.csv` and `features`, or in a yaml file with `name` and `data`.

    Raises:
        ConfigError: Neither of them.
        MilError: The first error in its cohort, features or split.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        name, files = path.name, {"cohort": str(path / "cohort.csv"), "features": str(path / "features")}
        if (path / "slides.csv").is_file():
            files["slides"] = str(path / "slides.csv")
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        name, files = _site_file(path)
    else:
        raise ConfigError(f"federation.sites: {place}, expected a folder with cohort.csv and features/, or a yaml file")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"federation.sites: site {name!r}, expected a name of letters, digits, blanks, '.', '_', '-'")
    return source_with_files(name, config, files)


def source_with_files(name: str, config: RunConfig, files: Mapping[str, object]) -> SiteSource:
    """Return the site of a name.

    Args:
        name: Of the site.
        config: All options of the run.
        files: The site's options of `data`, such as `cohort` and `features`.

    Raises:
        MilError: The first error in its cohort, features or split.
    """
    own_config = config.replaced({f"data.{key}": value for key, value in files.items()})
    return _source(name, own_config, read_alone(own_config))


def _site_file(path: Path) -> tuple[str, dict[str, str]]:
    values = read_yaml(path)
    if not isinstance(values, Mapping) or set(values) - {"name", "data"} or "data" not in values:
        raise ConfigError(f"{path}: expected name and data, with data.cohort and data.features")
    files = dict(cast(Mapping[str, str], values["data"]))
    for key in ("cohort", "slides"):
        if key in files and files[key] is not None:
            files[key] = str((path.parent / Path(files[key]).expanduser()).resolve())
    if files.get("features") is not None:
        files["features"] = placed_features(files["features"], path.parent)
    return str(values.get("name", path.stem)), files


def read_alone(config: RunConfig) -> Study:
    """Read the patients of one site, who need not be enough to learn from.

    Raises:
        MilError: The first error in its cohort or features.
    """
    reader = StudyReader(source_of(config), config.data.on_bad_bag == "skip")
    for _, stage in reader.stages():
        unlearnable = {"label"} if reader.labels.value is not None else set()
        raise_first_error([finding for finding in stage.findings if finding.code not in unlearnable], HINT)
    study = reader.study().value
    if study is None:
        raise FederationError("the site's patients cannot be read")
    return study


def split_alone(config: RunConfig, study: Study) -> Split:
    """Return the roles of the patients of one site, who need not be enough to learn from.

    Raises:
        MilError: The first error: folds that cannot be made, or that share a person.
    """
    labels = Labels(study.patients, study.target)
    strategy = cast(Strategy, build.make(config.split))
    balanced = study.balance == "loss"
    split = check_split(strategy, config.seed, study.endpoint, study.cohort, labels, balanced, False)
    if split.value is not None:
        return split.value_or_raise(HINT)
    # a small site may have a single patient of some class, who cannot stand in every role
    logger.info("%s; the site's patients are divided without regard to class", split.errors[0].line)
    alike = np.zeros(len(study.patients), np.int64)
    return strategy(list(study.patients.index), alike, study.cohort.table, config.seed)


def simulated_sites(config: RunConfig) -> list[SiteSource]:
    """Return the centres of the tool's simulated cohort as sites.

    Raises:
        ConfigError: Real data without `federation.sites`.
    """
    if config.data.cohort is not None:
        raise ConfigError("federation.sites has no value, expected the folders of two sites or more")
    study = read_study(config)
    site = study.cohort.table.drop_duplicates("patient").set_index("patient")["site"]
    return [
        _source(f"{name}", config, only_patients(study, sorted(site.index[site == name]))) for name in sorted(set(site))
    ]


def simulated_names(config: RunConfig) -> list[str]:
    """Return the names of the centres of the tool's simulated cohort.

    Raises:
        ConfigError: Real data without `federation.sites`.
    """
    return [source.name for source in simulated_sites(config)]


def _source(name: str, config: RunConfig, study: Study) -> SiteSource:
    return SiteSource(name, config, study, split_alone(config, study))


def only_patients(study: Study, patients: Sequence[str]) -> Study:
    """Return the study of some of its patients."""
    rows = study.patients.index.get_indexer(pd.Index(patients))
    slides = set(study.cohort.table.loc[study.cohort.table["patient"].isin(patients), "slide"])
    bags = study.bags[study.bags["patient"].isin(patients)].reset_index(drop=True)
    return replace(
        study,
        cohort=study.cohort.only(slides),
        patients=study.patients.iloc[rows],
        target=study.target[rows],
        bags=bags,
        truth=None,  # that of all patients is no site's
    )

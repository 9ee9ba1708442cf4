"""Hospitals of a few patients in memory, for every endpoint and model, and the same patients in one place."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from mil import config as conf
from mil.cohort.clinical_table import Cohort
from mil.features.encoders import Encoder
from mil.features.store import FeatureStore
from mil.federation.coordinator import Coordinator, Engine
from mil.federation.engines.local import LocalEngine
from mil.federation.federation_options import FederationOptions
from mil.federation.fold_setup import FoldSetup, fit_setup
from mil.federation.hospital import Hospital
from mil.federation.protocol import Training
from mil.splits.folds import Split
from mil.study import build
from mil.study.component import Component, Options
from mil.study.compose import compose
from mil.study.run_config import RunConfig
from mil.study.study import Study

WIDTH = 8
SITES = {"a": 13, "b": 9, "c": 11}
SMALL = {
    "embed_dim": 8,
    "attention_dim": 4,
    "dropout": 0.0,
}
TOGETHER = tuple(
    name
    for name, node in conf.described("model").items()
    if not getattr(build.class_of(Component[Options].model_validate(node)), "not_federated", "")
)
"""Models that hospitals can train together."""
WORDS = ["split=holdout", "trainer.max_epochs=3", "data.batch_bags=8", "data.workers=0", "trainer.accelerator=cpu"]


class MemoryStore:
    """Slides that are made when they are read."""

    keeps = True
    verified = False
    folder = Path("memory")

    def __init__(self, kinds: Mapping[str, int]) -> None:
        """`kinds` shift the first channel of a patient's tiles, so that there is something to learn."""
        self.kinds = kinds
        self.geometry = SimpleNamespace(mpp=0.5, tile_px=224.0)

    def header(self, slide: str) -> SimpleNamespace:
        return SimpleNamespace(tiles=6 + sum(slide.encode()) % 5, width=WIDTH, itemsize=4, has_coords=True)

    def valid_headers(self, slides: Iterable[str]) -> dict[str, SimpleNamespace]:
        return {slide: self.header(slide) for slide in slides}

    def read(self, slide: str) -> SimpleNamespace:
        tiles = self.header(slide).tiles
        generator = torch.Generator().manual_seed(
            sum(number * letter for number, letter in enumerate(slide.encode(), 1))
        )
        places = 512 * torch.stack([torch.arange(tiles) % 3, torch.arange(tiles) // 3], 1)
        features = torch.randn(tiles, WIDTH, generator=generator)
        features[:, 0] += self.kinds.get(slide, 0)
        return SimpleNamespace(features=features, coords=places)


def patients_of(site: str, count: int, seed: int = 0) -> pd.DataFrame:
    """Return a clinical table with a column for every endpoint."""
    rng = np.random.default_rng((seed, *site.encode()))
    numbers = np.arange(count)
    event = rng.permutation(numbers % 3)
    table = pd.DataFrame(
        {
            "label": np.where(rng.permutation(numbers) % 3 == 0, "1", "0"),
            "kind": rng.permutation(numbers % 3).astype(str),
            "grade": (1 + rng.permutation(numbers % 4)).astype(str),
            "first": np.where(rng.permutation(numbers) % 2, "1", "0"),
            "second": np.where(rng.permutation(numbers) % 3 == 0, "1", "0"),
            "score": rng.normal(50, 10, count).round(2).astype(str),
            "time": (1 + rng.integers(0, 24, count)).astype(str),
            "event": np.where(event == 1, "1", "0"),
            "cause": event.astype(str),
            "age": rng.integers(40, 80, count).astype(str),
            "site": site,
        },
        index=pd.Index([f"{site}{number:03d}" for number in numbers], name="patient"),
    )
    table.loc[table.index[::5], "second"] = ""
    return table


@cache
def config_of(tool: str, *words: str) -> RunConfig:
    """Return the options of a generic tool on the columns of `patients_of`."""
    columns = {
        "multiclass": ["tool.endpoint.column=kind"],
        "competing_risks": ["tool.endpoint.event=cause", "tool.endpoint.intervals=3"],
        "survival_discrete": ["tool.endpoint.intervals=3"],
    }
    return compose([f"tool={tool}", *WORDS, *columns.get(tool, []), *words])


def study_of(config: RunConfig, table: pd.DataFrame) -> Study:
    """Return the study of a clinical table, with one slide for each patient."""
    endpoint = build.endpoint(config)
    slides = pd.DataFrame({"patient": table.index, "slide": table.index, "site": table["site"].to_numpy()})
    return Study(
        cohort=Cohort(slides, endpoint.columns),
        store=cast(FeatureStore, MemoryStore(dict(zip(table.index, table["kind"].astype(int), strict=True)))),
        encoder=Encoder("simulated", WIDTH),
        endpoint=endpoint,
        patients=table,
        target=endpoint.encode(table),
        bags=pd.DataFrame({"bag": table.index, "patient": table.index, "slides": [(name,) for name in table.index]}),
        source=Path("memory"),
        truth=None,
        covariates=build.covariates(config),
    )


def split_of(table: pd.DataFrame) -> Split:
    """Return a split in which every fifth patient selects and every fifth is reported."""
    roles = np.array(["train", "train", "train", "select", "report"])[np.arange(len(table)) % 5]
    return Split(pd.DataFrame({"patient": table.index, "fold": 0, "role": roles}))


def hospital_of(
    config: RunConfig, site: str, table: pd.DataFrame, options: FederationOptions, folder: Path | None = None
) -> Hospital:
    """Return one hospital."""
    return Hospital(site, config, study_of(config, table), split_of(table), options, folder)


@dataclass
class Federated:
    """A federation that is set up."""

    config: RunConfig
    options: FederationOptions
    tables: dict[str, pd.DataFrame]
    hospitals: dict[str, Hospital]
    coordinator: Coordinator
    setup: FoldSetup
    folder: Path | None = None
    counts: dict[str, int] = field(default_factory=dict)
    weights: NDArray[np.float64] | None = None
    """after training"""

    def training(self, state: Path | None = None) -> Training:
        """Return the training of its fold."""
        return Training(self.config, self.coordinator, self.setup, WIDTH, self.counts, state)

    @property
    def train_table(self) -> pd.DataFrame:
        """The training patients of all sites."""
        tables = [table.loc[split_of(table).patients(0, "train")] for _, table in sorted(self.tables.items())]
        return pd.concat(tables)


def options_of(**values: object) -> FederationOptions:
    """Return options with a minimum that a few patients reach."""
    return FederationOptions.parse({"minimum": 1, "times": "exact", "secure": False, **values})


def federated(
    config: RunConfig,
    options: FederationOptions,
    sites: Mapping[str, int] = SITES,
    folder: Path | None = None,
    wrap: Any = None,
) -> Federated:
    """Return a federation of simulated sites, set up for its fold."""
    tables = {site: patients_of(site, count) for site, count in sites.items()}
    hospitals = {
        site: hospital_of(config, site, table, options, None if folder is None else folder / site)
        for site, table in tables.items()
    }
    engine: Engine = LocalEngine(hospitals)
    coordinator = Coordinator(engine if wrap is None else wrap(engine), options)
    return joined(config, options, tables, hospitals, coordinator)


def joined(
    config: RunConfig,
    options: FederationOptions,
    tables: dict[str, pd.DataFrame],
    hospitals: dict[str, Hospital],
    coordinator: Coordinator,
) -> Federated:
    """Describe, join and set up."""
    descriptions = coordinator.ask("describe")
    keys: dict[str, JsonValue] = {site: message.text("public") for site, message in coordinator.ask("join").items()}
    coordinator.ask("join", facts={"keys": keys})
    setup = fit_setup(config, coordinator, descriptions, 0)
    arrays, facts = setup.question(options.algorithm in ("exact", "pooled"))
    coordinator.ask("setup", arrays, facts)
    counts = {site: int(cast(Any, message.facts["counts"])["0"]["train"]) for site, message in descriptions.items()}
    return Federated(config, options, tables, hospitals, coordinator, setup, None, counts)


def targets_of(config: RunConfig, table: pd.DataFrame) -> Tensor:
    """Return the targets of a table."""
    return build.endpoint(config).encode(table)


def names(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Return the patients of some tables."""
    return [str(name) for table in tables for name in table.index]

"""What is fitted together before training: cells of time, endpoint and covariates of one fold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.federation.coordinator import Coordinator
from mil.federation.messages import Message
from mil.federation.targets import TIMES, TimeCells, fit_covariates, fit_endpoint, grid_of
from mil.study import build
from mil.study.run_config import RunConfig

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FoldSetup:
    """What every site of one fold is told.

    Attributes:
        fold: Its number.
        endpoint: Fitted to the training patients of all sites.
        covariates: Fitted likewise; None where the model reads none.
        cells: Times to which follow-up is rounded, by endpoint.
        counts: Training patients of all sites in these cells, by endpoint.
    """

    fold: int
    endpoint: Endpoint
    covariates: Covariates | None
    cells: Mapping[str, TimeCells]
    counts: Mapping[str, Floats]

    def question(self, exact: bool) -> tuple[dict[str, Floats], dict[str, JsonValue]]:
        """Return arrays and facts of the question `setup`."""
        arrays, facts = cell_arrays(self.cells)
        facts |= {"fold": self.fold, "exact": exact, "endpoint": cast(JsonValue, self.endpoint.state())}
        if self.covariates is not None:
            facts["covariates"] = cast(JsonValue, self.covariates.state())
        return arrays, facts


def cell_arrays(cells: Mapping[str, TimeCells]) -> tuple[dict[str, Floats], dict[str, JsonValue]]:
    """Return cells of time as arrays and facts of a question."""
    strata: dict[str, JsonValue] = {name: cast(JsonValue, each.strata.tolist()) for name, each in cells.items()}
    return {f"times {name}": each.times for name, each in cells.items()}, {"strata": strata}


def fit_setup(config: RunConfig, coordinator: Coordinator, descriptions: Mapping[str, Message], fold: int) -> FoldSetup:
    """Fit what the training patients of all sites determine.

    Raises:
        CohortError: All sites together have patients of one class only, or no event.
    """
    endpoint = build.endpoint(config)
    cells = _fine_cells(endpoint, coordinator, descriptions)
    arrays, facts = cell_arrays(cells)
    totals = coordinator.total("target sums", arrays, {**facts, "fold": fold}).arrays
    centres: dict[str, JsonValue] = {
        name.removeprefix("moments "): float(values[1] / max(values[0], 1))
        for name, values in totals.items()
        if name.startswith("moments ")
    }
    if centres:
        totals = coordinator.total("target sums", arrays, {**facts, "fold": fold, "centres": centres}).arrays
    counts = {name: totals[f"counts {TIMES}{name}"] for name in cells}
    if coordinator.options.times == "grid":
        fine, cells = (
            cells,
            {name: each.merged(counts[name], coordinator.options.least_per_cell) for name, each in cells.items()},
        )
        counts = {name: _regrouped(counts[name], fine[name], each) for name, each in cells.items()}
    sums = dict(totals) | {f"counts {TIMES}{name}": values for name, values in counts.items()}
    fit_endpoint(endpoint, sums, cells, config.data.balance == "loss")
    return FoldSetup(fold, endpoint, _fit_covariates(config, coordinator, fold), cells, counts)


def _fine_cells(
    endpoint: Endpoint, coordinator: Coordinator, descriptions: Mapping[str, Message]
) -> dict[str, TimeCells]:
    """Return the declared grid, or all event times, of each endpoint of times."""
    cells = dict[str, TimeCells]()
    for name, part in (endpoint.parts() or {"": endpoint}).items():
        if part.survival is None:
            continue
        stated = [
            cast(dict[str, dict[str, list[float]]], description.facts["times"])[name]
            for _, description in sorted(descriptions.items())
        ]
        if coordinator.options.times == "exact":
            times = np.array(sorted({time for each in stated for time in each["exact"]}))
        else:
            times = grid_of(part.survival.unit, coordinator.options.grid, max(each["last"][0] for each in stated))
        strata = sorted({code for each in stated for code in each["strata"]})
        cells[name] = TimeCells(times, np.array(strata or [0.0]))
    return cells


def _regrouped(counts: Floats, fine: TimeCells, coarse: TimeCells) -> Floats:
    """Return counts by fine cells as counts by coarse ones, `(s, codes, t)`."""
    place = np.minimum(np.searchsorted(coarse.times, fine.times - 1e-9), len(coarse.times) - 1)
    regrouped = np.zeros((*counts.shape[:2], len(coarse.times)))
    for cell, target in enumerate(place):
        regrouped[:, :, target] += counts[:, :, cell]
    return regrouped


def _fit_covariates(config: RunConfig, coordinator: Coordinator, fold: int) -> Covariates | None:
    covariates = build.covariates(config)
    if covariates is None:
        return None
    if covariates.numeric:
        first = coordinator.total("covariate sums", {}, {"fold": fold}).arrays["sums"]
        centres = first[:, 1] / np.maximum(first[:, 0], 1)
        totals = coordinator.total("covariate sums", {"centres": centres}, {"fold": fold}).arrays["sums"]
        covariates.load_state(fit_covariates(covariates, totals))
    return covariates


def with_endpoint(setup: FoldSetup, endpoint: Endpoint) -> FoldSetup:
    """Return the setup with another state of the endpoint."""
    return replace(setup, endpoint=endpoint)

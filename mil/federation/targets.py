"""Fit endpoints and covariates to the patients of all hospitals, from counts and sums.

Endpoints are fitted by their own `fit`: what they need of the targets are counts of classes, counts of times, or mean
and variance. The coordinator makes targets with the same counts as all patients together have, and fits to these.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.cohort.covariates import Covariates
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.follow_up import DAYS
from mil.errors import CohortError
from mil.federation.exact_cox import RiskSets

Floats = NDArray[np.float64]
TIMES = "times "
"""Arrays whose names begin so hold counts of patients by time and end of follow-up."""


@dataclass(frozen=True, eq=False)
class TimeCells:
    """The times to which follow-up is rounded up, and the strata, of one endpoint.

    Attributes:
        times: Rising; the last is not before anybody's end of follow-up.
        strata: Codes of strata, rising; a single zero where patients are not stratified.
    """

    times: Floats
    strata: Floats

    def rounded(self, target: Tensor) -> Tensor:
        """Return targets `(p, ...)` with the time rounded up to a cell."""
        values = target.clone()
        values[:, 0] = torch.from_numpy(self.times)[self._cell(target)].to(values.dtype)
        return values

    def counts(self, target: Tensor, codes: int) -> Floats:
        """Return the number of patients by stratum, code and cell, `(s, codes, t)`."""
        table = np.zeros((len(self.strata), codes, len(self.times)))
        stratum = np.zeros(len(target), np.int64)
        if len(self.strata) > 1:
            stratum = np.searchsorted(self.strata, target[:, 2].double().numpy())
        np.add.at(table, (stratum, target[:, 1].long().numpy(), self._cell(target).numpy()), 1)
        return table

    def targets(self, counts: Floats) -> Tensor:
        """Return targets of patients with these counts `(s, codes, t)`, `(p, 3)`."""
        stratum, code, cell = np.nonzero(counts)
        rows = np.stack([self.times[cell], code, self.strata[stratum]], 1)
        return torch.from_numpy(np.repeat(rows, counts[stratum, code, cell].round().astype(np.int64), axis=0))

    def merged(self, counts: Floats, minimum: int) -> "TimeCells":
        """Return cells that hold a minimum of patients each: neighbours are merged, the last with the one before."""
        amounts, kept_times, amount = counts.sum((0, 1)), list[float](), 0.0
        for time, more in zip(self.times, amounts, strict=True):
            amount += more
            if amount >= minimum:
                kept_times.append(float(time))
                amount = 0.0
        if amount or not kept_times:
            last = float(self.times[np.flatnonzero(amounts)[-1]]) if amounts.any() else float(self.times[-1])
            kept_times = [*kept_times[:-1], last]
        return TimeCells(np.array(kept_times), self.strata)

    def _cell(self, target: Tensor) -> Tensor:
        times = torch.from_numpy(self.times)
        return torch.searchsorted(times, target[:, 0].double().contiguous()).clamp(max=len(times) - 1)


def grid_of(unit: str, months: float, last: float) -> Floats:
    """Return the grid of times up to one that is not before `last`, in multiples of `months`, in `unit`."""
    width = months * DAYS["months"] / DAYS[unit]
    return np.asarray(width * np.arange(1, int(np.ceil(last / width)) + 1), np.float64)


def event_codes(endpoint: Endpoint) -> int:
    """Return the number of ways in which follow-up can end, censoring among them."""
    view = endpoint.survival
    return 0 if view is None else 1 + max(1, len(view.causes))


def parts_of(endpoint: Endpoint, target: Tensor) -> dict[str, tuple[Endpoint, Tensor]]:
    """Return each single endpoint by name, with the targets of the patients who have one; the only one is named ``."""
    if not endpoint.parts():
        return {"": (endpoint, target)}
    return {part.name: (part.endpoint, part.target) for part in endpoint.part_targets(target)}


def target_sums(
    endpoint: Endpoint, target: Tensor, cells: Mapping[str, TimeCells], centres: Mapping[str, float]
) -> dict[str, Floats]:
    """Return the counts and sums of one hospital's training patients that the endpoints are fitted to.

    Args:
        endpoint: Unfitted.
        target: `(p, ...)`.
        cells: Of endpoints of times, by name.
        centres: About which squares of numbers are summed, by name; the numbers themselves are summed without.
    """
    sums = dict[str, Floats]()
    for name, (part, values) in parts_of(endpoint, target).items():
        if part.survival is not None:
            sums[f"counts {TIMES}{name}"] = cells[name].counts(values, event_codes(part))
        elif part.classes:
            sums[f"counts classes {name}"] = np.bincount(values.long().numpy(), minlength=len(part.classes)).astype(
                np.float64
            )
        elif part.label_columns:
            sums[f"counts labels {name}"] = np.stack([(values == answer).sum(0).double().numpy() for answer in (0, 1)])
        else:
            numbers = values.double().numpy()
            squares = ((numbers - centres[name]) ** 2).sum() if name in centres else 0.0
            sums[f"moments {name}"] = np.array([len(numbers), numbers.sum(), squares])
    return sums


def fit_endpoint(
    endpoint: Endpoint, totals: Mapping[str, Floats], cells: Mapping[str, TimeCells], balance: bool
) -> None:
    """Fit an endpoint to the totals of `target_sums` over all hospitals.

    Raises:
        CohortError: All hospitals together have one class only, or no event.
    """
    for name, part in (endpoint.parts() or {"": endpoint}).items():
        target = _target(part, name, totals, cells)
        if not len(target):
            raise CohortError(f"endpoint {name}: no training patient has a value in {', '.join(part.columns)}")
        part.fit(target, balance and part.task == "classification" if endpoint.parts() else balance)


def _target(endpoint: Endpoint, name: str, totals: Mapping[str, Floats], cells: Mapping[str, TimeCells]) -> Tensor:
    """Return targets with the totals of one endpoint."""
    if endpoint.survival is not None:
        return cells[name].targets(totals[f"counts {TIMES}{name}"])
    if endpoint.classes:
        counts = totals[f"counts classes {name}"].round().astype(np.int64)
        return torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    if endpoint.label_columns:
        by_answer = totals[f"counts labels {name}"].round().astype(np.int64)  # (2, k)
        target = torch.full((int(by_answer.sum(0).max(initial=0)), by_answer.shape[1]), torch.nan)
        for label, (negative, positive) in enumerate(by_answer.T):
            target[:negative, label], target[negative : negative + positive, label] = 0.0, 1.0
        return target
    amount, total, squares = totals[f"moments {name}"]
    spread = np.sqrt(squares / max(amount, 1))
    return torch.tensor([total / max(amount, 1) - spread, total / max(amount, 1) + spread][: 2 * bool(amount)])


def covariate_sums(numbers: Floats, centres: Floats | None) -> Floats:
    """Return, of each numeric covariate, number, sum, and squares about its centre, `(k, 3)`.

    Args:
        numbers: `(p, k)`, NaN where missing.
        centres: `(k,)`; None sums no squares.
    """
    given = ~np.isnan(numbers)
    squares = np.zeros(numbers.shape[1]) if centres is None else np.nansum((numbers - centres) ** 2, axis=0)
    return np.stack([given.sum(0), np.nansum(numbers, axis=0), squares], 1)


def fit_covariates(covariates: Covariates, totals: Floats) -> dict[str, list[float]]:
    """Return the state of covariates with the totals of `covariate_sums` over all hospitals."""
    amount = np.maximum(totals[:, 0], 1)
    spread = np.sqrt(totals[:, 2] / amount)
    return {"mean": (totals[:, 1] / amount).tolist(), "sd": np.where(spread > 1e-9, spread, 1.0).tolist()}


def risk_sets_of(cells: Mapping[str, TimeCells]) -> Callable[[str, Endpoint], RiskSets]:
    """Return the event times and strata of endpoints by name, from the cells of time."""

    def of(name: str, endpoint: Endpoint) -> RiskSets:
        own_cells = cells[name]
        times, strata = torch.from_numpy(own_cells.times), torch.from_numpy(own_cells.strata)
        return RiskSets(times, strata, endpoint.partial_likelihood or "efron")

    return of


def rounded_times(endpoint: Endpoint, target: Tensor, cells: Mapping[str, TimeCells]) -> Tensor:
    """Return targets in which the times of partial likelihoods are rounded up to their cells."""
    if endpoint.partial_likelihood is not None:
        return cells[""].rounded(target)
    if not any(part.partial_likelihood for part in endpoint.parts().values()):
        return target
    values = target.clone()
    for part in endpoint.part_targets(target):
        if part.endpoint.partial_likelihood is not None:
            rounded = cells[part.name].rounded(part.target)
            values[torch.from_numpy(part.mask), endpoint.part_columns[part.name]] = rounded.to(values.dtype)
    return values

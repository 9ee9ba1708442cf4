"""Split-conformal prediction: sets of classes, or intervals of numbers, that contain the truth with a stated coverage.

Limits are order statistics of the deviations of select patients (Vovk et al., Algorithmic Learning in a Random World,
2005; Lei et al., JASA 113, 2018): of n exchangeable patients the one of rank `ceil((n + 1) coverage)`, which gives the
next patient at least the stated coverage, whatever the model. Where n is too small for that rank, nothing can be left
out: the set contains every class, and `notes` says so.

The guarantee is approximate here: the select patients also chose the epoch, so that the model fits them a little better
than the next patient. It is a mean over patients, not a promise to each, and does not hold for patients unlike the
select ones. The coverage among report patients is measured, see `mil.report.sections.prediction_sets`.

Survival has no sets: whether a patient who is censored before the horizon deviates is unknown, and leaving them
out would not leave an exchangeable sample. Weighting by the probability of censoring (Candès et al., JRSS B 85, 2023)
needs a model of censoring, and the end of follow-up of every patient.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mil.endpoints.endpoint import Endpoint, numbers
from mil.fitted.options import ConformalOptions

Floats = NDArray[np.float64]
BETWEEN = "|"
"""Separates the classes of a set."""
_LEAST_SPREAD = 1e-12


class Limit(BaseModel):
    """The largest deviation with which a class, or a number, is part of the prediction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: str
    """the class it holds for; `all` for every class, `value` for a number"""
    n: int
    """select patients it comes from"""
    cut: float | None
    """largest deviation; None where the patients are too few, and nothing is left out"""

    @property
    def reach(self) -> float:
        """The largest deviation, or infinity."""
        return math.inf if self.cut is None else self.cut


class Sets(BaseModel):
    """The classes that a patient may have: one set for exclusive classes, one for each label.

    `lac`: a class deviates by one minus its probability (least ambiguous sets, Sadinle et al., JASA 114, 2019: smallest
    on average; a set is empty where no class is likely enough). `aps`: by the probability of all likelier classes
    (adaptive sets, Romano et al., NeurIPS 2020, without their random part, so that a patient's set is always the same;
    larger where the model is unsure). RAPS is not offered: its penalty is for hundreds of classes and has to be tuned.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sets"] = "sets"
    name: str
    """of the label; empty for exclusive classes"""
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    """probabilities of the classes, or of the second of two"""
    method: Literal["lac", "aps"]
    ordered: bool
    """classes are grades: what lies between two grades of a set belongs to it"""
    limits: tuple[Limit, ...]
    """one for each class in their order, or one for all"""

    @model_validator(mode="after")
    def _sized(self) -> "Sets":
        wide = len(self.columns) == len(self.classes) or (len(self.columns), len(self.classes)) == (1, 2)
        if not wide or len(self.limits) not in (0, 1, len(self.classes)):
            raise ValueError(f"{len(self.classes)} classes, {len(self.columns)} columns and {len(self.limits)} limits")
        return self

    def deviations(self, table: pd.DataFrame) -> Floats:
        """Return the deviation of each class, `(p, k)`."""
        share = numbers(table, self.columns).numpy()
        share = np.hstack([1 - share, share]) if share.shape[1] == 1 else share
        if self.method == "lac":
            return 1 - share
        order = np.argsort(-share, axis=1, kind="stable")
        sorted_share = np.take_along_axis(share, order, 1)
        likelier = np.empty_like(share)
        np.put_along_axis(likelier, order, np.cumsum(sorted_share, 1) - sorted_share, 1)
        return likelier

    def members(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which classes are in each patient's set, `(p, k)`."""
        inside = self.deviations(table) <= np.array([limit.reach for limit in self.limits])
        if not self.ordered:
            return inside
        reached, left = (np.logical_or.accumulate(side, 1) for side in (inside, inside[:, ::-1]))
        return reached & left[:, ::-1]

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return column `set`, or `set_<label>`: `"MSI-H"`, `"MSI-H|MSS"`, or an empty text."""
        names = np.array(self.classes, dtype=object)
        sets = [BETWEEN.join(names[row]) for row in self.members(table)]
        return pd.DataFrame({f"set_{self.name}" if self.name else "set": sets}, index=table.index, dtype=object)


class Interval(BaseModel):
    """The interval that a patient's number lies in.

    `absolute`: as far on both sides of every value. `scaled`: in multiples of the spread that the endpoint writes.
    `quantiles`: the outermost quantiles that the endpoint writes, moved out or in (Romano et al., NeurIPS 2019); never
    so far in that the value itself is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["interval"] = "interval"
    name: Literal[""] = ""
    method: Literal["absolute", "scaled", "quantiles"]
    columns: tuple[str, ...]
    """the value, then the spread, or the lowest and the highest quantile"""
    limits: tuple[Limit]

    @model_validator(mode="after")
    def _sized(self) -> "Interval":
        if len(self.columns) != {"absolute": 1, "scaled": 2, "quantiles": 3}[self.method]:
            raise ValueError(f"columns {', '.join(self.columns)}, expected the value and what {self.method} needs")
        return self

    def deviations(self, table: pd.DataFrame, true: Floats) -> Floats:
        """Return the deviations of the true numbers `(p,)`, `(p,)`."""
        low, high, scale = self._frame(table)
        return np.maximum(low - true, true - high) / scale

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return columns `low` and `high`, in the endpoint's unit; infinite where nothing can be left out."""
        low, high, scale = self._frame(table)
        value, reach = table[self.columns[0]].to_numpy(np.float64), self.limits[0].reach
        ends = {"low": np.minimum(low - reach * scale, value), "high": np.maximum(high + reach * scale, value)}
        return pd.DataFrame(ends, index=table.index)

    def _frame(self, table: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
        """Return lower and upper end before the limit moves them, and the unit of deviations."""
        value, *spread = numbers(table, self.columns).numpy().T
        match self.method:
            case "scaled":
                return value, value, np.maximum(spread[0], _LEAST_SPREAD)
            case "quantiles":
                return spread[0], spread[1], np.ones_like(value)
        return value, value, np.ones_like(value)


class Conformal(BaseModel):
    """Fitted prediction sets, or an interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    coverage: float
    """as stated; for each label and, where every class has its own limit, for each class"""
    needed: int
    """select patients a limit needs"""
    on: Literal["select"] = "select"
    parts: tuple[Annotated[Sets | Interval, Field(discriminator="kind")], ...]

    def apply(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the columns of sets or interval, one row for each row of the table."""
        return pd.concat([part.apply(table) for part in self.parts], axis=1)

    def notes(self) -> list[str]:
        """Return a sentence for each limit that has too few patients."""
        return [
            f"{part.name or 'conformal'} {limit.of}: {limit.n} select patients, a coverage of {self.coverage:g} needs "
            f"{self.needed}: nothing is left out."
            for part in self.parts
            for limit in part.limits
            if limit.cut is None
        ]


def needed(coverage: float) -> int:
    """Return the smallest n for which the rank `ceil((n + 1) coverage)` exists."""
    share = Fraction(str(coverage))
    return math.ceil(share / (1 - share))


def limit(of: str, deviations: Floats, coverage: float) -> Limit:
    """Return the deviation of rank `ceil((n + 1) coverage)` among `(n,)` deviations, by exact arithmetic."""
    rank = math.ceil((len(deviations) + 1) * Fraction(str(coverage)))
    cut = float(np.sort(deviations)[rank - 1]) if rank <= len(deviations) else None
    return Limit(of=of, n=len(deviations), cut=cut)


def fit(options: ConformalOptions, endpoint: Endpoint, select: pd.DataFrame) -> Conformal | None:
    """Fit limits to select patients; None for survival.

    Args:
        options: As the tool states them.
        endpoint: What is predicted.
        select: Targets and scores of the select patients; those without a target are left out.
    """
    patients = select[endpoint.has_target(select)]
    parts = list[Sets | Interval]()
    for number, part in enumerate(unlimited(options, endpoint)):
        if isinstance(part, Interval):
            deviations = part.deviations(patients, endpoint.encode(patients).double().numpy())
            parts.append(part.model_copy(update={"limits": (limit("value", deviations, options.coverage),)}))
        else:
            parts.append(_limited(part, truths(endpoint, patients)[number], patients, options))
    return joined(options, parts)


def joined(options: ConformalOptions, parts: Sequence[Sets | Interval]) -> Conformal | None:
    """Return sets or an interval with their limits as one; None where there are none."""
    if not parts:
        return None
    return Conformal(coverage=options.coverage, needed=needed(options.coverage), parts=tuple(parts))


def unlimited(options: ConformalOptions, endpoint: Endpoint) -> list[Sets | Interval]:
    """Return the sets or the interval of an endpoint without their limits; none for survival."""
    if endpoint.value_column is not None:
        return [_interval(endpoint, endpoint.value_column)]
    return list(_sets(endpoint, options)) if endpoint.questions() else []


def truths(endpoint: Endpoint, table: pd.DataFrame) -> list[NDArray[np.int64]]:
    """Return the index of the true class in each of the endpoint's sets, `(p,)` each; -1 where it is missing."""
    if endpoint.classes:
        return [endpoint.labels(table)]
    return [np.nan_to_num(question.truth(table), nan=-1.0).astype(np.int64) for question in endpoint.questions()]


def _sets(endpoint: Endpoint, options: ConformalOptions) -> Iterator[Sets]:
    """Yield the sets without limits: one for exclusive classes, else one for each question."""
    shared: dict[str, Any] = {"method": options.method, "ordered": endpoint.ordered, "limits": ()}
    if endpoint.classes:
        yield Sets(name="", classes=endpoint.classes, columns=endpoint.class_columns, **shared)
    else:
        for question in endpoint.questions():
            classes = (question.negative, question.positive)
            yield Sets(name=question.name, classes=classes, columns=question.columns, **shared)


def _limited(sets: Sets, truth: NDArray[np.int64], table: pd.DataFrame, options: ConformalOptions) -> Sets:
    labelled = truth >= 0
    truth, by_class = truth[labelled], sets.deviations(table[labelled])
    deviations = by_class[np.arange(len(truth)), truth]  # (p,), of the true class
    return limited(sets, [deviations[truth == at] for at in range(len(sets.classes))], options)


def limited(sets: Sets, deviations: Sequence[Floats], options: ConformalOptions) -> Sets:
    """Return the sets with limits from the deviations of the true class, `(p,)` for each class."""
    if options.per_class:
        by_class = zip(sets.classes, deviations, strict=True)
        limits = [limit(name, values, options.coverage) for name, values in by_class]
    else:
        limits = [limit("all", np.concatenate(list(deviations)), options.coverage)]
    return sets.model_copy(update={"limits": tuple(limits)})


def _interval(endpoint: Endpoint, value: str) -> Interval:
    quantiles = list(endpoint.quantile_columns.values())
    bare = Limit(of="value", n=0, cut=None)
    if endpoint.spread_column is not None:
        return Interval(method="scaled", columns=(value, endpoint.spread_column), limits=(bare,))
    if len(quantiles) > 1:
        return Interval(method="quantiles", columns=(value, quantiles[0], quantiles[-1]), limits=(bare,))
    return Interval(method="absolute", columns=(value,), limits=(bare,))

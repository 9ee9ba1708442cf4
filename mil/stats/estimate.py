"""A number with its interval and the patients it was computed from."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializerFunctionWrapHandler, model_serializer

LEVEL = 0.95
"""Confidence level of every interval, unless an estimate says otherwise."""


def _none_unless_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_none_unless_finite)]
"""A finite number; NaN and infinity become None, since JSON has neither."""


class Model(BaseModel):
    """Base of everything in a report: immutable, and unknown keys are errors.

    Optional fields without a value are left out of the JSON, where they would be half of all lines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _without_absent_values(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in serialize(self).items()
            if value is not None or name not in fields or fields[name].is_required()
        }


class Bounds(Model):
    """A second interval of the same estimate, by another method."""

    low: Number
    high: Number
    method: str


class Estimate(Model):
    """A value with its confidence interval, method and counts.

    `value` is None where the patients do not define it; `reason` then says why. `low` or `high` is None where that
    bound does not exist or cannot be estimated.
    """

    value: Number
    low: Number = None
    high: Number = None
    level: float = LEVEL
    method: str | None = None
    """how the interval was made"""
    counts: dict[str, int] = {}
    """`n` patients first, then positives, classes or events among them; of a proportion also `successes`"""
    unit: str | None = None
    """of value and bounds; None for numbers without a unit"""
    reason: str | None = None
    """why there is no value or no interval"""
    p: Number = None
    """p value of the null hypothesis of no effect, two-sided"""
    folds: tuple[Number, ...] = ()
    """the value in each fold, of which the value is the mean unless the method says that folds are pooled"""
    resamples: int | None = None
    """bootstrap resamples behind the interval"""
    second: Bounds | None = None
    """the interval by another method, such as the exact one of a proportion"""
    caveat: str | None = None
    """what a reader must know about the value or its interval; shown wherever the estimate is"""

    @classmethod
    def missing(cls, reason: str, counts: Mapping[str, int] | None = None) -> "Estimate":
        """Return an estimate without a value, with the reason."""
        return cls(value=None, reason=reason, counts=dict(counts or {}))

    def with_counts(self, counts: Mapping[str, int]) -> "Estimate":
        """Return the same estimate with these counts."""
        return self.model_copy(update={"counts": dict(counts)})

    def with_caveat(self, caveat: str | None) -> "Estimate":
        """Return the same estimate with a caveat; none where it has no value."""
        return self if caveat is None or self.value is None else self.model_copy(update={"caveat": caveat})

    def explained(self, reason: str) -> "Estimate":
        """Return the estimate with the reason why there is no value; one with a value stays as it is."""
        return self if self.value is not None else self.model_copy(update={"reason": reason})

    def transformed(self, function: Callable[[float], float], falling: bool = False) -> "Estimate":
        """Return the estimate on another scale.

        Args:
            function: A monotone function of value and bounds.
            falling: Whether the function falls, so that the bounds change places.
        """
        value, low, high = (None if x is None else float(function(x)) for x in (self.value, self.low, self.high))
        return self.model_copy(
            update={"value": value, "low": high if falling else low, "high": low if falling else high}
        )

    @property
    def n(self) -> int | None:
        """Patients it was computed from."""
        return self.counts.get("n")

    def __str__(self) -> str:
        """Value and interval, such as `0.904 (0.851 to 0.950)`, with a caveat, or `not estimable: ...`."""
        if self.value is None:
            return f"not estimable: {self.reason}" if self.reason else "not estimable"
        caveat = f" [{self.caveat}]" if self.caveat else ""
        if self.low is None and self.high is None:
            reason = f" (interval not estimable: {self.reason})" if self.reason else ""
            return f"{format_number(self.value)}{reason}{caveat}"
        low, high = ("…" if bound is None else format_number(bound) for bound in (self.low, self.high))
        return f"{format_number(self.value)} ({low} to {high}){caveat}"

    @property
    def population(self) -> str:
        """The counts in words, such as `n 200, MSS 170, MSI-H 30`; of a proportion `34 of 36`."""
        return format_counts(self.counts)

    @property
    def described(self) -> str:
        """Value, interval and counts, such as `0.904 (0.851 to 0.950), n 200, positives 30`."""
        return ", ".join(text for text in (str(self), self.population) if text)


def format_number(value: float) -> str:
    """Return three decimals; one from 10 on; two significant digits below 0.001. Zero has no sign."""
    if 1e-9 < abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:z.3f}"


def format_p(p: float) -> str:
    """Return a p value with three decimals; it is never written as zero."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_counts(counts: Mapping[str, int]) -> str:
    """Return `n 200, MSS 170, MSI-H 30`; of a proportion `34 of 36`."""
    if {"n", "successes"} <= set(counts):
        rest = {name: count for name, count in counts.items() if name not in ("n", "successes")}
        return ", ".join([f"{counts['successes']} of {counts['n']}", *([format_counts(rest)] if rest else [])])
    return ", ".join(format_count(name, count) for name, count in counts.items())


def format_count(name: str, count: object) -> str:
    """Return `MSI-H 36`; a class whose name is a number is written `class 1: 36`."""
    return f"class {name}: {count}" if name[:1].isdigit() else f"{name} {count}"


def format_class(name: str) -> str:
    """Return the name of a class; one that is a number, which would read as a count, is written `class 1`."""
    return f"class {name}" if name.isdigit() else name

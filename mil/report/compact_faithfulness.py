"""The faithfulness of explanations as a report holds it: the curves at few points, numbers with four digits."""

from mil.report.schema import Curve, Estimate
from mil.report.sections.explanations import Faithfulness, MapFaithfulness
from mil.stats.estimate import Number

POINTS = 6
"""Points of a curve in a report; `explain.json` has all."""
_DIGITS = 4
_CURVES = ("deletion", "deletion_least_first", "insertion", "insertion_least_first")


def compact(measured: Faithfulness) -> Faithfulness:
    """Return the section with the same estimates to four digits and curves at `POINTS` points.

    A release keeps a report for each tool and version; complete curves of every method and output would be most of it.
    """
    return Faithfulness(maps=tuple(_compact(each) for each in measured.maps))


def _compact(each: MapFaithfulness) -> MapFaithfulness:
    fields = {name: getattr(each, name) for name in type(each).model_fields}
    curves = {name: _thinned(fields[name]) for name in _CURVES}
    estimates = {name: _rounded(value) for name, value in fields.items() if isinstance(value, Estimate)}
    return each.model_copy(update=curves | estimates)


def _thinned(curve: Curve) -> Curve:
    last = len(curve.x) - 1
    places = sorted({round(at * last / (POINTS - 1)) for at in range(POINTS)})
    return curve.model_copy(
        update={
            name: tuple(_short(values[at]) for at in places)
            for name in ("x", "y", "low", "high")
            if (values := getattr(curve, name))
        }
    )


def _rounded(estimate: Estimate) -> Estimate:
    return estimate.model_copy(update={name: _short(getattr(estimate, name)) for name in ("value", "low", "high")})


def _short(value: Number) -> Number:
    return None if value is None else float(f"{value:.{_DIGITS}g}")

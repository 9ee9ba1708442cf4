"""The clinical columns of a simulated cohort on a card: how they were drawn, and where their effects come from."""

from collections.abc import Iterator, Mapping

from mil.cards.content import Subsection
from mil.report.schema import Table
from mil.simulation.clinical_variables import CategoricalVariable, ClinicalVariable, Effect, NumericVariable

_EXPLANATION = (
    "Drawn given the outcome, so that each ratio holds adjusted for the other columns; levels are compared with the "
    "first one. Ratios are of the positive class, of the event or of the next higher grade where nothing else is said."
)


def clinical_columns(variables: Mapping[str, ClinicalVariable]) -> Subsection:
    """Return the table of the clinical columns, with the sources of their distributions and effects below it."""
    sources = list(dict.fromkeys(source for variable in variables.values() for source in _sources(variable)))
    rows = tuple(
        (name, _distribution(variable), "; ".join(_effects(variable)) or "none", _numbers(variable, sources))
        for name, variable in variables.items()
    )
    table = Table(columns=("Column", "Patients", "Effect", "Published in"), rows=rows)
    listed = [f"Source {place}: {source}." for place, source in enumerate(sources, start=1)]
    return Subsection("Simulated clinical columns", [_EXPLANATION, *listed], [table])


def _distribution(variable: ClinicalVariable) -> str:
    if isinstance(variable, NumericVariable):
        return f"mean {variable.mean:g}, SD {variable.sd:g}, from {variable.low} to {variable.high}"
    if variable.given is None:
        return _shares(variable.shares)
    return "; ".join(f"{variable.given} from {band.start:g}: {_shares(band.shares)}" for band in variable.bands)


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{level} {share:.0%}" for level, share in shares.items())


def _effects(variable: ClinicalVariable) -> Iterator[str]:
    for effect in variable.effects:
        measure = effect.measure + (f" of {effect.of}" if effect.of else "")
        if isinstance(variable, CategoricalVariable):
            yield f"{measure}: {_ratios(effect)}"
        elif isinstance(variable, NumericVariable):
            yield f"{measure} for {variable.per:g} more: {effect.ratio:g}"


def _ratios(effect: Effect) -> str:
    assert isinstance(effect.ratio, dict)
    return ", ".join(f"{level} {ratio:g}" for level, ratio in effect.ratio.items())


def _sources(variable: ClinicalVariable) -> Iterator[str]:
    if variable.source:
        yield variable.source
    for effect in variable.effects:
        yield effect.source


def _numbers(variable: ClinicalVariable, sources: list[str]) -> str:
    numbers = sorted({sources.index(source) + 1 for source in _sources(variable)})
    return ", ".join(map(str, numbers)) or "set by hand"

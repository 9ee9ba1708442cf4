"""Two runs that differ in their folds alone: random ones, and ones that keep sites together."""

from typing import Any

import pandas as pd

from mil.errors import ConfigError
from mil.runs.design_gap import gap
from mil.runs.run import Run
from mil.splits import by_site, folds

DESIGNS = {
    f"{one.__module__}.{one.__qualname__}": design
    for design, kinds in {
        "random": (folds.KFold, folds.HoldOut, folds.Nested),
        "preserved": (by_site.SitePreserved, by_site.LeaveOneSiteOut),
    }.items()
    for one in kinds
}
"""Of a split: whether it looks at sites. Roles that a user gives may do either."""


def side_by_side(run: Run, other: Run, resamples: int | None = None) -> dict[str, Any]:
    """The main metric of random folds and of folds of whole sites, whichever of the two runs has these; see `gap`.

    Raises:
        ConfigError: two runs of one design, or that differ in more than the design.
        PredictionsError: they predict different things.
    """
    _refuse_other(run, other)
    designs = {_design(one): one for one in (run, other)}
    if len(designs) < 2:
        found = f"{run.folder} and {other.folder} both have {split_of(run)} and {split_of(other)}"
        raise ConfigError(f"{found}, expected one of random folds and one of folds of whole sites")
    names = {f"{design}_run": one.folder.name for design, one in designs.items()}
    return names | gap(*(designs[design].evaluation(resamples=resamples) for design in ("random", "preserved")))


def split_of(run: Run) -> str:
    """The class of its split, in one word."""
    return "none" if run.config is None else run.config.split.target.rpartition(".")[2]


def _design(run: Run) -> str:
    target = "" if run.config is None else run.config.split.target
    if target not in DESIGNS:
        known = ", ".join(one.rpartition(".")[2] for one in DESIGNS)
        raise ConfigError(f"{run.folder}: its split {split_of(run)} says nothing of sites, expected one of {known}")
    return DESIGNS[target]


def _refuse_other(run: Run, other: Run) -> None:
    """What differs beside the design would be taken for a part of the gap."""
    for one in (run, other):
        if not one.reports:
            raise ConfigError(f"{one.folder}: reports nobody, expected a run with report patients")
    for what, ours, theirs in (
        ("tool", run.tool["name"], other.tool["name"]),
        ("model", _model(run), _model(other)),
        ("encoder", run.encoder, other.encoder),
    ):
        if ours != theirs:
            raise ConfigError(f"{other.folder}: {what} {theirs}, expected {ours} as {run.folder}")
    mine, others = _targets(run), _targets(other)
    if not mine.equals(others):
        shared = len(mine.index.intersection(others.index))
        found = f"{len(others)} patients, of which {run.folder} has {shared} among its {len(mine)}"
        raise ConfigError(f"{other.folder}: {found}; expected the same patients with the same labels")


def _model(run: Run) -> str:
    said = {} if run.config is None else run.config.model.plain()
    options = " ".join(f"{key}={value}" for key, value in said.items() if key != "_target_")
    return f"{run.model.rpartition('.')[2]} {options}".strip()


def _targets(run: Run) -> pd.DataFrame:
    """Of every patient of the run."""
    rows = run.tables["predictions"].drop_duplicates("patient").set_index("patient").sort_index()
    return rows[list(run.endpoint.columns)].astype(str)

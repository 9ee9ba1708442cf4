"""Compare two runs that differ only in their folds: random folds, and folds that keep sites together."""

import pandas as pd

from mil.errors import ConfigError
from mil.runs.design_gap import DesignGap, gap
from mil.runs.run import Run
from mil.splits import by_site, folds

DESIGNS = {
    f"{split.__module__}.{split.__qualname__}": design
    for design, splits in {
        "random": (folds.KFold, folds.HoldOut, folds.Nested),
        "preserved": (by_site.SitePreserved, by_site.LeaveOneSiteOut),
    }.items()
    for split in splits
}
"""Design of each split: `preserved` keeps the patients of a site together. Roles that a user gives may do either."""


def compare_designs(first: Run, second: Run, resamples: int | None = None) -> DesignGap:
    """Compare the main metric under random folds and under folds of whole sites; the runs may come in either order.

    Raises:
        ConfigError: if both runs have the same design, or differ in more than the design.
        PredictionsError: if they predict different things.
    """
    _check_same_study(first, second)
    designs = {_design(run): run for run in (first, second)}
    if len(designs) < 2:
        splits = f"{first.folder} and {second.folder} both have {split_name(first)} and {split_name(second)}"
        raise ConfigError(f"{splits}, expected one of random folds and one of folds of whole sites")
    names = {f"{design}_run": run.folder.name for design, run in designs.items()}
    evaluations = (designs[design].evaluation(resamples=resamples) for design in ("random", "preserved"))
    return gap(*evaluations).model_copy(update=names)


def split_name(run: Run) -> str:
    """Return the class name of a run's split."""
    return "none" if run.config is None else run.config.split.target.rpartition(".")[2]


def _design(run: Run) -> str:
    target = "" if run.config is None else run.config.split.target
    if target not in DESIGNS:
        names = ", ".join(name.rpartition(".")[2] for name in DESIGNS)
        raise ConfigError(f"{run.folder}: split {split_name(run)} has no known design, expected one of {names}")
    return DESIGNS[target]


def _check_same_study(first: Run, second: Run) -> None:
    """Check that nothing but the design differs, since anything else would become part of the gap."""
    for run in (first, second):
        if not run.reports:
            raise ConfigError(f"{run.folder}: no patient has the role report, expected a run with report patients")
    for what, expected, actual in (
        ("tool", first.tool.name, second.tool.name),
        ("model", _model(first), _model(second)),
        ("encoder", first.encoder, second.encoder),
    ):
        if expected != actual:
            raise ConfigError(f"{second.folder}: {what} {actual}, expected {expected} as in {first.folder}")
    targets, second_targets = _targets(first), _targets(second)
    if not targets.equals(second_targets):
        shared = len(targets.index.intersection(second_targets.index))
        overlap = f"{len(second_targets)} patients, of which {first.folder} has {shared} among its {len(targets)}"
        raise ConfigError(f"{second.folder}: {overlap}; expected the same patients with the same labels")


def _model(run: Run) -> str:
    node = {} if run.config is None else run.config.model.plain()
    options = " ".join(f"{key}={value}" for key, value in node.items() if key != "_target_")
    return f"{run.model.rpartition('.')[2]} {options}".strip()


def _targets(run: Run) -> pd.DataFrame:
    """Return the targets of every patient of the run, as text."""
    rows = run.tables["predictions"].drop_duplicates("patient").set_index("patient").sort_index()
    return rows[list(run.endpoint.columns)].astype(str)

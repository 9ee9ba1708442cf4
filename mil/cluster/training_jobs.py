"""A training as jobs: one for each fold of each run, and a last one for each run that evaluates it."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mil.cluster.cluster_options import GROUP, ClusterOptions
from mil.cluster.job_ledger import FOLDER, LOGS
from mil.cluster.job_states import job_states, refuse_active
from mil.cluster.submission import JobGroup, check_engine, submit
from mil.errors import ConfigError, MilError, TrainingError
from mil.runs.fit_run import BegunRun, begin_run, discard_run, fit_fold, fit_run
from mil.study import trusted_classes
from mil.study.compose import Composed, read_config
from mil.study.run_config import RunConfig

logger = logging.getLogger("mil")
EVALUATION = "evaluation"
"""Name of the last job of a run."""


@dataclass(frozen=True)
class FoldUnit:
    """Train one fold; the configuration in plain values, as a class of the user's own may be in it."""

    values: Mapping[str, object]
    folder: Path
    number: int
    resumable: bool = True
    waits_for: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The fold's folder."""
        return f"fold_{self.number}"

    def run(self) -> None:
        """Train the fold, or go on where it was stopped.

        Raises:
            MilError: An error in features or training.
        """
        trusted_classes.trust(self.values)
        fit_fold(RunConfig.parse(self.values), self.folder, self.number)


@dataclass(frozen=True)
class EvaluationUnit:
    """Join the folds of a run, evaluate it, and write its report and cards."""

    values: Mapping[str, object]
    folder: Path
    waits_for: tuple[str, ...]
    name: str = field(default=EVALUATION, init=False)
    resumable: bool = field(default=False, init=False)

    def run(self) -> None:
        """Do what a single process does once all folds are trained.

        Raises:
            TrainingError: A fold is not finished, with the reason.
        """
        states = {each.job.name: each for each in job_states(self.folder / FOLDER)}
        unfinished = [states[name] for name in self.waits_for if states[name].state != "done"]
        if unfinished:
            first = unfinished[0]
            raise TrainingError(
                f"{len(unfinished)} of {len(self.waits_for)} folds are not finished; {first.job.name} {first.state}: "
                f"{first.reason or 'no reason is known'}; mil train --resume {self.folder} {GROUP}=... trains them"
            )
        trusted_classes.trust(self.values)
        fit_run(RunConfig.parse(self.values), self.folder)


def submit_runs(
    composed: Sequence[Composed], options: ClusterOptions, logs: Path | None = None, accept_changes: bool = False
) -> list[Path]:
    """Begin runs, submit their folds as one array and a last job for each, and return their folders at once.

    Args:
        composed: The runs.
        options: Of the cluster.
        logs: Folder of what the jobs print; None takes `jobs/logs` of the only run.
        accept_changes: Whether a begun run goes on with inputs that have changed since.

    Raises:
        ConfigError: The scheduler refuses, or folds of these runs are still queued or running; nothing is left behind.
        MilError: An error in options, cohort, features or split.
    """
    check_engine(options)
    for each in composed:
        if each.config.parallel > 1:
            raise ConfigError(
                f"parallel={each.config.parallel} with {GROUP}: each fold is a job; {GROUP}.most limits them"
            )
        if not each.named_by_time:
            refuse_active(each.folder / FOLDER)
    begun = list[BegunRun]()
    try:
        for each in composed:
            begun.append(
                begin_run(each.config, each.folder, accept_changes=accept_changes, always_new=each.named_by_time)
            )
        groups = list(_groups(composed, begun))
        title = f"mil-{composed[0].config.tool.name}"
        submit(groups, options, logs or begun[0].folder / FOLDER / LOGS, title)
    except (MilError, OSError):
        for run in begun:
            discard_run(run)
        raise
    folds = sum(len(group.units) for group in groups)
    logger.info(
        "submitted %d folds of %d runs to %s; mil runs RUN shows how they stand", folds, len(groups), options.engine
    )
    return [run.folder for run in begun]


def resubmit(folder: Path, options: ClusterOptions, accept_changes: bool = False) -> None:
    """Submit the folds of a run that are not finished, and a last job; errors as `submit_runs`."""
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        raise ConfigError(f"--resume {folder}: holds no config.yaml, expected a run folder")
    submit_runs([Composed(read_config(config_file), folder.absolute())], options, accept_changes=accept_changes)


def _groups(composed: Sequence[Composed], begun: Sequence[BegunRun]) -> Iterator[JobGroup]:
    for each, run in zip(composed, begun, strict=True):
        values = each.config.plain()
        units = [FoldUnit(values, run.folder, number) for number in run.unfinished]
        last = EvaluationUnit(values, run.folder, tuple(unit.name for unit in units))
        yield JobGroup(run.folder / FOLDER, run.folder, [units], last)

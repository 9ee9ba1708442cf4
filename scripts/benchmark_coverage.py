"""Coverage of every interval and error rate of every verdict that a report prints, by simulation with known truth.

usage: scripts/benchmark_coverage [--trials 200] [--jobs 1] [--studies NAME ...] [--quick] [--out docs/coverage.md]

Cohorts are simulated at the level of scores: each trial draws patients whose truth is known, makes a table of
predictions, calls the package's own sections and comparisons as `mil evaluate` and `mil compare` do, and notes whether
each interval holds the truth and whether each verdict is wrong. "Five folds": five models report a fifth of the
patients each; of areas and gaps each has its own shift of the logit (standard deviation 0.3). Survival has training
patients, as runs have: those of the other folds, of a hold-out as many further ones. Equal learners are linear
discriminants, trained anew in each fold on features of their own that are equally informative: their folds differ, and
are correlated through the patients that they share, as those of real models are. The studies are the modules of
`scripts/coverage_studies`. With `--out` the table is written again and again; cells of an existing table that are not
measured again, or that were measured in more cohorts, stay, and so does everything below the line `<!-- by hand -->`.
With `--outcomes` the outcomes of single cohorts are kept in a file, so that a run that was stopped goes on, and one
with more trials adds to them. `--quick` draws a few trials, to see that the script works.
"""

import argparse
import json
import logging
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from coverage_studies import STUDIES
from coverage_studies.measured_table import Cells, Row, page, read_cells, row_of
from coverage_studies.simulated import DESIGNS, SIZES, Truths

from mil.files import write

CHUNK = 25
"""Trials of a process at a time."""


class Job(NamedTuple):
    """Some trials of a study at one size and design."""

    study: str
    n: int
    design: str
    first: int
    """number of the first trial, which draws its cohort"""
    trials: int


def main() -> None:
    """Run every study at every size and design, and write the table."""
    options = _options()
    outcomes = _Outcomes(options.outcomes)
    jobs = [job for job in _jobs(options) if not outcomes.has(job)]
    with ProcessPoolExecutor(options.jobs, initializer=_prepare_process) as pool:
        for done, (job, truths) in enumerate(zip(jobs, pool.map(_measured, jobs), strict=True), 1):
            print(f"{done} of {len(jobs)}: {job.study}, n {job.n}, {job.design}", flush=True)
            outcomes.add(job, truths)
            if options.out is not None and (done % CHUNK == 0 or done == len(jobs)):  # as far as it is measured
                _write(options.out, outcomes)
    if options.out is None:
        table = Cells()
        table.update(outcomes.rows())
        sys.stdout.write(page(table, None))
    else:
        _write(options.out, outcomes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="simulated cohorts of each size and design")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--quick", action="store_true", help="three cohorts of 40 patients: does it run?")
    parser.add_argument("--out", type=Path, help="Markdown file; default: print the table")
    parser.add_argument("--outcomes", type=Path, help="file of single cohorts' outcomes, to go on with")
    return parser.parse_args()


def _jobs(options: argparse.Namespace) -> list[Job]:
    """Return all trials in chunks, the first of every study first, so that a run that is stopped has all rows."""
    if options.quick:
        return [Job(name, SIZES[0], design, 0, 3) for name in options.studies for design in STUDIES[name].designs]
    jobs = list[Job]()
    for name in options.studies:
        trials = round(options.trials * STUDIES[name].share)
        for n in SIZES:
            for design in STUDIES[name].designs:
                jobs += [Job(name, n, design, at, min(CHUNK, trials - at)) for at in range(0, trials, CHUNK)]
    return sorted(jobs, key=lambda job: job.first)


def _prepare_process() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def _measured(job: Job) -> list[Truths]:
    """Return the outcomes of each trial, which depend on its number alone."""
    study, folds = STUDIES[job.study], DESIGNS[job.design]
    return [
        study.trial(np.random.default_rng([trial, job.n, folds, *job.study.encode()]), job.n, folds)
        for trial in range(job.first, job.first + job.trials)
    ]


class _Outcomes:
    """Outcomes of single cohorts by study, size and design, in a file where one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._trials: dict[tuple[str, int, str], dict[int, Truths]] = defaultdict(dict)
        for line in path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else ():
            fields, truths = json.loads(line)
            self._place(Job(*fields), truths)

    def has(self, job: Job) -> bool:
        """Return whether all trials of a job have been measured."""
        measured = self._trials[job.study, job.n, job.design]
        return all(trial in measured for trial in range(job.first, job.first + job.trials))

    def add(self, job: Job, truths: list[Truths]) -> None:
        """Add the outcomes of a job."""
        self._place(job, truths)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([job, truths], default=float) + "\n")

    def rows(self) -> Iterator[Row]:
        """Yield the measured rows."""
        for (study, n, design), trials in self._trials.items():
            if study in STUDIES:
                names = dict.fromkeys(name for truths in trials.values() for name in truths)
                for name in names:
                    yield row_of(name, n, design, [truths.get(name) for truths in trials.values()])

    def _place(self, job: Job, truths: list[Truths]) -> None:
        self._trials[job.study, job.n, job.design] |= dict(enumerate(truths, job.first))


def _write(path: Path, outcomes: _Outcomes) -> None:
    table = read_cells(path)
    table.update(outcomes.rows())
    write(path, page(table, path))


if __name__ == "__main__":
    main()

"""`mil runs`: how runs and the jobs of a cluster stand; cancel jobs, and show what they print."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from mil.errors import ConfigError, printable

PLACES = ("runs", "multirun")
"""Where `mil train` puts run folders unless `hydra.run.dir` says otherwise."""
_TAIL = 20
"""Last lines of each job that `--logs` shows."""


def runs(
    run: Annotated[
        Path | None, typer.Argument(help="a run folder, or the --out of mil predict or explain; default: list all")
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="cancel its jobs that are queued or running")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="show the last lines that its jobs printed")] = False,
) -> None:
    """Show how runs and their jobs on a cluster stand: queued, running, done, failed or cancelled, and why."""
    if run is None:
        if cancel or logs:
            raise typer.BadParameter("--cancel and --logs need a run: mil runs RUN --cancel")
        sys.stdout.writelines(f"{line}\n" for line in listed())
        return
    lines = cancelled(run) if cancel else printed(run) if logs else shown(run)
    sys.stdout.writelines(f"{line}\n" for line in lines)


def listed() -> Iterator[str]:
    """Yield a line for each run below `runs/` and `multirun/`, and for each prediction that was submitted from here."""
    from mil.cluster.job_ledger import LEDGER, Ledger

    configs = sorted(path for place in PLACES for path in Path(place).rglob("config.yaml"))
    folders = [path.parent for path in configs if (path.parent / "split.csv").is_file()]
    ledgers = (Ledger.read(path.parent) for path in sorted(Path().glob(f"*.jobs/{LEDGER}")))
    results = [*folders, *(Path(ledger.result) for ledger in ledgers if ledger is not None)]
    if not results:
        yield f"no runs below {' or '.join(f'{place}/' for place in PLACES)}"
    for result in results:
        yield f"{state_of(result):<10} {printable(str(result))}"


def state_of(result: Path) -> str:
    """Return how a run, a prediction or an explanation stands, in one word."""
    from mil.cluster.job_ledger import LEDGER, jobs_folder
    from mil.cluster.job_states import job_states, overall

    jobs = jobs_folder(result)
    if (jobs / LEDGER).is_file():
        return overall(job_states(jobs)).state
    if (result / "report.json").is_file():
        return "done"
    return "running" if _is_locked(result) else "stopped"


def shown(result: Path) -> Iterator[str]:
    """Yield how each job of a result stands, and last how the result does.

    Raises:
        ConfigError: There is no such result.
    """
    from mil.cluster.job_ledger import LEDGER, jobs_folder
    from mil.cluster.job_states import job_states, overall

    jobs = jobs_folder(result)
    if (jobs / LEDGER).is_file():
        states = job_states(jobs)
        for each in states:
            yield f"  {each.job.name:<14} {each.job.id:<12} {each.state:<10} {printable(each.reason)}".rstrip()
        decisive = overall(states)
        yield f"{decisive.state} {printable(decisive.reason)}".rstrip()
    elif (result / "config.yaml").is_file():
        yield state_of(result)
    else:
        raise ConfigError(f"{result}: no run and no submitted prediction, expected a run folder or what --out named")
    yield str(result)


def cancelled(result: Path) -> Iterator[str]:
    """Cancel the jobs of a result and yield them.

    Raises:
        ConfigError: It has none that is queued or running.
    """
    from mil.cluster.job_ledger import jobs_folder
    from mil.cluster.job_states import cancel

    for job in cancel(jobs_folder(result)):
        yield f"cancelled {job.id} ({job.name})"
    yield str(result)


def printed(result: Path) -> Iterator[str]:
    """Yield the names and the last lines of the files that the jobs of a result print into.

    Raises:
        ConfigError: It has no jobs.
    """
    from mil.cluster.job_ledger import Ledger, jobs_folder

    ledger = Ledger.read(jobs_folder(result))
    if ledger is None:
        raise ConfigError(f"{result}: has no jobs; log.txt in a run folder holds what a run in one process printed")
    for job in ledger.jobs:
        for ending in ("out", "err"):
            path = Path(ledger.logs) / f"{job.id}_0_log.{ending}"
            if path.is_file() and path.stat().st_size:
                yield f"==> {job.name}: {path}"
                yield from map(printable, path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:])


def _is_locked(folder: Path) -> bool:
    from mil import files

    if not (folder / files.LOCK).is_file():
        return False
    with files.locked(folder) as free:
        return not free

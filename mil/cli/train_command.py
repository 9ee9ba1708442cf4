"""`mil train`: one run is fitted, evaluated and described; Hydra sweeps and launches several."""

import json
import logging
import multiprocessing
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mil.cli import log_lines
from mil.cli.report_place import say_where
from mil.cli.sweep_runs import Sweep, current_folder, one_error_line, print_table
from mil.cli.terminal_lines import write_lines
from mil.cluster.cluster_options import ClusterOptions, divided, options_in
from mil.cluster.job_ledger import FOLDER, LOGS
from mil.config import conf_dir
from mil.errors import ConfigError, MilError
from mil.features.feature_folders import paths_of
from mil.interruption import Interrupted
from mil.output_places import check_run_folder
from mil.slide_names import FEATURE_ENDINGS
from mil.study.available_devices import PROCESSES
from mil.study.compose import Composed, compose_run, in_one_line, prepare, validated

MULTIRUN = {"-m", "--multirun"}

logger = logging.getLogger(__name__)
SWEEP_DIR = "hydra.sweep.dir"
SWEEP_FOLDER = "+hydra.callbacks.sweep_folder._target_=mil.cli.sweep_runs.SweepFolder"


def start(words: Sequence[str], config_dir: Path | None, accept_changes: bool = False) -> None:
    """Train one run, or hand words with flags of Hydra's own (`-m`, `--cfg job`, ...) to Hydra.

    With words such as `cluster=slurm` the folds of all runs become jobs of a cluster, and the run folders are printed.

    Raises:
        MilError: Wrong options, or an error in the files that they name.
    """
    about_cluster, words = divided(words)
    cluster = options_in(about_cluster)
    flags = [word for word in words if word.startswith("-") or not ("=" in word or word.startswith("~"))]
    options = [word for word in words if word not in flags]
    if cluster is not None and (not flags or MULTIRUN & set(flags)):
        _submit(cluster, flags, options, config_dir, accept_changes)
        return
    if MULTIRUN & set(flags):
        _sweep(flags, options, config_dir)
        return
    if flags:
        _hand_to_hydra(flags, options, config_dir, _job(options, None))
        return
    from mil.cluster.job_states import refuse_active
    from mil.runs.fit_run import fit_run  # loads Lightning, which `--cfg job` and `--help` do not need

    composed = compose_run(options, config_dir)
    if not composed.named_by_time:
        refuse_active(composed.folder / FOLDER)
    run = fit_run(composed.config, composed.folder, accept_changes=accept_changes, always_new=composed.named_by_time)
    _print_result(run.folder)


def resume(folder: Path, words: Sequence[str], accept_changes: bool = False) -> None:
    """Continue a run: finished folds are kept, the one that was stopped starts from its last epoch.

    Raises:
        ConfigError: Not a run folder, or options next to it other than how many processes train: a run is resumed with
            the options it has.
    """
    about_cluster, words = divided(words)
    cluster = options_in(about_cluster)
    processes = dict(_process_option(folder, word) for word in words)
    if cluster is not None:
        if words:
            raise ConfigError(f"--resume {folder}: found {words[0]!r} with a cluster, expected one of them")
        from mil.cluster.training_jobs import resubmit

        resubmit(folder, cluster, accept_changes)
        sys.stdout.write(f"{folder}\n")
        return
    from mil.cluster.job_states import refuse_active
    from mil.runs.fit_run import resume_run

    refuse_active(folder / FOLDER)
    resume_run(folder, accept_changes, processes)
    _print_result(folder)


def _process_option(folder: Path, word: str) -> tuple[str, object]:
    """Return name and value of an option that may change when a run goes on.

    Raises:
        ConfigError: It may not.
    """
    name, _, value = word.partition("=")
    if name not in PROCESSES:
        raise ConfigError(
            f"--resume {folder}: found {word!r} beside it, a run goes on as it was configured, but for "
            f"{' and '.join(PROCESSES)}"
        )
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # the option's check refuses it


def _submit(
    cluster: ClusterOptions, flags: Sequence[str], options: Sequence[str], config_dir: Path | None, accept: bool
) -> None:
    """Submit one run, or with `-m` every run of the sweep, and print their folders.

    Raises:
        MilError: Wrong options, an error in the files that they name, or the scheduler refuses.
    """
    from mil.cluster.training_jobs import submit_runs

    if not flags:
        sys.stdout.writelines(
            f"{place}\n" for place in submit_runs([compose_run(options, config_dir)], cluster, None, accept)
        )
        return
    for word in options:
        if word.lstrip("+").startswith(("hydra/launcher", "hydra/sweeper", "parallel=")):
            raise ConfigError(f"{word} with cluster={cluster.engine}: its jobs launch the runs, expected one of them")
    collected = list[Composed]()

    def collect(node: DictConfig) -> None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        _remove_empty(folder)
        collected.append(Composed(validated(node, options), folder))

    _hand_to_hydra(flags, options, config_dir, collect)
    logs = collected[0].folder.parent / FOLDER / LOGS
    sys.stdout.writelines(f"{place}\n" for place in submit_runs(collected, cluster, logs, accept))


def _hand_to_hydra(
    flags: Sequence[str],
    options: Sequence[str],
    config_dir: Path | None,
    job: Callable[[DictConfig], object],
    more: Sequence[str] = (),
) -> None:
    folder = ["--config-dir", str(config_dir.absolute())] if config_dir else []
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then passes errors on, and `mil.cli.main` prints them in one line
    # argparse expects flags and their values (--cfg job) before the overrides, wherever the user wrote them
    sys.argv = ["mil train", *folder, *flags, *prepare(options, config_dir), *more]
    try:
        with one_error_line():
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise in_one_line(error) from None


def _sweep(flags: Sequence[str], options: Sequence[str], config_dir: Path | None) -> None:
    """Train the runs of a sweep and print a table of them."""
    _check_sweep_folder(options)
    words = _side_by_side(flags, options)
    sweep, is_stopped = Sweep.of(prepare(words, config_dir)), False
    try:
        _hand_to_hydra(flags, words, config_dir, _job(options, sweep), [SWEEP_FOLDER])
    except Interrupted as stop:
        stop.resume = _same_sweep(flags, options, config_dir) or stop.resume
        is_stopped = True
        raise
    finally:
        print_table(sweep, is_stopped)


def _same_sweep(flags: Sequence[str], options: Sequence[str], config_dir: Path | None) -> str | None:
    """Return the command that goes on with a sweep in its folder: finished runs are kept; None before it has one."""
    folder = current_folder()
    if folder is None:
        return None
    where = ["--config-dir", str(config_dir)] if config_dir is not None else []
    words = [word for word in options if word.partition("=")[0] != SWEEP_DIR]
    text = str(folder)
    name = text if re.fullmatch(r"[\w/.-]+", text) else "'{}'".format(text.replace("'", "\\'"))  # as Hydra reads it
    return shlex.join(["mil", "train", *flags, *where, *words, f"{SWEEP_DIR}={name}"])


def _check_sweep_folder(options: Sequence[str]) -> None:
    """Check the folder of a sweep as that of a run, as far as the command line names it and what is read."""
    named = {key: value.strip("'\"") for key, _, value in (word.partition("=") for word in options)}
    if SWEEP_DIR in named:
        inputs = [Path(named[key]) for key in ("data.cohort", "data.slides") if key in named]
        if "data.features" in named:
            inputs += paths_of(Path(named["data.features"].strip("[]")))
        check_run_folder(Path(named[SWEEP_DIR]), inputs, FEATURE_ENDINGS, SWEEP_DIR)


def _side_by_side(flags: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return a sweep's options with `parallel=N` as options of Hydra's launcher: runs side by side, not their folds.

    Raises:
        ConfigError: Not a number, or the launcher is not installed.
    """
    given = [word for word in options if word.partition("=")[0].lstrip("+") == "parallel"]
    if not given or not MULTIRUN & set(flags):
        return list(options)
    number = given[-1].partition("=")[2]
    if not number.isdecimal() or not int(number):
        raise ConfigError(f"parallel={number}, expected a whole number of at least 1")
    if find_spec("hydra_plugins.hydra_joblib_launcher") is None:
        raise ConfigError(f"parallel={number} with -m: runs side by side need pip install 'mil-zoo[sweep]'")
    others = [word for word in options if word not in given]
    devices = [word.partition("=")[2] for word in others if word.partition("=")[0].lstrip("+") == "trainer.devices"]
    if int(number) > 1 and devices and devices[-1] not in ("1", "auto"):
        raise _devices_side_by_side(devices[-1], number)
    return [*others, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={number}"] if int(number) > 1 else others


def _remove_empty(folder: Path) -> None:
    """Remove a run folder that Hydra has made; `fit_run` makes it anew once no error was found."""
    with suppress(OSError):  # it holds a run, or another sweep in the same place has just removed it
        folder.rmdir()


def _devices_side_by_side(devices: object, parallel: object) -> ConfigError:
    return ConfigError(
        f"trainer.devices={devices} with -m and parallel={parallel}: expected one of them; runs side by side would "
        "share the devices, several devices train one run after the other"
    )


def _job(options: Sequence[str], sweep: Sweep | None) -> Callable[[DictConfig], float | None]:
    """Return what trains one run, of a sweep if one is given; its result is the first metric, for sweepers."""

    def job(node: DictConfig) -> float | None:
        return _trained(node, options, "") if sweep is None else _trained_in_sweep(node, options, sweep)

    return job


def _trained_in_sweep(node: DictConfig, options: Sequence[str], sweep: Sweep) -> float | None:
    """Train one run of a sweep; every line that it logs, and its error, begins with what it is called."""
    job = HydraConfig.get()
    label = sweep.label(list(job.overrides.task), job.job.num)
    if job.launcher.get("n_jobs") is not None:
        _settle_in_process()
    with log_lines.labelled(label):
        logger.info("begins")
        try:
            return _trained(node, options, label)
        except MilError as error:
            raise type(error)(f"{label}: {error}") from error
        except Exception as error:
            logger.warning("ends with an error: %s", error)
            raise


def _settle_in_process() -> None:
    """Prepare a process of joblib, in which nothing is logged yet, and whose way to start processes only joblib has."""
    log_lines.speak()
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)


def _trained(node: DictConfig, options: Sequence[str], label: str) -> float | None:
    from mil.runs.fit_run import fit_run

    config = validated(node, options)
    side_by_side, count = HydraConfig.get().launcher.get("n_jobs"), config.trainer.options.device_count
    if side_by_side not in (None, 1) and count > 1:
        raise _devices_side_by_side(config.trainer.options.devices, side_by_side)
    folder = Path(HydraConfig.get().runtime.output_dir)
    _remove_empty(folder)
    run = fit_run(config, folder)
    _print_result(run.folder, label)
    return run.value


def _print_result(folder: Path, label: str = "") -> None:
    """Print what a run of a sweep is called, the metrics, and last the run folder; runs side by side do not mix."""
    from mil.report.report_files import read_report
    from mil.runs.describe import PAGE, REPORT, headline

    report = read_report(folder / REPORT)
    write_lines(*([label] if label else []), *headline(report), folder)
    say_where(folder / PAGE)

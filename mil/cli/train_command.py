"""`mil train`: one run is fitted, evaluated and described; Hydra sweeps and launches several."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mil import files
from mil.config import conf_dir
from mil.errors import ConfigError, MilError
from mil.findings import log_warnings
from mil.splits.folds import Split
from mil.study.compose import compose_run, in_one_line, prepare, read_config, validated, write_config
from mil.study.config import RunConfig
from mil.study.pipeline import prepare_study
from mil.study.study import Study

logger = logging.getLogger("mil")


def start(words: Sequence[str], config_dir: Path | None) -> None:
    """Train one run, or hand words with flags of Hydra's own (`-m`, `--cfg job`, ...) to Hydra.

    Raises:
        MilError: Wrong options, or an error in the files that they name.
    """
    flags = [word for word in words if word.startswith("-") or not ("=" in word or word.startswith("~"))]
    options = [word for word in words if word not in flags]
    if flags:
        _hand_to_hydra(flags, options, config_dir)
        return
    composed = compose_run(options, config_dir)
    _run(composed.config, composed.folder)


def _hand_to_hydra(flags: Sequence[str], options: Sequence[str], config_dir: Path | None) -> None:
    folder = ["--config-dir", str(config_dir.absolute())] if config_dir else []
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then passes errors on, and `mil.cli.main` prints them in one line
    # argparse expects flags and their values (--cfg job) before the overrides, wherever the user wrote them
    sys.argv = ["mil train", *folder, *flags, *prepare(options, config_dir)]

    def job(node: DictConfig) -> float | None:
        return _job(node, options)

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise in_one_line(error) from None


def _job(node: DictConfig, options: Sequence[str]) -> float | None:
    """Train one run of a sweep; the result is its first metric, for sweepers that optimize."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if not any(folder.iterdir()):
        folder.rmdir()  # `_run` makes it anew once nothing speaks against the run
    return _run(validated(node, options), folder)


def resume(folder: Path, words: Sequence[str]) -> None:
    """Continue a run: finished folds are kept, the one that was stopped starts from its last epoch.

    Raises:
        ConfigError: Not a run folder, or options next to it: a run is resumed with the options it has.
    """
    path = folder / "config.yaml"
    if words:
        raise ConfigError(f"--resume {folder}: found {words[0]!r} beside it, a run goes on as it was configured")
    if not path.is_file():
        raise ConfigError(f"--resume {folder}: holds no config.yaml, expected a run folder")
    _run(read_config(path), folder)


def _run(config: RunConfig, folder: Path) -> float | None:
    from mil.runs.describe import describe_run, headline
    from mil.training.run import train

    for chatty in ("lightning.pytorch", "lightning.fabric"):  # importing it has set their levels
        logging.getLogger(chatty).setLevel(logging.WARNING)
    begun = (folder / "config.yaml").exists()
    if begun:
        _refuse_other(config, folder)
    study, split = prepare_study(config, folder / "split.csv" if begun else None)
    with _made(folder), files.locked(folder) as free:
        if not free:
            raise ConfigError(f"{folder} is in use by another process, expected a folder of its own for each run")
        with _logged(folder):
            if not begun:
                log_warnings([*study.findings, *split.findings])
                _begin(config, study, split, folder)
            train(config, study, split, folder)
            value = describe_run(folder)
    sys.stdout.writelines(f"{line}\n" for line in (*headline(files.read_json(folder / "report.json")), folder))
    return value


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a run's folder; remove it again, with the parents made for it, if the run fails before its first epoch."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    new = existing != folder or not any(folder.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except (MilError, OSError):
        if new and not any(folder.rglob("last.ckpt")):
            shutil.rmtree(folder)
            for parent in folder.parents:
                if parent in (existing, *existing.parents) or any(parent.iterdir()):
                    break
                parent.rmdir()
        raise


@contextmanager
def _logged(folder: Path) -> Iterator[None]:
    """Writes what is logged to the run's own log.txt too."""
    log = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(log)
    logger.setLevel(logging.INFO)  # in a launcher's worker process nobody has
    try:
        yield
    finally:
        logger.removeHandler(log)
        log.close()


def _begin(config: RunConfig, study: Study, split: Split, folder: Path) -> None:
    """Writes what the run is of; config.yaml last, so that a folder with one has the rest."""
    from mil.report.sections.levels import wanted
    from mil.runs.run import PATIENTS, one_row_per_patient

    split.write(folder / "split.csv")
    clinic = one_row_per_patient(study.cohort.table)
    kept = clinic[wanted(clinic.columns, config.tool.plain())]
    files.write(folder / PATIENTS, kept.to_csv())
    if study.truth is not None:
        files.write(folder / "oracle.csv", (study.truth / "truth.csv").read_bytes())
    write_config(folder / "config.yaml", config)


def _refuse_other(config: RunConfig, folder: Path) -> None:
    """Check that a folder's run has the same options: the same words go on with it, different ones would mix two."""
    earlier = dict(_leaves(read_config(folder / "config.yaml").plain()))
    now = dict(_leaves(config.plain()))
    for key in sorted(earlier.keys() | now.keys()):
        if earlier.get(key) != now.get(key):
            raise ConfigError(
                f"{folder} holds a run with {key}={earlier.get(key)}, found {key}={now.get(key)}; expected a new folder"
            )


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node

"""`mil train`: Hydra composes, sweeps and launches; one run is fitted, evaluated and described."""

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
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mil import config, files
from mil.cli import check_command
from mil.cli.error_lines import told
from mil.errors import ConfigError, MilError
from mil.splits.folds import Split
from mil.study import build
from mil.study.pipeline import Study, read_study, rehearse, split_study

logger = logging.getLogger("mil")


def start(words: Sequence[str], config_dir: Path | None) -> None:
    """Hands the words to Hydra.

    Raises:
        MilError: what is wrong with them, or with what they name.
    """
    own = ["--config-dir", str(config_dir.absolute())] if config_dir else []
    # argparse wants flags and their values (--cfg job) before the overrides, wherever the user wrote them
    flags = [word for word in words if word.startswith("-") or not ("=" in word or word.startswith("~"))]
    options = build.prepared([word for word in words if word not in flags], config_dir)
    present = None if flags else _present(options, config_dir)
    if {"-m", "--multirun"} & set(flags):  # of a sweep the first values are tried
        config.compose([word.partition(",")[0] for word in options if not set("([{'\"") & set(word)], config_dir)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors pass, and they end as ours do: one line, exit code 2
    sys.argv = ["mil train", *own, *flags, *options]

    def job(settings: DictConfig) -> float | None:
        return _job(settings, present)

    entry = hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name="train")(job)
    try:
        entry()
    except (HydraException, OmegaConfBaseException) as error:
        raise config.explained(error, config_dir) from None


def _present(options: Sequence[str], config_dir: Path | None) -> Path:
    """The deepest folder on the way to the run's that exists; wrong words are refused before more is made."""
    settings, folder = config.compose_run(options, config_dir)
    build.checked(settings)
    return next(path for path in (folder, *folder.parents) if path.exists())


def _job(settings: DictConfig, present: Path | None) -> float | None:
    """One job of Hydra's: a run, or one of a sweep; its result is the first metric, for sweepers that optimise."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    fresh = not any(folder.iterdir())
    try:
        return _run(settings, folder)
    except (MilError, OSError, HydraException, OmegaConfBaseException) as error:
        if fresh and not any(folder.rglob("last.ckpt")):
            _forget(folder, present or folder.parent)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # Hydra goes on with the other jobs, and fails at the end
        known = error if isinstance(error, MilError | OSError) else config.explained(error)
        sys.stderr.write(f"mil: {told(known)}\n")
        raise SystemExit(2) from None


def resume(folder: Path, words: Sequence[str]) -> None:
    """Goes on with a run: finished folds are kept, the one that was stopped starts from its last epoch.

    Raises:
        ConfigError: no run folder, or words beside it: a run is resumed as it was.
    """
    path = folder / "config.yaml"
    if words:
        raise ConfigError(f"--resume {folder}: found {words[0]!r} beside it, a run goes on as it was configured")
    if not path.is_file():
        raise ConfigError(f"--resume {folder}: holds no config.yaml, expected a run folder")
    try:
        _run(OmegaConf.create(OmegaConf.to_container(OmegaConf.load(path))), folder)
    except (HydraException, OmegaConfBaseException) as error:
        raise config.explained(error) from None


def _run(settings: Any, folder: Path) -> float | None:
    from mil.runs.describe import describe_run, headline
    from mil.training.run import train

    for chatty in ("lightning.pytorch", "lightning.fabric"):  # importing it has set their levels
        logging.getLogger(chatty).setLevel(logging.WARNING)
    begun = (folder / "config.yaml").exists()
    if begun:
        _refuse_other(settings, folder)
    study, split = _studied(settings, folder / "split.csv" if begun else None)
    findings = [] if begun else check_command.before_training(settings, study, split)
    with files.locked(folder) as free:
        if not free:
            raise ConfigError(f"{folder} is in use by another process, expected a folder of its own for each run")
        with _logged(folder):
            for one in findings:
                logger.warning("%s", one.line)
            if not begun:
                _begin(settings, study, split, folder)
            train(settings, study, split, folder)
            value = describe_run(folder)
    sys.stdout.writelines(f"{line}\n" for line in (*headline(files.read_json(folder / "report.json")), folder))
    return value


def _studied(settings: DictConfig, given: Path | None) -> tuple[Study, Split]:
    """What is trained on, and who is where: as `given`, where the run has begun."""
    try:
        study = read_study(settings)
        rehearse(settings, study)
        patients = list(study.patients.index)
        return study, Split.read(given, patients) if given else split_study(settings, study)
    except ConfigError:
        raise
    except MilError as error:
        raise check_command.explained(settings, error) from None


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


def _begin(settings: DictConfig, study: Study, split: Any, folder: Path) -> None:
    """Writes what the run is of; config.yaml last, so that a folder with one has the rest."""
    from mil.report.sections.levels import wanted
    from mil.runs.run import PATIENTS, by_patient

    split.write(folder / "split.csv")
    clinic = by_patient(study.cohort.table)
    kept = clinic[wanted(clinic.columns, build.plain(settings.tool))]
    files.write(folder / PATIENTS, kept.to_csv())
    if study.truth is not None:
        files.write(folder / "oracle.csv", (study.truth / "truth.csv").read_bytes())
    files.write(folder / "config.yaml", OmegaConf.to_yaml(settings, resolve=True))


def _refuse_other(settings: DictConfig, folder: Path) -> None:
    """A folder holds one run: the same words go on with it, other ones would mix two."""
    then = dict(_leaves(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))))
    now = dict(_leaves(OmegaConf.to_container(settings, resolve=True)))
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            raise ConfigError(
                f"{folder} holds a run with {key}={then.get(key)}, found {key}={now.get(key)}; expected a new folder"
            )


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node


def _forget(folder: Path, present: Path) -> None:
    """Removes what was made for a run that ended before its first epoch, up to what was there before it."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    while folder not in (present, *present.parents) and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent

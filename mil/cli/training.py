"""`mil train`: Hydra composes, sweeps and launches; one run is fitted, evaluated and described."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mil import build, config, files
from mil.errors import ConfigError, MilError

logger = logging.getLogger("mil")


def start(words: Sequence[str], config_dir: Path | None) -> None:
    """Hands the words to Hydra.

    Raises:
        MilError: what is wrong with them, or with what they name.
    """
    own = ["--config-dir", str(config_dir.absolute())] if config_dir else []
    flags = [word for word in words if word.startswith("-")]
    options = build.prepared([word for word in words if not word.startswith("-")], config_dir)
    if not flags:
        config.compose(options, config_dir)  # a misspelt word is refused before a run folder exists
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors pass, and they end as ours do: one line, exit code 2
    sys.argv = ["mil train", *own, *flags, *options]
    entry = hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name="train")(_job)
    try:
        entry()
    except (HydraException, OmegaConfBaseException) as error:
        raise config.explained(error) from None


def _job(settings: DictConfig) -> float | None:
    """One job of Hydra's: a run, or one of a sweep; its result is the first metric, for sweepers that optimise."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        return _run(settings, folder)
    except MilError as error:
        _forget(folder)
        if not sweep:
            sys.stderr.write(f"mil: {error}\n")
            raise SystemExit(2) from None
        raise  # Hydra goes on with the other jobs, and fails at the end


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
    _run(OmegaConf.create(OmegaConf.to_container(OmegaConf.load(path))), folder)


def _run(settings: Any, folder: Path) -> float | None:
    from mil.data.splits import Split
    from mil.training.run import train
    from mil.zoo.report import describe_run, headline

    for chatty in ("lightning.pytorch", "lightning.fabric"):  # importing it has set their levels
        logging.getLogger(chatty).setLevel(logging.WARNING)
    study = build.study(settings)
    path = folder / "split.csv"
    split = Split.read(path, list(study.patients.index)) if path.exists() else build.split(settings, study)
    with files.locked(folder) as free:
        if not free:
            raise ConfigError(f"{folder} is in use by another process, expected a folder of its own for each run")
        _begin(settings, study, split, folder)
        train(settings, study, split, folder)
        value = describe_run(folder)
    sys.stdout.writelines(f"{line}\n" for line in (*headline(files.read_json(folder / "report.json")), folder))
    return value


def _begin(settings: DictConfig, study: build.Study, split: Any, folder: Path) -> None:
    log = logging.FileHandler(folder / "log.txt")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(log)
    if not (folder / "config.yaml").exists():
        split.write(folder / "split.csv")
        if study.truth is not None:
            files.write(folder / "oracle.csv", (study.truth / "truth.csv").read_bytes())
        files.write(folder / "config.yaml", OmegaConf.to_yaml(settings, resolve=True))


def _forget(folder: Path) -> None:
    """Removes what Hydra made for a run that never began."""
    if folder.is_dir() and not any(folder.iterdir()):
        os.removedirs(folder)

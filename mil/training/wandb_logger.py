"""Weights & Biases: one run a fold, the folds of a training in one group, and nothing of the machine in them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from mil.study.component import Component, Options

TARGET = "mil.training.wandb_logger.FoldLogger"
_PRIVATE = {
    "x_disable_meta": True,  # host, user, paths, the command's words
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "save_code": False,
    "console": "off",  # warnings may name patients
    "program": "mil",
    "host": "private",
}


class FoldLogger(WandbLogger):
    """A logger whose run ends with its fold, so that the next fold begins another."""

    def __init__(self, save_dir: str, private: bool = True, **options: Any) -> None:
        """Create the logger.

        Args:
            save_dir: Folder of the run's files.
            private: Whether host, user, paths, the command line, its output and installed packages stay out.
            options: Of Lightning's `WandbLogger` and of `wandb.init`.
        """
        if private:
            options["settings"] = with_private(options.get("settings"))
        super().__init__(save_dir=save_dir, **options)

    def finalize(self, status: str) -> None:
        """End the run."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(0 if status == "success" else 1)
            self._experiment = None


def with_private(settings: Mapping[str, object] | None) -> dict[str, object]:
    """Return settings of wandb's that keep the machine out, with the given ones: these change what they name only."""
    return _PRIVATE | dict(settings or {})


def names(logger: Component[Options], tool: str, run: Path, fold: int) -> dict[str, str]:
    """Return the name of a fold's run and its group; nothing for other loggers.

    A group is named after the tool and the digest of the run's folder, whose name and path stay out.

    Args:
        logger: As it was configured.
        tool: Name of the tool.
        run: Folder of the run.
        fold: Number of the fold.
    """
    if logger.target != TARGET:
        return {}
    group = f"{tool} {hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]}"
    return {"group": group, "name": f"{group} fold {fold}"}

"""The state of a fold that is trained: saved after each epoch and when a signal asks to stop, and read to go on."""

import io
import logging
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.plugins import CheckpointIO
from torch import Tensor

from mil import files
from mil.errors import CheckpointError
from mil.storage import check_kind

logger = logging.getLogger(__name__)
TrainerState = dict[str, Any]
"""What Lightning saves, which only Lightning and the callbacks read."""
FOLDER = "state"
"""In a fold's folder, until the fold is finished."""
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
TRAINED = "trained.pt"
"""The weights of a fold whose training is over and which is not predicted yet."""
_ENTRIES = ("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states")
"""What Lightning needs to go on."""


@dataclass(frozen=True)
class SavedState:
    """A state that can be continued.

    Attributes:
        path: Its file.
        epoch: The epoch to train next, counted from zero.
        batches: How many batches of that epoch are done.
    """

    path: Path
    epoch: int
    batches: int


class TrainedModel(NamedTuple):
    """What the end of a training leaves: Lightning would train a further epoch where it had stopped early.

    Attributes:
        weights: The best ones.
        epochs: How many were trained.
        best_epochs: From which the weights are, counted from one, that of the lowest loss first; empty: the last one.
        precision: Of the training.
    """

    weights: dict[str, Tensor]
    epochs: int
    best_epochs: list[int]
    precision: str


class SyncedFiles(CheckpointIO):
    """Writes the trainer's state next to its final place and syncs it; the state before it is kept.

    Lightning's own writer leaves hundreds of megabytes in the folder for temporary files when it is killed, and does
    not sync: after a power cut the file may be empty.
    """

    def save_checkpoint(self, checkpoint: TrainerState, path: Any, storage_options: Any | None = None) -> None:
        """Replace the state at `path`; what was there becomes `previous.ckpt`."""
        path, content = Path(path), io.BytesIO()
        torch.save(checkpoint, content)
        if path.is_dir():
            shutil.rmtree(path)
        elif path.is_file():
            _keep(path)
        files.write(path, content.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> TrainerState:
        """Return the state at `path`; its pickle is never run."""
        return _load(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a state."""
        Path(path).unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Let `previous.ckpt` be a second name of the state, which stays where it is until the new one is written."""
    previous = path.with_name(PREVIOUS)
    previous.unlink(missing_ok=True)
    try:
        previous.hardlink_to(path)
    except OSError:  # file systems without links
        path.replace(previous)


def write_trained(fold: Path, trained: TrainedModel) -> None:
    """Write what the training of a fold leaves."""
    content = io.BytesIO()
    torch.save(trained._asdict(), content)
    files.write(fold / FOLDER / TRAINED, content.getvalue())


def read_trained(fold: Path) -> TrainedModel | None:
    """Return what the training of a fold has left; None where it is not over, or the file is damaged."""
    path = fold / FOLDER / TRAINED
    if not path.is_file():
        return None
    try:
        return TrainedModel(**_load(path))
    except (CheckpointError, TypeError) as error:
        logger.warning("%s; going on from the state before", error)
        return None


def exists(folder: Path) -> bool:
    """Return whether any state was saved in a run folder or in its folds."""
    return any(folder.rglob(f"{FOLDER}/{LAST}")) or any(folder.rglob(f"{FOLDER}/{PREVIOUS}"))


def latest(fold: Path) -> SavedState | None:
    """Return the newest state of a fold that can be read; None where none was saved.

    Raises:
        CheckpointError: States were saved, and none can be read.
    """
    broken: list[str] = []
    for name in (LAST, PREVIOUS):
        path = fold / FOLDER / name
        if not path.exists():
            continue
        try:
            state = _described(path)
        except CheckpointError as error:
            broken.append(str(error))
            continue
        for reason in broken:
            logger.warning("%s; going on from %s instead, after epoch %d", reason, path.name, state.epoch)
        return state
    if broken:
        raise CheckpointError(f"{broken[0]}; remove {fold / FOLDER} to train this fold from its beginning")
    return None


def _described(path: Path) -> SavedState:
    content = _load(path)
    lacking = [name for name in _ENTRIES if name not in content] if isinstance(content, dict) else list(_ENTRIES)
    if lacking:
        raise CheckpointError(f"{path} is no state of a training: it lacks {', '.join(lacking)}")
    batches = int(content["callbacks"].get("Last", {}).get("batches", 0))
    epoch = int(content["epoch"])
    return SavedState(path, epoch if batches else epoch + 1, batches)


def _load(path: Path) -> TrainerState:
    """Return the content of a state, after comparing the digests that the file has of its parts.

    Raises:
        CheckpointError: It is damaged.
    """
    check_kind(path, CheckpointError, "a saved state")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            content: TrainerState = torch.load(path, weights_only=True, map_location="cpu")
            return content
    except Exception as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    raise CheckpointError(f"{path} is damaged: {damaged} differs from its checksum")

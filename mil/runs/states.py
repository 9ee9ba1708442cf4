"""Read and write what was fitted in each fold of a run."""

from collections.abc import Hashable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mil import checkpoint, files
from mil.errors import CheckpointError
from mil.fitted.state import FittedState
from mil.storage import read_bytes

STATES = "fitted.json"
"""What was fitted in the folds of which a folder has no checkpoint, by fold."""
_STATES = TypeAdapter(dict[int, FittedState])


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Return the checkpoint folder of each fold, in order; empty for a run that was selected from a sweep."""
    by_fold = {int(path.parent.name.removeprefix("fold_")): path for path in folder.glob("fold_*/checkpoint")}
    single = folder / "checkpoint"
    return dict(sorted(by_fold.items())) or ({0: single} if single.is_dir() else {})


def read_states(folder: Path) -> dict[Hashable, FittedState]:
    """Return what was fitted in each fold, from the checkpoints of the folds and from `fitted.json`.

    Raises:
        CheckpointError: if a file holds no fitted states.
    """
    path, states = folder / STATES, dict[Hashable, FittedState]()
    if path.is_file():
        try:
            states.update(_STATES.validate_json(read_bytes(path)).items())
        except ValidationError as error:
            first = error.errors()[0]
            raise CheckpointError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return states | {fold: checkpoint.unverified(place).fitted for fold, place in checkpoints_in(folder).items()}


def write_states(folder: Path, states: Mapping[Hashable, FittedState]) -> None:
    """Write `fitted.json` with all that reports apply; novelty, which they do not need, is left out."""
    reported = {int(str(fold)): state.model_copy(update={"novelty": None}) for fold, state in states.items()}
    files.write(folder / STATES, _STATES.dump_json(reported, indent=2).decode() + "\n")

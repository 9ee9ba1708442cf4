"""Count how often the report patients of a run were looked at: each look is one more chance to choose by them."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mil import __version__, files
from mil.errors import PredictionsError
from mil.storage import read_bytes

FILE = "looks.json"


class Look(BaseModel):
    """One look at the report patients."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    when: str | None = None
    what: str | None = None
    """the command that looked"""
    version: str | None = None
    predictions_sha256: str | None = None


_LOOKS = TypeAdapter(list[Look])


def count_look(folder: Path, what: str) -> int:
    """Record a look and return at how many different tables of predictions there was one.

    Evaluating the same predictions again gives nothing new to choose by; every look is still recorded. The file is
    replaced as a whole: if two processes look at the same moment one look may be lost, but the file stays intact.

    Args:
        folder: Folder of the run, with its `predictions.csv`.
        what: The command that looks.

    Raises:
        PredictionsError: if the file holds something else than looks.
    """
    predictions = folder / "predictions.csv"
    look = Look(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        what=what,
        version=__version__,
        predictions_sha256=files.sha256(predictions) if predictions.is_file() else None,
    )
    recorded = [*read_looks(folder), look]
    files.write_json(folder / FILE, _LOOKS.dump_python(recorded))
    return len({look.predictions_sha256 for look in recorded})


def changed_predictions(folder: Path) -> str | None:
    """Return a sentence where a run's predictions are not those that training wrote; None where they are.

    The first look, by `mil train`, recorded their digest. Runs without it cannot be compared.

    Args:
        folder: Folder of the run, with its `predictions.csv`.
    """
    first = next((look for look in read_looks(folder) if look.what == "train"), None)
    if first is None or first.predictions_sha256 is None:
        return None
    if files.sha256(folder / "predictions.csv") == first.predictions_sha256:
        return None
    when = "" if first.when is None else f" on {first.when[:10]}"
    return (
        f"predictions.csv is not what training wrote{when}: it was changed, and every number is of the changed table."
    )


def read_looks(folder: Path) -> list[Look]:
    """Return all recorded looks, in order.

    Raises:
        PredictionsError: if the file holds something else.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        return _LOOKS.validate_json(read_bytes(path))
    except ValidationError as error:
        raise PredictionsError(f"{path}: {error.errors()[0]['msg']}, expected a list of looks") from None

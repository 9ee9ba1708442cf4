"""How often the report patients of a run were looked at: each look is one more chance to choose by them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mil import __version__, files
from mil.errors import PredictionsError

FILE = "looks.json"


def looked(folder: Path, what: str) -> int:
    """Notes a look, and says at how many tables of predictions there was one, this among them.

    Who evaluates the same predictions again has nothing new to choose by; every look is in the file all the same.

    The file is replaced whole: of two processes at the same moment one look may go uncounted, none spoils the file.

    Args:
        folder: Of the run, with its `predictions.csv`.
        what: The verb that looks.

    Raises:
        PredictionsError: the file holds something else than looks.
    """
    found = looks(folder)
    predictions = folder / "predictions.csv"
    found.append(
        {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "what": what,
            "version": __version__,
            "predictions_sha256": files.sha256(predictions) if predictions.is_file() else None,
        }
    )
    files.write_json(folder / FILE, found)
    return len({look.get("predictions_sha256") for look in found})


def looks(folder: Path) -> list[dict[str, Any]]:
    """All looks noted, in order.

    Raises:
        PredictionsError: the file holds something else.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        found = files.read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PredictionsError(
            f"{path}: is no JSON ({' '.join(str(error).split())}), expected a list of looks"
        ) from None
    if not isinstance(found, list) or not all(isinstance(look, dict) for look in found):
        raise PredictionsError(f"{path}: a {type(found).__name__}, expected a list of looks")
    return found

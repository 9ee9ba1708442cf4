"""Read tables of predictions from disk: ids and labels stay text, scores are read to the last bit."""

from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import pandas as pd

from mil.errors import PredictionsError
from mil.storage import check_kind, read_bytes
from mil.tables import MOST_BYTES, without_marks


def read(path: Path, text: Collection[str] = ()) -> pd.DataFrame:
    """Return a CSV file as a table; ids such as `001` and labels such as `NA` stay as they are written.

    Args:
        path: Of the file.
        text: Columns that are read as text, besides `patient`.

    Raises:
        PredictionsError: the file is not a table, is larger than `MOST_BYTES`, or is a pipe or a device.
    """
    types = dict.fromkeys(("patient", *text), str)
    check_kind(path, PredictionsError, "a table of predictions")
    raw = read_bytes(path, PredictionsError, MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise PredictionsError(f"{path}: has more than {MOST_BYTES >> 20} MiB, expected a table of predictions")
    try:
        table = pd.read_csv(BytesIO(raw), dtype=types, keep_default_na=False, float_precision="round_trip")
        return without_marks(table)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise PredictionsError(f"{path}: is no table of predictions: {' '.join(str(error).split())}") from None

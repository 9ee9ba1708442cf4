"""Read tables of predictions from disk: ids and labels stay text, scores are read to the last bit."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from mil.errors import PredictionsError
from mil.files import special_kind
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
    if (kind := special_kind(path)) is not None:
        raise PredictionsError(f"{path}: cannot be read: it is {kind}, expected a table of predictions")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise PredictionsError(f"{path}: has more than {MOST_BYTES >> 20} MiB, expected a table of predictions")
        return without_marks(pd.read_csv(path, dtype=types, keep_default_na=False, float_precision="round_trip"))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise PredictionsError(f"{path}: is no table of predictions: {' '.join(str(error).split())}") from None

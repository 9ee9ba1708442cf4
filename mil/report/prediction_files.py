"""Tables of predictions on disk: ids and labels stay text, scores come back to the last bit."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from mil.errors import PredictionsError


def read(path: Path, text: Collection[str] = ()) -> pd.DataFrame:
    """A CSV whose `patient` and `text` columns are kept as written, `001` and `NA` included.

    Raises:
        PredictionsError: the file is no table.
    """
    kept = dict.fromkeys(("patient", *text), str)
    try:
        return pd.read_csv(path, dtype=kept, keep_default_na=False, float_precision="round_trip")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise PredictionsError(f"{path}: is no table of predictions: {' '.join(str(error).split())}") from None

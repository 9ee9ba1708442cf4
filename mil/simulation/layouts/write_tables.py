"""Files beside the features that a producer's own software needs to open a cohort."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.tables import csv_text

WriteTables = Callable[[Path, pd.DataFrame, Sequence[str]], None]
"""Takes the folder of the cohort, its rows with `patient` and `slide`, and the columns that are predicted."""


def write_stamp_tables(folder: Path, cohort: pd.DataFrame, targets: Sequence[str]) -> None:
    """`clini.csv` with `PATIENT` and what is predicted, `slide.csv` with `PATIENT` and `FILENAME`, below `features`."""
    patients = cohort.drop_duplicates("patient").drop(columns="slide").rename(columns={"patient": "PATIENT"})
    (folder / "clini.csv").write_text(csv_text(patients), encoding="utf-8")
    files = pd.DataFrame({"PATIENT": cohort["patient"], "FILENAME": cohort["slide"] + ".h5"})
    (folder / "slide.csv").write_text(csv_text(files), encoding="utf-8")


def write_torchmil_labels(folder: Path, cohort: pd.DataFrame, targets: Sequence[str]) -> None:
    """`features/labels/<slide>.npy`, one number for each column that is predicted.

    Classes are numbered in sorted order. A missing class is -1, a missing number NaN.
    """
    columns = [_numbers(cohort[target]) for target in targets]
    place = folder / "features" / "labels"
    place.mkdir()
    for slide, label in zip(cohort["slide"], np.column_stack(columns), strict=True):
        np.save(place / f"{slide}.npy", label)


def _numbers(values: "pd.Series[Any]") -> NDArray[np.number]:
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy()
    return pd.Categorical(values).codes.astype(np.int64)


TABLES: Mapping[str, WriteTables] = {"stamp": write_stamp_tables, "torchmil": write_torchmil_labels}
"""By layout; other producers' software needs none."""

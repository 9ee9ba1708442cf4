"""Results that are withheld because a bag is unlike those of training.

A bag is judged by its own tiles. Where a patient has several bags (`data.bag=slide`), each counts as much as the others
in the patient's score, so one flagged bag withholds the patient's result.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.errors import CheckpointError
from mil.fitted.novelty import Novelty

WITHHELD = "withheld"
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
_SENTENCE = re.compile(r"(It has|Its features|The mean) .*")
_NOT_EMPTIED = ["patient", "slide", "tiles", WITHHELD]


class RowBags(NamedTuple):
    """The bags behind the rows of a table of scores."""

    row: NDArray[np.int64]
    """row of the table that each bag belongs to, `(b,)`"""
    names: Sequence[str]
    """of the bags, for the reason that is given; `b`"""
    tiles: NDArray[np.int64]
    """number of tiles, `(b,)`"""
    means: NDArray[np.float64] | None
    """mean features, `(b, d)`"""


def reasons(novelty: Novelty, bags: RowBags, rows: int) -> list[str]:
    """Return why each row's result is withheld, by the first of its bags that is flagged; empty where it is not.

    Raises:
        CheckpointError: features of another width than the training bags had.
    """
    by_row = [""] * rows
    has_several = np.bincount(bags.row, minlength=rows) > 1
    for bag, (row, name) in enumerate(zip(bags.row, bags.names, strict=True)):
        if by_row[row]:
            continue
        try:
            reason = novelty.judge(None if bags.means is None else bags.means[bag], int(bags.tiles[bag]))
        except ValueError as error:
            raise CheckpointError(f"novelty: {error}") from None
        if reason:
            by_row[row] = f"{name}: {reason}" if has_several[row] else reason
    return by_row


def withhold(table: pd.DataFrame, by_row: Sequence[str]) -> pd.DataFrame:
    """Add column `withheld` with each row's reason, and empty all scores and calls of the rows that have one."""
    out, has_reason = table.assign(**{WITHHELD: list(by_row)}), np.array([bool(reason) for reason in by_row])
    for name in out.columns.difference(_NOT_EMPTIED):
        out[name] = out[name].mask(has_reason, np.nan if pd.api.types.is_numeric_dtype(out[name]) else "")
    return out


def withheld_summary(table: pd.DataFrame) -> str | None:
    """Return how many results of a table are withheld and why, the most frequent reason first; None where none is.

    Reasons that differ in numbers only count as one, and the first of each kind is quoted.
    """
    if WITHHELD not in table:
        return None
    reasons_given = [str(reason) for reason in table[WITHHELD].fillna("") if reason]
    if not reasons_given:
        return None
    kinds: dict[str, list[str]] = {}
    for reason in reasons_given:
        sentence = _SENTENCE.search(reason)
        quoted = reason if sentence is None else sentence.group()
        kinds.setdefault(_NUMBER.sub("#", quoted), []).append(quoted)
    most_first = sorted(kinds.values(), key=len, reverse=True)
    why = "; ".join(f"{len(alike)}: {alike[0]}" for alike in most_first)
    return f"{len(reasons_given)} of {len(table)} results are withheld. {why}"

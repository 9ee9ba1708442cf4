import numpy as np
import pandas as pd

from mil.fitted.withholding import WITHHELD, withheld_summary

FEW = "It has {} tiles, and the tool needs 50 or more."
FAR = "Its features are too far from those of the 80 training bags: {} standard deviations beyond their usual distance."


def table(*reasons: str | float) -> pd.DataFrame:
    return pd.DataFrame({"patient": range(len(reasons)), WITHHELD: list(reasons)})


def test_nothing_is_said_where_nothing_is_withheld() -> None:
    assert withheld_summary(table("", np.nan)) is None
    assert withheld_summary(pd.DataFrame({"patient": [1]})) is None


def test_reasons_are_counted_by_kind_with_the_most_frequent_first() -> None:
    rows = table(
        FAR.format("7.25"), FEW.format(12), "", f"slide-3: {FEW.format(7)}", f"2 of 3 members: {FEW.format(9)}"
    )
    assert withheld_summary(rows) == f"4 of 5 results are withheld. 3: {FEW.format(12)}; 1: {FAR.format('7.25')}"

"""Predict with several tools in one pass over the features; checkpoints of one tool predict together (`ensemble`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from mil.checkpoint import Checkpoint
from mil.errors import MilError
from mil.features.feature_folders import feature_folders
from mil.features.formats import DETECTED, Reading
from mil.findings import warnings_once
from mil.fitted.withholding import WITHHELD
from mil.inference.ensemble import same_tool, together
from mil.inference.predict import PredictionInputs, predict_each, readings_of
from mil.inference.provenance import TOOL, VERSION, with_origin
from mil.slide_names import file_stem
from mil.tables import SIMULATED_COLUMN


@dataclass(frozen=True)
class ToolPredictions:
    """The predictions of several tools for the same patients or slides.

    Attributes:
        tables: By the name of the tool, each the table that the tool alone would give.
        left_out: Why tools gave no table, by name.
    """

    tables: Mapping[str, pd.DataFrame]
    left_out: Mapping[str, str]

    def index(self) -> pd.DataFrame:
        """Return one row for each tool: what it is, the file for its table, and why it gave none.

        Returns:
            Columns `tool`, `version`, `simulated`, `file`, `rows`, `withheld` (number of results) and `left_out` (the
            reason); those with a table first.
        """
        rows = [_index_row(name, table) for name, table in self.tables.items()]
        rows += [(name, "", "", "", "", "", reason) for name, reason in self.left_out.items()]
        columns = (TOOL, VERSION, SIMULATED_COLUMN, "file", "rows", WITHHELD, "left_out")
        return pd.DataFrame(rows, columns=columns, dtype=object)


def _index_row(name: str, table: pd.DataFrame) -> tuple[object, ...]:
    withheld = int((table[WITHHELD].fillna("") != "").sum()) if WITHHELD in table else 0
    version, is_simulated = (table[column].iloc[0] if len(table) else "" for column in (VERSION, SIMULATED_COLUMN))
    return name, version, is_simulated, f"{file_stem(name)}.csv", len(table), withheld, ""


def by_tool(checkpoints: Sequence[Checkpoint]) -> dict[str, list[Checkpoint]]:
    """Return the checkpoints of each tool, by its name, in the order of the first of each."""
    groups: dict[str, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        groups.setdefault(checkpoint.manifest.tool.name, []).append(checkpoint)
    return groups


def predict_tools(
    checkpoints: Sequence[Checkpoint],
    inputs: PredictionInputs,
    reading: Reading = DETECTED,
    only_fitting: bool = False,
) -> ToolPredictions:
    """Return the predictions of each tool, with columns that say where they come from; every slide is read once.

    Args:
        checkpoints: One of each tool, or several, which predict together.
        inputs: What is predicted.
        reading: How files that leave it open are read; what it leaves open is as in each tool's training.
        only_fitting: Leave out tools that cannot predict these features, such as those of another encoder, and say
            why; otherwise they are an error.

    Raises:
        MilError: As in `predict`, with the tool's name; or as in `same_tool`; or no tool fits.
    """
    groups = by_tool(checkpoints)
    for members in groups.values():
        if len(members) > 1:
            same_tool(members, any_encoder=bool(feature_folders(inputs.features)))
    errors: dict[str, MilError] = {}

    def leave_out(checkpoint: Checkpoint, error: MilError) -> bool:
        name = checkpoint.manifest.tool.name
        if not only_fitting:
            raise type(error)(f"{name}: {error}" if len(groups) > 1 else str(error)) from error
        errors.setdefault(name, error)
        return True

    ordered = [member for members in groups.values() for member in members]
    readings = [each for members in groups.values() for each in readings_of(members, reading)]
    with warnings_once():
        tables = iter(predict_each(ordered, readings, inputs, leave_out))
        by_name = {name: [next(tables) for _ in members] for name, members in groups.items()}
    if len(errors) == len(groups):
        name, error = next(iter(errors.items()))
        raise type(error)(f"none of {len(groups)} tools can predict these features; the first, {name}: {error}")
    complete = {name: [table for table in each if table is not None] for name, each in by_name.items()}
    return ToolPredictions(
        {
            name: with_origin(together(members, complete[name]), members)
            for name, members in groups.items()
            if name not in errors
        },
        {name: str(error) for name, error in errors.items()},
    )

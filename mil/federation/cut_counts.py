"""The counts behind cuts that hospitals fitted together, from which a release chooses the same cuts again.

Cuts of a federation are not those of the scores themselves: they are chosen by numbers of patients on a declared grid,
to whose cells scores are rounded down (`mil.federation.measures`), and lie at the edge of a cell. The numbers come from
the predictions, where simulated patients of all sites are in one place, else from the totals over sites that the
coordinator saw. It keeps them in its folder; they are part of no download, release, report or card.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from mil import files
from mil.endpoints.endpoint import Endpoint
from mil.errors import CheckpointError, MilError
from mil.federation.measures import DECLARED, PlanMeasure, ScoreGrid, patients_of, plan_measures
from mil.fitted.decision import Decision
from mil.fitted.specification import Specification
from mil.manifest import Manifest

Floats = NDArray[np.float64]
FOLDER = "state"


class CellCounts(BaseModel):
    """Patients by cell, of one answer to one question.

    Attributes:
        cells: Cells with a patient or more, increasing.
        patients: Their number in each of these cells.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cells: list[int]
    patients: list[int]


class CutCounts(BaseModel):
    """Patients of all sites by answer and cell, for each decision.

    Attributes:
        grid: Whose cells are counted.
        decisions: By the name of the measure: those with answer no, and those with answer yes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    grid: ScoreGrid
    decisions: dict[str, tuple[CellCounts, CellCounts]]

    @classmethod
    def of(cls, totals: Mapping[str, Floats]) -> "CutCounts":
        """Return the cells with patients of some arrays `(2, cells)`."""
        return cls(
            grid=DECLARED, decisions={name: (_sparse(rows[0]), _sparse(rows[1])) for name, rows in totals.items()}
        )

    def array(self, name: str) -> Floats:
        """Return the patients of one decision by answer and cell, `(2, cells)`.

        Raises:
            CheckpointError: The decision was not counted.
        """
        if name not in self.decisions:
            raise CheckpointError(f"{name}: was not counted, found {', '.join(self.decisions) or 'nothing'}")
        counts = np.zeros((2, self.grid.cells))
        for answer, cells in enumerate(self.decisions[name]):
            counts[answer, cells.cells] = cells.patients
        return counts

    def write(self, folder: Path, fold: int) -> None:
        """Write them to the coordinator's run folder."""
        files.write(counts_path(folder, fold), self.model_dump_json() + "\n")


def _sparse(row: Floats) -> CellCounts:
    cells = np.flatnonzero(row)
    return CellCounts(cells=cells.tolist(), patients=row[cells].round().astype(int).tolist())


def counts_path(folder: Path, fold: int) -> Path:
    """Return where a coordinator's run folder has the counts of a fold."""
    return folder / FOLDER / f"cut_counts_{fold}.json"


def read_counts(folder: Path, fold: int) -> CutCounts | None:
    """Return the counts of a fold; None where the folder has none.

    Raises:
        CheckpointError: The file is not what it should be.
    """
    path = counts_path(folder, fold)
    if not path.is_file():
        return None
    try:
        return CutCounts.model_validate(files.read_json(path))
    except ValidationError as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())[:200]}") from None


def declared_grid(manifest: Manifest) -> ScoreGrid | None:
    """Return the grid on which the cuts of a manifest were chosen; None for a model that was trained in one place."""
    record = (manifest.training.model_extra or {}).get("federation")
    if not isinstance(record, dict):
        return None
    return ScoreGrid.model_validate(cast(Mapping[str, object], record.get("grid", DECLARED.model_dump())))


def count_predictions(table: pd.DataFrame, endpoint: Endpoint, tool: Specification) -> CutCounts:
    """Return the counts of patients whose predictions are here.

    Args:
        table: Of one fold, columns `patient` and `role`, targets and scores.
        endpoint: What was predicted.
        tool: Whose decisions are counted.
    """
    by_patient, totals = table.set_index("patient"), dict[str, Floats]()
    for item in plan_measures(tool, endpoint):
        if item.measure is not None:
            totals[item.measure.name] = item.measure.counts(by_patient[by_patient["role"] == item.measure.role])
    return CutCounts.of(totals)


def choose_again(counts: CutCounts, endpoint: Endpoint, tool: Specification) -> list[Decision]:
    """Return the decisions of a tool whose cuts patients set, chosen by these counts as hospitals chose them.

    Raises:
        CheckpointError: The counts are on another grid than that of this version.
    """
    if counts.grid != DECLARED:
        raise CheckpointError(f"counts on a grid of {counts.grid.cells} cells, this version has {DECLARED.cells}")
    return [
        decision
        for item in plan_measures(tool, endpoint)
        if item.requested and item.measure is not None
        for decision in _chosen(item, counts.array(item.measure.name))
    ]


def _chosen(item: PlanMeasure, counts: Floats) -> list[Decision]:
    """Return the decision, or nothing where these patients cannot set its cuts."""
    assert item.measure is not None
    patients = patients_of(item.plan, item.measure, counts)
    try:
        fitted = item.plan.fit(patients, patients)
    except MilError:
        return []
    return [fitted.model_copy(update={"name": f"{item.prefix}{fitted.name}"})]

"""`tiles.parquet` and `tiles.csv`: a row a tile, of all patients."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from mil.errors import ConfigError
from mil.explain.tile_scores import PatientScores
from mil.tables import csv_text

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

TABLE, CSV_TABLE = "tiles.parquet", "tiles.csv"


def has_parquet() -> bool:
    """Return whether the extra `mil-zoo[parquet]` is installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


class TileTable:
    """A table of tiles that grows by one patient after the other, so that memory holds one patient at a time.

    Columns: patient, slide, x, y, width, height (level-0 pixels; missing where features have no coordinates), and a
    column `method:output` for each score. Files have a temporary name until `close`.
    """

    def __init__(self, folder: Path, parquet: bool = True, csv: bool = False) -> None:
        """Begin the table.

        Raises:
            ConfigError: `parquet` without the extra.
        """
        if parquet and not has_parquet():
            raise ConfigError(f"{TABLE} needs pyarrow: pip install 'mil-zoo[parquet]' (or ask for csv)")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._parquet, self._csv = folder, parquet, csv
        self._columns: list[str] | None = None
        self._writer: ParquetWriter | None = None
        self._text: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def add(self, patient: PatientScores) -> None:
        """Add the tiles of a patient.

        Raises:
            ConfigError: The patient has other methods or outputs than the first.
        """
        frame = patient.frame()
        frame.insert(0, "patient", patient.patient)
        if self._columns is not None and list(frame.columns) != self._columns:
            raise ConfigError(
                f"patient '{patient.patient}' has the columns {', '.join(frame.columns[6:])}, "
                f"expected those of the first: {', '.join(self._columns[6:])}"
            )
        first = self._columns is None
        self._columns = list(frame.columns)
        if self._parquet:
            from pyarrow import Table
            from pyarrow.parquet import ParquetWriter

            table = Table.from_pandas(frame, preserve_index=False)
            if self._writer is None:
                self._writer = ParquetWriter(_unfinished(self._folder / TABLE), table.schema)
            self._writer.write_table(table)
        if self._csv:
            if self._text is None:
                self._text = _unfinished(self._folder / CSV_TABLE).open("w", encoding="utf-8", newline="")
            text = csv_text(frame)
            self._text.write(text if first else text.partition("\n")[2])

    def close(self) -> list[Path]:
        """Finish the files and return them; none where no patient was added."""
        paths = list[Path]()
        for handle, name in ((self._writer, TABLE), (self._text, CSV_TABLE)):
            if handle is not None:
                handle.close()
                paths.append(_unfinished(self._folder / name).replace(self._folder / name))
        self._writer = self._text = None
        return paths

    def discard(self) -> None:
        """Remove what was written."""
        for handle, name in ((self._writer, TABLE), (self._text, CSV_TABLE)):
            if handle is not None:
                handle.close()
                _unfinished(self._folder / name).unlink(missing_ok=True)
        self._writer = self._text = None


def join_parquet(parts: Sequence[Path], out: Path) -> None:
    """Write tables of patients one after the other, as `TileTable` writes them: a row group for each patient.

    Args:
        parts: `tiles.parquet` of parts of the patients.
        out: The table of all.
    """
    from pyarrow.parquet import ParquetFile, ParquetWriter

    unfinished = _unfinished(out)
    with ParquetFile(parts[0]) as first, ParquetWriter(unfinished, first.schema_arrow) as writer:
        for path in parts:
            with ParquetFile(path) as part:
                for group in range(part.num_row_groups):
                    writer.write_table(part.read_row_group(group))
    unfinished.replace(out)


def join_csv(parts: Sequence[Path], out: Path) -> None:
    """Write `tiles.csv` of parts of the patients one after the other."""
    unfinished = _unfinished(out)
    with unfinished.open("w", encoding="utf-8", newline="") as joined:
        for at, path in enumerate(parts):
            with path.open(encoding="utf-8", newline="") as part:
                header = part.readline()
                joined.write("" if at else header)
                shutil.copyfileobj(part, joined)
    unfinished.replace(out)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")

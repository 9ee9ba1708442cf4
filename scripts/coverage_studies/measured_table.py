"""The table of measured rates in Markdown: written, read again, and merged cell by cell."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from coverage_studies.simulated import DESIGNS

Kind = Literal["coverage", "error", "mean"]
TOLERANCE = 0.03
FEW = 0.0138
"""Monte-Carlo error of a coverage from fewer than 250 cohorts."""
BY_HAND = "<!-- by hand -->"
"""Below this line the page is kept as it is."""
NOMINAL: Mapping[str, tuple[Kind, float]] = {
    "wrongly called different": ("error", 0.05),
    "wrongly called better": ("error", 0.05),
    "gap wrongly above zero": ("error", 0.05),
    "wrongly called heterogeneous": ("error", 0.05),
    "wrongly told from its site": ("error", 0.05),
    "wrongly worth more": ("error", 0.025),
    "mean sensitivity of a cut for 0.95": ("mean", 0.95),
    "flags of known slides": ("mean", 0.01),
    "wrongly below 0.05": ("error", 0.05),
    "mean coverage of sets for 0.90": ("mean", 0.90),
    "mean sensitivity of the lower cut for 0.95": ("mean", 0.95),
    "mean specificity of the upper cut for 0.95": ("mean", 0.95),
}


class Row(NamedTuple):
    """One measured coverage or error rate."""

    name: str
    n: int
    design: str
    nominal: float
    kind: Kind
    measured: float
    error: float
    """Monte-Carlo standard error"""
    trials: int
    undefined: float
    """share of the trials in which there was no interval or verdict"""


def row_of(name: str, n: int, design: str, outcomes: Sequence[bool | float | None]) -> Row:
    """Return the rate of a row, of the trials in which there was an interval or verdict."""
    kind, nominal = nominal_of(name)
    values = [float(value) for value in outcomes if value is not None]
    count, undefined = len(values), len(outcomes) - len(values)
    measured = float(np.mean(values)) if count else float("nan")
    spread = (nominal * (1 - nominal)) ** 0.5 if kind != "mean" else float(np.std(values)) if count else 0.0
    error = spread / max(1, count) ** 0.5
    return Row(name, n, design, nominal, kind, measured, error, count, undefined / max(1, len(outcomes)))


def nominal_of(name: str) -> tuple[Kind, float]:
    """Return what a row is measured against: errors and means are named so, all others are 95% intervals."""
    for ending, (kind, nominal) in NOMINAL.items():
        if name.endswith(ending):
            return kind, nominal
    return "coverage", 0.95


class Cells:
    """The cells of the table by name, design and size, as they are written."""

    def __init__(self) -> None:
        self.nominal: dict[str, str] = {}
        self.cells: dict[tuple[str, str, int], str] = {}

    def update(self, rows: Iterable[Row]) -> None:
        """Write measured rows over their cells, but for cells of more cohorts."""
        for row in rows:
            self.nominal[row.name] = f"{row.nominal:g}"
            at = row.name, row.design, row.n
            if row.trials and round(row.error, 3) <= _error_of(self.cells.get(at)):
                self.cells[at] = _cell(row)

    def lines(self) -> Iterator[str]:
        """Yield the table in Markdown."""
        designs = [design for design in DESIGNS if any(key[1] == design for key in self.cells)]
        sizes = sorted({key[2] for key in self.cells})
        heads = ["what", "nominal", *(f"{design}, n {n}" for design in designs for n in sizes)]
        yield f"| {' | '.join(heads)} |"
        yield "|" + "---|" * len(heads)
        for name, nominal in self.nominal.items():
            cells = [self.cells.get((name, design, n), "·") for design in designs for n in sizes]
            yield f"| {name} | {nominal} | {' | '.join(cells)} |"

    def unsafe(self) -> list[str]:
        """Return the cells on the unsafe side, with what they are about."""
        return [
            f"{name} ({design}, n {n}: {cell.strip('*').split(' ')[0]})"
            for (name, design, n), cell in self.cells.items()
            if cell.startswith("**")
        ]


def read_cells(path: Path) -> Cells:
    """Return the cells of an existing file; none where there is no such file."""
    table = Cells()
    rows = (
        [line for line in path.read_text(encoding="utf-8").splitlines() if line[:2] == "| "] if path.is_file() else []
    )
    split = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows]
    heads = next((row[2:] for row in split if row[0] == "what"), [])
    for name, nominal, *cells in (row for row in split if row[0] != "what" and len(row) == len(heads) + 2):
        table.nominal[name] = nominal
        for head, cell in zip(heads, cells, strict=True):
            design, _, n = head.rpartition(", n ")
            if cell != "·":
                table.cells[name, design, int(n)] = cell
    return table


def page(table: Cells, path: Path | None) -> str:
    """Return the page; of an existing file what stands below `BY_HAND` is kept."""
    lines = [
        "# What intervals and verdicts hold",
        "",
        "Measured by `scripts/benchmark_coverage`: simulated cohorts with known truth, the package's own sections and",
        "comparisons, 200 bootstrap resamples. Each cell is the measured rate ± its Monte-Carlo standard error, which",
        "says how many cohorts were drawn; `·` marks a size for which the report gives no interval or verdict.",
        "**Bold**: further than 0.03 from nominal on the unsafe side; *italics*: the safe side (intervals wider,",
        "verdicts rarer than promised). Cells of fewer than 250 cohorts (error above 0.0138) are marked where they are",
        "off by two errors more; they settle nothing finer.",
        "",
        *table.lines(),
        "",
        *_notes(table),
    ]
    page = "\n".join(lines) + "\n"
    old = path.read_text(encoding="utf-8") if path is not None and path.is_file() else ""
    return page + (f"\n{BY_HAND}{old.partition(BY_HAND)[2]}" if BY_HAND in old else "")


def _cell(row: Row) -> str:
    shown = f"{row.measured:.3f} ± {row.error:.3f}"
    if row.undefined > 0.01:
        shown += f" ({row.undefined:.0%} without)"
    mark = {1: "**", -1: "*", 0: ""}[_side(row)]
    return f"{mark}{shown}{mark}"


def _error_of(cell: str | None) -> float:
    """Return the Monte-Carlo error of a written cell, which falls with the number of cohorts."""
    return float(cell.strip("*").split(" ")[2]) if cell else float("inf")


def _side(row: Row) -> int:
    """Return 1 where a rate is off by more than the tolerance on the unsafe side, -1 on the safe side, else 0."""
    off = row.measured - row.nominal if row.kind == "error" or row.nominal < 0.5 else row.nominal - row.measured
    noise = 2 * row.error if row.error > FEW else 0.0
    return int(np.sign(off)) if abs(off) > TOLERANCE + noise + 1e-9 else 0


def _notes(table: Cells) -> Iterator[str]:
    yield f"Outside the tolerance on the unsafe side: {'; '.join(table.unsafe()) or 'none'}."
    yield ""
    yield "Hold-out: the question is about the trained models. Five folds: single intervals are about the trained"
    yield "models (their second interval about the method), differences of learners about the method, trained anew."
    yield ""
    yield "Where the methods are: `mil/stats/delong.py` (areas), `mil/stats/jackknife.py` (average precision, kappa,"
    yield "metrics of numbers), `mil/stats/corrected_resampled.py` and `mil/report/paired_difference.py` (is better),"
    yield "`mil/stats/label_permutation.py` (gaps), `mil/stats/site_signature.py` (sites), `mil/stats/max_type.py`"
    yield "(bands), `mil/stats/random_effects.py` (sites together), `mil/stats/d_calibration.py`,"
    yield "`mil/report/verdict_minimum.py` (how few are too few)."

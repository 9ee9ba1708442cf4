"""Every estimate of a model is shown on the page and is a row of the card, whatever the model is."""

from pydantic import Field

from mil.report.page.outline import block_of, rows_of
from mil.report.schema import Block, Confusion, Curve, Estimate, Model, Sentence, Table

AUROC = Estimate(value=0.904, low=0.851, high=0.95, method="DeLong", counts={"n": 200, "positives": 30})
PPV = Estimate.missing("nobody has the call", {"n": 0})


class Cell(Model):
    """A subgroup."""

    level: str
    n: int
    estimate: Estimate = Field(title="AUROC")
    calls: dict[str, int] = Field(default={})
    confusion: Confusion | None = None


class Content(Model):
    """A section with a field of every type."""

    verdict: Sentence | None = None
    cutoff: float | None = None
    log_rank_p: float | None = None
    auroc: Estimate
    by_class: dict[str, Estimate] = Field(default={})
    cells: tuple[Cell, ...] = ()
    curve: Curve | None = None
    confusion: Confusion | None = None


def every_table(block: Block) -> list[Table]:
    """Return the tables of a block and of the blocks below it."""
    return [*block.tables, *(table for below in block.blocks for table in every_table(below))]


def cells_of(block: Block) -> list[str]:
    """Return all cells of all tables."""
    return [cell for table in every_table(block) for row in (table.columns, *table.rows) for cell in row]


def test_an_estimate_is_a_row_with_interval_patients_and_method() -> None:
    block = block_of("Discrimination", Content(auroc=AUROC))
    assert block.heading == "Discrimination"
    assert block.tables[0].rows == (("AUROC", "0.904 (0.851 to 0.950)", "n 200, positives 30", "DeLong"),)


def test_plain_fields_are_facts_and_a_p_is_never_zero() -> None:
    block = block_of("Survival", Content(auroc=AUROC, cutoff=0.5, log_rank_p=1e-9))
    assert block.tables[0].rows == (("Cutoff", "0.500"), ("Log rank p", "< 0.001"))


def test_a_sentence_is_read_before_the_tables() -> None:
    assert block_of("", Content(auroc=AUROC, verdict="Well calibrated.")).sentences == ("Well calibrated.",)


def test_models_of_one_kind_are_a_table_with_a_row_each() -> None:
    matrix = Confusion(classes=("no", "yes"), calls=("out", "in"), rows=((1, 2), (3, 4)))
    cells = (Cell(level="female", n=200, estimate=AUROC, confusion=matrix), Cell(level="male", n=3, estimate=PPV))
    block = block_of("", Content(auroc=AUROC, cells=cells))
    [listing] = block.blocks
    assert listing.tables[0].columns == ("Level", "n", "AUROC")
    assert listing.tables[0].rows == (
        ("female", "200", "0.904 (0.851 to 0.950)"),
        ("male", "3", "not estimable: nobody has the call, n 0"),
    )
    assert listing.tables[0].note == "95% intervals: DeLong."
    assert [below.heading for below in listing.blocks] == ["female"]
    assert listing.blocks[0].tables[0].rows == (("no", "1", "2"), ("yes", "3", "4"))


class Ratio(Model):
    """An estimate with what it is made of."""

    expected: float
    estimate: Estimate


class Ratios(Model):
    """Estimates with a field beside them, alone and in a record."""

    metric: str = "auroc"
    ratio: Ratio
    rows: tuple[Ratio, ...] = ()


def test_an_estimate_with_a_field_beside_it_is_one_row() -> None:
    ratio = Ratio(expected=0.25, estimate=AUROC)
    block = block_of("", Ratios(ratio=ratio, rows=(ratio, ratio)))
    assert block.tables[0].rows == (("Metric", "AUROC"),)
    assert block.tables[1].rows == (
        ("Ratio", "0.904 (0.851 to 0.950)", "n 200, positives 30, expected 0.250", "DeLong"),
    )
    assert block.blocks[0].tables[0].rows == (("0.250", "0.904 (0.851 to 0.950), n 200"),) * 2


def test_a_curve_is_left_to_the_figures() -> None:
    curve = Curve(x=(0.0, 0.25), y=(0.0, 0.7125))
    assert "0.712" not in " ".join(cells_of(block_of("", Content(auroc=AUROC, curve=curve))))


def test_every_estimate_is_a_row_that_names_its_place() -> None:
    cells = (Cell(level="female", n=200, estimate=AUROC), Cell(level="male", n=3, estimate=PPV))
    rows = list(rows_of(Content(auroc=AUROC, by_class={"BRAF": PPV}, cells=cells)))
    assert [(row.label, row.source) for row in rows] == [
        ("AUROC", "auroc"),
        ("By class: BRAF", "by_class.BRAF"),
        ("Cells: female: AUROC", "cells[0].estimate"),
        ("Cells: male: AUROC", "cells[1].estimate"),
    ]
    assert [row.estimate for row in rows] == [AUROC, PPV, AUROC, PPV]


def test_every_row_is_found_on_the_page() -> None:
    cells = (Cell(level="female", n=200, estimate=AUROC), Cell(level="male", n=3, estimate=PPV))
    content = Content(auroc=AUROC, by_class={"BRAF": PPV}, cells=cells)
    shown = " ".join(cells_of(block_of("", content)))
    assert all(str(row.estimate) in shown for row in rows_of(content))

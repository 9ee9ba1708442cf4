"""Every figure of every kind of endpoint: that it is there, and that its files depend on its numbers alone."""

import re
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.several import Several
from mil.endpoints.survival import Cox
from mil.report.assemble import evaluate
from mil.report.evaluation import Evaluation
from mil.report.figures import draw
from mil.report.figures.roc import roc
from mil.report.figures.style import WIDTH, save
from mil.report.schema import section_classes
from tests.report import tables
from tests.report.tables import refitted

from .cases import CASES, drawn, evaluated


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_endpoint_has_its_figures(name: str) -> None:
    written = drawn(name)
    assert list(written) == [f"{figure}.{kind}" for figure in CASES[name]().figures for kind in ("png", "svg")]
    files = list(written.values())
    for png, svg in zip(files[::2], files[1::2], strict=True):
        assert int.from_bytes(png[16:20], "big") == pytest.approx(200 * WIDTH, abs=1)
        assert 5_000 < len(png) < 400_000
        text = svg.decode()
        assert 3_000 < len(text) < 400_000
        assert "<text" in text
        assert "<script" not in text
        assert re.search("<dc:date>|<dc:creator>|http://matplotlib.org", text) is None


def test_every_figure_belongs_to_a_kind_of_endpoint() -> None:
    captions = {name for section in section_classes() for name in section.captions}
    elsewhere = {"tile_maps", "instability"}
    assert captions - elsewhere == {name for case in CASES.values() for name in case().figures}
    assert elsewhere <= captions, "of explanations, see tests/explain, and of a run's models, see tests/runs"


@pytest.mark.parametrize("name", ["competing_risks", "regression"])
def test_the_same_numbers_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    evaluation, report = evaluated(name)
    before, pyplot = dict(mpl.rcParams), "matplotlib.pyplot" in sys.modules
    mixed = evaluation.table.sample(frac=1, random_state=0)
    shuffled = Evaluation.of(mixed, evaluation.endpoint, evaluation.tool, states=evaluation.states)
    again = draw(shuffled, report, tmp_path / "another" / "figures")
    assert drawn(name) == {path.name: path.read_bytes() for path in again}
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot
    assert b"tEXt" not in again[0].read_bytes()


def test_a_band_is_drawn_from_the_evaluations_seed(tmp_path: Path) -> None:
    evaluation, report = evaluated("binary")
    bytes_of = []
    for name in ("one", "two"):
        figure = roc(evaluation, report)
        assert figure is not None
        bytes_of.append([path.read_bytes() for path in save(figure, tmp_path, name)])
    assert bytes_of[0] == bytes_of[1]


def test_what_cannot_be_scored_is_drawn_as_not_estimable(tmp_path: Path) -> None:
    classes = Multiclass(classes=("a", "b", "c"))
    cases: list[tuple[Endpoint, pd.DataFrame]] = [
        (Binary(), tables.binary().assign(label=0)),
        (Cox(), tables.survival().assign(event=0)),
        (classes, tables.multiclass().assign(label="a")),
    ]
    for endpoint, table in cases:
        evaluation = refitted(table, endpoint, resamples=5)
        drawn_files = {path.name: path for path in draw(evaluation, evaluate(evaluation), tmp_path)}
        first = drawn_files["kaplan_meier.svg" if isinstance(endpoint, Cox) else "roc.svg"]
        assert "not estimable" in first.read_text()


def test_figures_of_several_endpoints_begin_with_the_endpoints_name(tmp_path: Path) -> None:
    endpoint = Several({"first": Binary()})
    evaluation = refitted(tables.binary(), endpoint, resamples=5)
    names = [path.name for path in draw(evaluation, evaluate(evaluation), tmp_path)]
    assert "first_roc.svg" in names
    assert all(name.startswith("first_") for name in names)

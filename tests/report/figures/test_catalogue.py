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
from mil.report.evaluation import Evaluation
from mil.report.figures import FIGURES, draw
from mil.report.figures.roc import roc
from mil.report.figures.style import WIDTH, save
from tests.report import tables

from .cases import CASES, drawn, evaluated, reported


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
    assert set(FIGURES) == {name for case in CASES.values() for name in case().figures}


@pytest.mark.parametrize("name", ["competing_risks", "regression"])
def test_the_same_numbers_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    evaluation, report = evaluated(name)
    before, pyplot = dict(mpl.rcParams), "matplotlib.pyplot" in sys.modules
    mixed = evaluation.table.sample(frac=1, random_state=0)
    again = draw(mixed, evaluation.endpoint, report, tmp_path / "another" / "figures")
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
        evaluation = Evaluation.refitted(table, endpoint, resamples=5)
        report = reported(evaluation) | {"metrics": {endpoint.metric: {"value": None, "low": None, "high": None}}}
        first, *_ = (path for path in draw(evaluation, endpoint, report, tmp_path) if path.suffix == ".svg")
        assert "not estimable" in first.read_text()


def test_several_endpoints_at_once_have_no_figure_of_their_own(tmp_path: Path) -> None:
    table = tables.binary()
    assert draw(table, Several({"one": Binary()}), {"metrics": {}}, tmp_path) == []

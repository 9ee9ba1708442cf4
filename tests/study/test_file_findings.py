"""Findings from comparing the slides of a cohort with the feature files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from mil.cohort.clinical_table import without_files
from mil.errors import FeatureError
from mil.features.formats import Header
from mil.findings import Finding
from mil.study import file_findings

HEADER = Header(5, 8, "float16", "uni", "TRIDENT", 512, 0.5, True)
MANY = [f"s{number:02d}" for number in range(30)]


def missing_files(
    slides: Sequence[str], files: Sequence[str], on_missing: Literal["error", "skip"] = "error"
) -> list[Finding]:
    return without_files(pd.DataFrame({"slide": list(slides)}), files, on_missing)


def test_no_findings_if_slides_and_files_match() -> None:
    assert missing_files(MANY, MANY) == []
    assert file_findings.without_slides(MANY, MANY, Path("x")) == []


def test_unmatched_slides_and_files_are_counted() -> None:
    (finding,) = missing_files(MANY, MANY[:18])
    assert (finding.severity, finding.code, finding.count, finding.first) == (
        "error",
        "no-file",
        12,
        tuple(MANY[18:28]),
    )
    assert finding.message == "12 of 30 slides have no feature file; data.on_missing=skip leaves them out"
    assert finding.line.endswith("'s27' and 2 more")
    (finding,) = file_findings.without_slides(MANY, MANY[:18], Path("x"))
    assert (finding.severity, finding.count, finding.first) == ("warning", 12, tuple(MANY[18:28]))
    assert missing_files(MANY, MANY[:18], "skip")[0].severity == "warning"


def test_nothing_in_common_is_an_error_with_names_of_both_sides() -> None:
    (finding,) = missing_files(["a", "b"], ["x"], "skip")
    assert (finding.severity, finding.line) == (
        "error",
        "none of 2 slides has a feature file: the table names 'a', 'b', the files 'x'",
    )
    assert file_findings.without_slides(["x"], ["a", "b"], Path("x")) == []


def test_unreadable_files_are_counted_and_the_first_explained() -> None:
    broken: dict[str, Header | FeatureError] = {"a": FeatureError("a.h5 is no HDF5"), "b": HEADER}
    (finding,) = file_findings.unreadable(broken)
    assert (finding.severity, finding.line, finding.count) == ("error", "a.h5 is no HDF5", 1)
    (finding,) = file_findings.unreadable(broken | {"c": FeatureError("c.h5 is empty")}, "warning")
    assert finding.message == "2 of 3 feature files cannot be used (the first: a.h5 is no HDF5)"
    assert (finding.severity, finding.first) == ("warning", ("a", "c"))


def test_slides_without_tiles_are_reported() -> None:
    (finding,) = file_findings.empty({"a": HEADER, "b": replace(HEADER, tiles=0)})
    assert (finding.count, finding.first) == (1, ("b",))
    assert file_findings.empty({"a": HEADER}) == []


@pytest.mark.parametrize(
    ("bare", "model", "severity"),
    [(["b"], None, "warning"), (["a", "b"], None, None), (["b"], "transmil", "error"), (["a", "b"], "x", "error")],
)
def test_severity_of_missing_coordinates_depends_on_the_model(
    bare: list[str], model: str | None, severity: str | None
) -> None:
    headers = {slide: replace(HEADER, has_coords=slide not in bare) for slide in ("a", "b")}
    findings = file_findings.without_positions(headers, model)
    assert [finding.severity for finding in findings] == ([severity] if severity else [])
    if findings:
        assert findings[0].first == tuple(bare)


def test_bags_below_the_tool_s_minimum_are_said_beforehand() -> None:
    tiles = {"a": 12, "b": 49, "c": 50, "d": 800}
    assert file_findings.below_minimum(tiles, None) == []
    assert file_findings.below_minimum(tiles, 12) == []
    (some,) = file_findings.below_minimum(tiles, 50)
    assert (some.severity, some.code, some.count, some.first) == ("warning", "few-tiles", 2, ("a", "b"))
    assert "2 of 4 bags have fewer tiles than the 50 of tool.novelty.min_tiles (bags have 12 to 800)" in some.message
    (every,) = file_findings.below_minimum(tiles, 1000)
    assert "every prediction would be withheld" in every.message

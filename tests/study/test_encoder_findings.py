"""Encoders that were pretrained on slides of the cohort."""

import pytest

from mil.features.encoders import Encoder
from mil.study.encoder_findings import pretrained_on

TCGA = [f"TCGA-AA-{number:04d}-01Z-00-DX1" for number in range(4)]
LOCAL = ["1", "2", "3"]


@pytest.mark.parametrize(
    ("cohorts", "slides", "name", "count"),
    [
        (["TCGA"], TCGA + LOCAL, None, 4),
        (["TCGA-COAD"], TCGA, None, 4),
        (["Mass-100K", "GTEx"], TCGA, None, None),
        (["CPTAC"], ["C3L-00001-21", "C3N-00002-22", "x"], None, 2),
        (["TCGA"], LOCAL, None, None),
        (["PAIP"], LOCAL, "paip", 3),
        (["PAIP"], LOCAL, "ours", None),
        ([], TCGA, "TCGA", None),
    ],
)
def test_slides_seen_in_pretraining_are_counted(
    cohorts: list[str], slides: list[str], name: str | None, count: int | None
) -> None:
    findings = pretrained_on(Encoder("e", 8, pretrained_on=tuple(cohorts)), slides, name)
    assert [finding.count for finding in findings] == ([] if count is None else [count])
    assert all(finding.severity == "warning" and "pretrained on" in finding.message for finding in findings)

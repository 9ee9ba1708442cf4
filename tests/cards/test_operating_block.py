"""Block 10 and the first screen say of each frozen cut what it is, and nothing of two cuts in one row."""

import re
from functools import cache
from xml.etree import ElementTree as ET

from mil.cards import card
from mil.cards.card_facts import Facts
from mil.cards.chai import NAMESPACE, chai
from mil.cards.operating_block import at_the_cut
from mil.endpoints.classification import Binary
from mil.report.assemble import evaluate
from mil.report.page.html import html
from mil.report.schema import Report
from mil.report.sections.operating_point import OperatingPoint
from mil.zoo.index import facts_box
from tests.report.tables import binary, refitted

from .test_card import manifest

ZONES = {"rule": "two_cuts", "low": 0.2, "high": 0.6}


@cache
def report() -> Report:
    return evaluate(refitted(binary(), Binary(), {"decision": ZONES}, resamples=10))


def decision() -> OperatingPoint:
    point: OperatingPoint = report().operating_points.decisions[0]
    return point


def test_the_first_screen_has_the_undecided_before_the_two_cuts() -> None:
    point = decision()
    lower, upper = point.at_cuts
    assert point.undecided is not None
    fields = at_the_cut(Facts(manifest(Binary()), report(), Binary()))
    assert [field.name for field in fields] == [
        "Undecided, class 1",
        "At the lower cut, class 1",
        "At the upper cut, class 1",
    ]
    assert str(point.undecided) in fields[0].text
    assert fields[1].text == (
        f"sensitivity {lower.sensitivity.described}, specificity {lower.specificity.described}, "
        f"NPV {_described(lower, 'npv')}, ruled out {_described(lower, 'ruled_out')}"
    )
    assert fields[2].text == (
        f"sensitivity {upper.sensitivity.described}, specificity {upper.specificity.described}, "
        f"PPV {_described(upper, 'ppv')}, ruled in {_described(upper, 'ruled_in')}"
    )
    assert [field.source.rpartition(".")[2] for field in fields] == ["undecided", "at_cuts[0]", "at_cuts[1]"]
    box = facts_box(manifest(Binary()), report())
    assert box.index("Undecided, class…") < box.index("At the lower") < box.index("At the upper")


def test_card_xml_and_page_have_each_cut_in_its_own_rows() -> None:
    point = decision()
    text = card(manifest(Binary()), Binary(), report(), [])
    root = ET.fromstring(chai(manifest(Binary()), Binary(), report()))
    labels = {element.text or "" for element in root.iter(f"{{{NAMESPACE}}}Label")}
    words = re.sub(r"<[^>]+>", " ", html(report(), {}, "title", "banner"))
    assert point.undecided is not None
    for at in point.at_cuts:
        for name, estimate in at.estimates():
            assert f"decisions[0].at_cuts[{point.at_cuts.index(at)}].{name}" in text
            assert any(f"({at.name}), 1: {estimate.described}" in label for label in labels), name
            assert str(estimate) in words
    assert f"Undecided, 1: {point.undecided.described}" in labels


def _described(at: object, name: str) -> str:
    return str(getattr(at, name).described)

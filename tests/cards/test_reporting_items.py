"""Each item of TRIPOD+AI has a place, and the places that it names exist on every card."""

import re

import pytest

from mil.cards.card_content import BLOCKS, card_content
from mil.cards.card_facts import Facts
from mil.cards.reporting_items import addresses, items_table, reporting_items
from mil.cards.statements import CardStatements
from tests.report.figures.cases import CASES, evaluated

from .test_card import manifest


def facts(name: str, simulated: bool = True, statements: CardStatements | None = None) -> Facts:
    evaluation, report = evaluated(name)
    sealed = manifest(evaluation.endpoint, simulated)
    return Facts(sealed, report, evaluation.endpoint, (), "- First.", statements=statements or CardStatements())


def test_the_items_are_the_27_of_the_checklist_in_order() -> None:
    numbers = [item.item for item in reporting_items()]
    mains = [int(re.match(r"\d+", number)[0]) for number in numbers]  # type: ignore[index]
    assert sorted(set(mains)) == list(range(1, 28))
    assert mains == sorted(mains)
    assert len(numbers) == len(set(numbers)) == 52


@pytest.mark.parametrize("name", CASES)
def test_every_place_that_an_item_names_exists_on_the_card(name: str) -> None:
    given = facts(name)
    names = [set(addresses(block(given))) for block in BLOCKS]
    for item in reporting_items():
        assert item.first_page or item.answered, item.item
        for number, fields in item.answered.items():
            assert fields
            assert [field for field in fields if field not in names[number]] == [], (item.item, number)


def test_an_item_that_nobody_answered_is_not_stated_and_one_that_somebody_did_is_answered() -> None:
    def answers(given: Facts) -> dict[str, str]:
        return {row[0]: row[3] for row in items_table([block(given) for block in BLOCKS]).rows}

    bare, full = facts("binary", False), facts("binary", False, CardStatements(funding="A fund", period="2020"))
    assert answers(bare)["18a"] == "not stated: “Funding”"
    assert answers(full)["18a"] == "block 20: “Funding”"
    assert answers(bare)["5b"] == "not stated: “Dates”"
    assert answers(full)["5b"] == "block 7: “Dates”"
    assert answers(facts("binary"))["5b"] == "does not apply: “Dates”"
    assert answers(bare)["1"] == "first page"


def test_the_table_stands_on_the_card() -> None:
    assert [row[0] for row in card_content(facts("survival")).items.rows] == [item.item for item in reporting_items()]

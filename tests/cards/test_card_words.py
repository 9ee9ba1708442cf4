"""What a reader of a card clicks on, and words in it that could be taken for something else."""

import re
from typing import Annotated

from mil.cards import card
from mil.report.page.outline import rows_of
from mil.report.page.words import written
from mil.report.schema import PAGE_ONLY, Estimate, Model
from mil.stats.estimate import format_counts
from tests.report.figures.cases import evaluated

from .test_card import manifest


def test_the_report_and_the_predictions_are_one_click_away() -> None:
    evaluation, report = evaluated("binary")
    for simulated, changelog, links in (
        (
            True,
            "- First.",
            ["report.html", "report.json", "predictions.csv", "patients.csv", "manifest.json", "model_card.html"],
        ),
        (True, "", ["report.html", "report.json", "manifest.json", "model_card.html"]),
        (False, "- First.", ["report.html", "report.json", "manifest.json", "model_card.html"]),
    ):
        sealed = manifest(evaluation.endpoint, simulated)
        text = card(sealed, evaluation.endpoint, report, [], changelog=changelog)
        first = text.split("<details>")[0]
        assert re.findall(r"\]\(([\w.]+)\)", first) == links
        assert ("The predictions stay at the training site." in first) != simulated


def test_a_class_that_is_called_by_a_number_is_not_taken_for_one() -> None:
    assert format_counts({"n": 9, "0": 4, "low": 5}) == "n 9, class 0: 4, low 5"
    assert format_counts({"n": 9, "MSS": 4}) == "n 9, MSS 4", "a class keeps its letters"


def test_large_numbers_have_one_decimal_and_small_ones_two_digits() -> None:
    assert [written(value) for value in (72.0, 9.384, 0.15, 0.00012)] == ["72.0", "9.384", "0.150", "0.00012"]


class Covered(Model):
    """Something of which there may be several."""

    name: str
    coverage: Estimate


class AtTime(Model):
    """An estimate at a time."""

    time: float
    estimate: Estimate


class Several(Model):
    """Several of both, and some that the card leaves to the page."""

    drawn: Annotated[tuple[AtTime, ...], PAGE_ONLY] = ()

    questions: tuple[Covered, ...] = ()
    times: tuple[AtTime, ...] = ()


def test_a_record_is_named_only_where_there_are_others_to_tell_it_from() -> None:
    number = Estimate(value=0.9, low=0.8, high=0.95, counts={"n": 9})
    single, second = Covered(name="MSI", coverage=number), Covered(name="BRAF", coverage=number)
    assert [row.label for row in rows_of(Several(questions=(single,)))] == ["Coverage"]
    assert [row.label for row in rows_of(Several(questions=(single, second)))] == ["MSI: Coverage", "BRAF: Coverage"]
    times = tuple(AtTime(time=time, estimate=number) for time in (12.0, 24.0))
    assert [row.label for row in rows_of(Several(times=times))] == ["12", "24"]
    assert list(rows_of(Several(drawn=times))) == []

"""The sentence on whether a map can be believed, and what of the measures a report keeps."""

import pytest

from mil.explain.pages.beliefs import belief, beliefs
from mil.report.compact_faithfulness import POINTS, compact
from mil.report.schema import Curve, Estimate
from mil.report.sections.explanations import ON_CARD, Faithfulness, MapFaithfulness


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, level=0.95, method="percentile", counts={"n": 20})


def measured(
    gain: Estimate, random: Estimate | None = None, telling: Estimate | None = None, output: str = "MSI-H"
) -> MapFaithfulness:
    curve = Curve(x=tuple(at / 100 for at in range(101)), y=tuple(at / 7 for at in range(101)))
    return MapFaithfulness(
        method="single",
        title="tile alone",
        output=output,
        unit="log odds",
        srg=gain,
        deletion=curve,
        deletion_least_first=curve,
        insertion=curve,
        insertion_least_first=curve,
        randomised=random,
        telling=telling,
    )


GOOD = estimate(0.4, 0.3, 0.5)


@pytest.mark.parametrize(
    ("row", "start", "believable"),
    [
        (measured(GOOD), "Yes", True),
        (measured(GOOD, estimate(0.2, 0.1, 0.3)), "Yes", True),
        (measured(GOOD, estimate(0.9, 0.8, 0.95)), "No, a model that has learnt nothing", False),
        (measured(estimate(0.1, -0.1, 0.3)), "Not shown", False),
        (measured(estimate(-0.3, -0.4, -0.2)), "No, it points the wrong way", False),
        (measured(GOOD, None, estimate(0.3, 0.2, 0.4)), "No, it points the wrong way", False),
        (measured(GOOD, None, estimate(0.45, 0.35, 0.55)), "Yes", True),
        (measured(Estimate.missing("one slide")), "Not known: one slide", None),
    ],
)
def test_a_map_is_believed_for_what_was_measured(row: MapFaithfulness, start: str, believable: bool | None) -> None:
    said = belief(row)
    assert said.sentence.startswith(start)
    assert said.believable is believable
    assert (row.srg.value is None) or "n 20" in said.numbers


def test_few_patients_are_no_yes() -> None:
    few = GOOD.model_copy(update={"counts": {"n": 2}})
    assert belief(measured(few)).believable is None
    assert belief(measured(few)).sentence.startswith("Perhaps, as to where: the result rested")
    assert "2 patients measured" in belief(measured(few)).sentence
    assert belief(measured(estimate(-0.3, -0.4, -0.2).model_copy(update={"counts": {"n": 2}}))).believable is False


def test_each_method_and_output_has_a_sentence() -> None:
    assert set(beliefs(Faithfulness(maps=(measured(GOOD), measured(GOOD, output="MSS"))))) == {
        ("single", "MSI-H"),
        ("single", "MSS"),
    }
    assert beliefs(None) == {}


def test_a_report_keeps_the_estimates_and_few_points() -> None:
    rows = tuple(measured(estimate(1 / 3, -2 / 3, 4 / 3), output=name) for name in "abcdef")
    kept = compact(Faithfulness(maps=rows))
    assert [each.output for each in kept.maps] == list("abcdef")
    assert kept.maps[0].srg.value == 0.3333
    assert kept.maps[0].deletion.x == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert len(kept.maps[0].deletion.y) == POINTS
    assert len(kept.model_dump_json()) < 0.2 * len(Faithfulness(maps=rows).model_dump_json())
    assert {row.label.partition(",")[0] for row in kept.card_rows()} == set("abcdef"[:ON_CARD])

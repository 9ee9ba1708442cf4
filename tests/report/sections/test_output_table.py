"""Beside each output stands what it means, and how many of 1,000 patients get it."""

import numpy as np

from mil.endpoints.classification import Binary, Multiclass
from mil.report.page.html import html
from mil.report.schema import Confusion, Estimate, Report
from mil.report.sections.operating_point import CallRate, OperatingPoint
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.output_table import of_a_thousand, output_table
from mil.report.sections.subgroups import Subgroups
from tests.report.tables import binary, multiclass, refitted, survival

ZONES = {
    "rule": "two_cuts",
    "low": 0.2,
    "high": 0.6,
    "outputs": [{"name": name, "meaning": f"It means {name}."} for name in ("unlikely", "unknown", "likely")],
}


def points(decision: dict[str, object]) -> OperatingPoints:
    section = OperatingPoints.compute(refitted(binary(), Binary(), {"decision": decision, "prevalences": [0.05]}))
    assert section is not None
    return section


def test_patients_with_an_output_and_the_positives_among_them_are_counted() -> None:
    (point,) = points(ZONES).decisions
    assert point.calls == ("unlikely", "unknown", "likely")
    assert [output.meaning for output in point.outputs] == [f"It means {name}." for name in point.calls]
    assert "outputs" not in point.rule
    reported = binary().query("role == 'report'")
    zone, label = np.digitize(reported["p_1"], [0.2, 0.6]), reported["label"].to_numpy()
    observed, assumed = of_a_thousand(point).values()
    for at, name in enumerate(point.calls):
        share, positives = np.mean(zone == at), np.mean((zone == at) & (label == 1))
        assert observed[name] == f"{1000 * share:.0f}, of whom {1000 * positives:.0f} class 1"
        hits, alarms = np.mean(zone[label == 1] == at), np.mean(zone[label == 0] == at)
        assert assumed[name] == f"{50 * hits + 950 * alarms:.0f}, of whom {50 * hits:.0f} class 1"
    table = output_table(point)
    assert table is not None
    assert [row[:2] for row in table.rows] == [(name, f"It means {name}.") for name in point.calls]
    assert table.columns[2:] == tuple(of_a_thousand(point))
    assert "0.05 class 1 (assumed)" in table.columns[3]


def test_the_page_says_what_each_output_means() -> None:
    section = points(ZONES)
    page = html(Report(sections={section.key: section}), {}, "title", "banner")
    for text in ("It means unlikely.", "It means unknown.", "0.050 (assumed)", "Of 1,000 at 0.05 class 1 (assumed)"):
        assert (text in page) == (text != "0.050 (assumed)")


def test_undecided_patients_of_subgroups_are_counted_whatever_the_zone_is_called() -> None:
    evaluation = refitted(binary(), Binary(), {"decision": ZONES})
    evaluation.reported["site"] = "A"
    section = Subgroups.compute(evaluation)
    (point,) = points(ZONES).decisions
    assert point.undecided is not None
    if section is not None:
        assert section.rows[0].undecided == point.undecided


def test_the_likeliest_class_and_groups_are_counted_as_observed() -> None:
    outputs = [{"name": name, "meaning": f"It means {name}."} for name in ("first", "second", "third", "none")]
    rule = {"rule": "argmax", "abstain_below": 0.6, "outputs": outputs}
    section = OperatingPoints.compute(refitted(multiclass(), Multiclass(classes=("a", "b", "c")), {"decision": rule}))
    plain = OperatingPoints.compute(
        refitted(multiclass(), Multiclass(classes=("a", "b", "c")), {"decision": {**rule, "outputs": []}})
    )
    assert section is not None
    assert plain is not None
    (point,), (unnamed,) = section.decisions, plain.decisions
    assert point.calls == ("first", "second", "third", "none")
    assert (point.accuracy, point.recall, point.abstained) == (unnamed.accuracy, unnamed.recall, unnamed.abstained)
    (texts,) = of_a_thousand(point).values()
    assert point.confusion is not None
    rows = np.array(point.confusion.rows)
    assert texts["second"] == f"{1000 * rows[:, 1].sum() / 90:.0f}, of whom {1000 * rows[1, 1] / 90:.0f} b"
    assert texts["none"] == f"{1000 * rows[:, 3].sum() / 90:.0f}"


def test_groups_are_counted() -> None:
    from mil.endpoints.survival import Cox

    rule = {"rule": "quantiles", "cuts": [0.5], "outputs": ZONES["outputs"][:2]}  # type: ignore[index]
    section = OperatingPoints.compute(refitted(survival(), Cox(), {"decision": rule}))
    assert section is not None
    (point,) = section.decisions
    (texts,) = of_a_thousand(point).values()
    counts = {group.name: group.counts["n"] for group in point.groups}
    assert texts == {name: f"{1000 * n / 120:.0f}" for name, n in counts.items()}
    assert list(counts) == ["unlikely", "unknown"]


def test_a_class_named_by_a_number_is_not_read_as_a_count() -> None:
    point = OperatingPoint(
        name="1",
        rule={},
        calls=("0", "1"),
        cuts=((0.5,),),
        prevalence=Estimate(value=0.5),
        confusion=Confusion(classes=("0", "1"), calls=("0", "1"), rows=((5, 0), (1, 4))),
        per_1000=tuple(
            CallRate(call=call, positive=positive, estimate=Estimate(value=value))
            for call, positive, value in (("0", False, 500), ("0", True, 100), ("1", False, 0), ("1", True, 400))
        ),
    )
    [(heading, texts)] = of_a_thousand(point).items()
    assert heading == "Of 1,000 at 0.500 class 1 (observed)"
    assert texts == {"0": "600, of whom 100 class 1", "1": "400, of whom 400 class 1"}

"""The first screen tells what matters, in order: whom, how well, what was asked, calibration, then simpler models."""

import pytest

from mil.report.first_screen import first_screen
from mil.report.page.html import html
from mil.report.schema import About, Estimate, Report
from mil.report.sections.baseline_model import Baseline
from mil.report.sections.calibration import Calibration
from mil.runs.describe import headline
from tests.report.figures.cases import CASES, evaluated


def compared(report: Report) -> Report:
    gain = Estimate(value=0.05, low=0.01, high=0.09)
    metric = next(iter(report.metrics))
    baseline = Baseline(name="mean pooling", metrics=report.metrics, difference={metric: gain})
    about = About(question="Is it positive?", specimen="FFPE", simulated=True, external=False)
    return report.model_copy(update={"sections": report.sections | {Baseline.key: baseline}, "about": about})


def test_a_missed_target_stands_before_the_comparison_with_simpler_models() -> None:
    report = compared(evaluated("binary")[1])
    lines = {line.label: line for line in first_screen(report)}
    labels = list(lines)
    assert labels[:3] == ["Predicted", "Patients", "Discrimination"]
    assert labels[-2:] == ["Calibration", "Simpler models"]
    assert lines["Predicted"].text == "Is it positive? (FFPE)"
    assert lines["Patients"].text.startswith(f"n {report.patients['n']}, ")
    assert "simulated patients held back from training" in lines["Patients"].text
    assert lines["Discrimination"].text.startswith(f"AUROC {report.metrics['auroc'].described}")
    (decision,) = (line for label, line in lines.items() if label.startswith("Decision"))
    point = report.operating_points.decisions[0].lowest
    reached = point.sensitivity
    verdict = "not reached" if reached.value < 0.9 else "reached"
    assert decision.text.startswith(f"sensitivity of at least 0.9 was asked: {reached.described}: {verdict}")
    assert f"specificity {point.specificity.described}" in decision.text
    assert decision.missed == (reached.low < 0.9)
    assert "after recalibration within 0.8 to 1.2 for" in lines["Calibration"].text
    assert lines["Simpler models"].text.startswith("The model beats mean pooling")


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_endpoint_has_every_line_with_numbers_and_patients(name: str) -> None:
    report = evaluated(name)[1]
    lines = first_screen(report)
    labels = [line.label for line in lines]
    places = [next(at for at, label in enumerate(labels) if label.startswith(word)) for word in ("Predicted", "Discr")]
    decided = next(at for at, label in enumerate(labels) if label.startswith(("Decision", "Groups")))
    calibrated = next(at for at, label in enumerate(labels) if label.startswith("Calibration"))
    assert [*places, decided, calibrated, labels.index("Simpler models")] == sorted(
        {*places, decided, calibrated, labels.index("Simpler models")}
    )
    assert all(line.text for line in lines)


def test_the_page_opens_with_it_and_with_where_the_tool_falls_short() -> None:
    report = compared(evaluated("survival")[1])
    page = html(report, {}, "A title", "A banner")
    places = [page.index(word) for word in ("<dt>Predicted", "<dt>Discrimination", "<dt>Groups", "<dt>Calibration")]
    places += [page.index(word) for word in ("<dt>Simpler models", "Where it falls short", '<section id="predicted"')]
    assert places == sorted(places)
    assert page.index('<section id="survival"') < page.index('<section id="design"')


def test_the_terminal_says_the_same_in_the_same_order() -> None:
    report = compared(evaluated("binary")[1])
    printed = list(headline(report))
    screen = [f"{line.label}: {line.text}" for line in first_screen(report)]
    assert printed[: len(screen)] == screen
    assert printed[len(screen)].startswith(("Where it falls short", "Nothing that was asked for"))


def test_external_and_unreported_patients_are_named_as_such() -> None:
    report = evaluated("binary")[1]
    about = About(title="A tool", external=True, simulated=False, withheld=3)
    lines = {line.label: line.text for line in first_screen(report.model_copy(update={"about": about}))}
    assert lines["Predicted"] == "A tool"
    assert lines["Patients"].endswith(
        "real patients of a cohort that the model was not trained on, 3 folds; 3 withheld"
    )
    assert [line.label for line in first_screen(Report())] == ["Predicted", "Patients", "Discrimination"]


def test_what_nobody_stated_is_called_not_stated() -> None:
    report = evaluated("binary")[1]
    lines = {line.label: line.text for line in first_screen(report.model_copy(update={"about": About()}))}
    words = "real or simulated (not stated) patients (whether the model was trained on them is not stated)"
    assert words in lines["Patients"]
    page = html(report.model_copy(update={"about": About(model="m", simulated=True)}), {}, "t", "b")
    assert '<th scope="row">External</th><td>not stated</td>' in page
    assert '<th scope="row">Simulated</th><td>yes</td>' in page
    page = html(report.model_copy(update={"about": About(external=False)}), {}, "t", "b")
    assert '<th scope="row">External</th><td>no</td>' in page


def test_a_calibration_that_does_not_help_is_not_called_a_recalibration() -> None:
    report = evaluated("binary")[1]
    section = report.section(Calibration)
    assert section is not None
    without = tuple(question.model_copy(update={"calibrated": None}) for question in section.questions)
    unhelped = tuple(
        question.model_copy(update={"calibrated": question.calibrated.model_copy(update={"slope": None})})
        for question in section.questions
        if question.calibrated is not None
    )
    assert unhelped
    for questions in (without, unhelped):
        changed = section.model_copy(update={"questions": questions})
        sections = {**report.sections, Calibration.key: changed}
        [line] = [
            line
            for line in first_screen(report.model_copy(update={"sections": sections}))
            if line.label == "Calibration"
        ]
        assert line.text.startswith("slope within 0.8 to 1.2 for")

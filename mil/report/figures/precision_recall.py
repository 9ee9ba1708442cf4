"""Precision-recall curves with the prevalence, which is the precision of calls at random."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, canvas, count_folds, interval, look, short, side_legend
from mil.report.figures.threshold_curves import GRID, PRECISION_RECALL, Curves, answered, curves
from mil.report.schema import Report
from mil.report.sections.discrimination import Discrimination
from mil.stats.estimate import format_number

_DOTS = (0, (1, 2))


def precision_recall(evaluation: Evaluation, report: Report) -> Figure | None:
    """Draw a curve for each question with its prevalence, dotted in the same colour; None without questions."""
    if not evaluation.questions:
        return None
    figure = canvas(4.1)
    axes = figure.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set(xlabel="Recall (sensitivity)", ylabel="Precision (PPV)")
    names = [short(question.name, 18) for question in evaluation.questions]
    by_question = [
        curves(answered(evaluation, question), PRECISION_RECALL, evaluation.seed) for question in evaluation.questions
    ]
    if len(by_question) == 1:
        _draw_alone(axes, by_question[0])
        axes.set_title(_title(report, by_question[0], names[0]))
        side_legend(axes)
        return figure
    for number, (name, drawn) in enumerate(zip(names, by_question, strict=True)):
        if drawn is not None:
            area, prevalence = format_number(drawn.area), _prevalence(drawn)
            axes.plot(GRID, drawn.mean, label=f"{name}: {area} ({format_number(prevalence)})", **look(number))
            axes.axhline(prevalence, color=look(number)["color"], linewidth=0.9, linestyle=_DOTS)
    axes.set_title(f"Precision and recall, {report.patients['n']} patients, {count_folds(report)}")
    side_legend(axes, ["average precision", "(prevalence, dotted)"])
    return figure


def _draw_alone(axes: Axes, question: Curves | None) -> None:
    if question is None:
        return
    label = "95% band of the mean"
    axes.fill_between(GRID, question.low, question.high, color=COLOURS[0], alpha=0.18, linewidth=0, label=label)
    axes.plot(GRID, question.mean, color=COLOURS[0], label="mean of folds" if len(question.folds) > 1 else "model")
    prevalence = _prevalence(question)
    label = f"prevalence {format_number(prevalence)}"
    axes.axhline(prevalence, color=GREY, linewidth=0.9, linestyle=_DOTS, label=label)


def _prevalence(question: Curves) -> float:
    return question.positives / question.n


def _title(report: Report, question: Curves | None, name: str) -> str:
    if question is None:
        return f"Average precision not estimable, {report.patients['n']} patients"
    section = report.section(Discrimination)
    areas = () if section is None else section.questions
    area = interval(areas[0].auprc) if areas else format_number(question.area)
    counts = f"{question.n} patients, {question.positives} are {name}, {count_folds(report)}"
    return f"Average precision {area}, {counts}"

"""Precision-recall curves beside the prevalence, which is what calling at random gives."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, beside, canvas, folds, interval, look, short
from mil.report.figures.threshold_curves import GRID, PRECISION_RECALL, Curves, asked, curves
from mil.report.schema import Report
from mil.report.sections.discrimination import Discrimination

_DOTS = (0, (1, 2))


def precision_recall(evaluation: Evaluation, report: Report) -> Figure | None:
    """Curve of each question with its prevalence, dotted in the same colour; none without questions."""
    if not evaluation.questions:
        return None
    figure = canvas(4.1)
    axes = figure.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="W")
    axes.set(xlabel="Recall (sensitivity)", ylabel="Precision (PPV)")
    names = [short(question.name, 18) for question in evaluation.questions]
    found = [curves(asked(evaluation, one), PRECISION_RECALL, evaluation.seed) for one in evaluation.questions]
    if len(found) == 1:
        _draw_alone(axes, found[0])
        axes.set_title(_title(report, found[0], names[0]))
        beside(axes)
        return figure
    for at, (name, own) in enumerate(zip(names, found, strict=True)):
        if own is not None:
            axes.plot(GRID, own.mean, label=f"{name}: {own.area:.2f} ({_prevalence(own):.2f})", **look(at))
            axes.axhline(_prevalence(own), color=look(at)["color"], linewidth=0.9, linestyle=_DOTS)
    axes.set_title(f"Precision and recall, {report.patients['n']} patients, {folds(report)}")
    beside(axes, ["average precision (prevalence, dotted)"])
    return figure


def _draw_alone(axes: Axes, found: Curves | None) -> None:
    if found is None:
        return
    axes.fill_between(
        GRID, found.low, found.high, color=COLOURS[0], alpha=0.18, linewidth=0, label="95% band of the mean"
    )
    axes.plot(GRID, found.mean, color=COLOURS[0], label="mean of folds" if len(found.folds) > 1 else "model")
    axes.axhline(
        _prevalence(found), color=GREY, linewidth=0.9, linestyle=_DOTS, label=f"prevalence {_prevalence(found):.2f}"
    )


def _prevalence(found: Curves) -> float:
    return found.positives / found.n


def _title(report: Report, found: Curves | None, name: str) -> str:
    if found is None:
        return f"Average precision not estimable, {report.patients['n']} patients"
    section = report.section(Discrimination)
    words = f"{found.area:.2f}" if section is None else interval(section.questions[0].auprc)
    return f"Average precision {words}, {found.n} patients, {found.positives} are {name}, {folds(report)}"

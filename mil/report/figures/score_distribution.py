"""Scores of patients by their true class, with the cuts that decide on them.

Shares of each class, so that a rare class is as visible as a frequent one. The axis is that of the log odds: many cuts
are close to 0 or 1, where a plain axis would hide them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mil.endpoints.question import Question
from mil.errors import PredictionsError
from mil.fitted.decision import total
from mil.fitted.decision_rules import plans
from mil.report.evaluation import Evaluation
from mil.report.figures.style import COLOURS, GREY, LINES, in_lines, panels, shared_legend
from mil.report.predictions import rows_of
from mil.stats.bootstrap import Floats
from mil.stats.calibration_metrics import logit
from mil.stats.estimate import format_number

_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_BINS = 24
_LOOKS: tuple[tuple[int, bool, Mapping[str, Any]], ...] = (
    (1, True, {"color": COLOURS[1], "label": "positive"}),
    (-1, False, {"facecolor": "white", "edgecolor": COLOURS[0], "hatch": "////", "label": "negative"}),
)
"""Direction, class and look of the two histograms, which also differ without colour."""


@dataclass(frozen=True)
class Scores:
    """The scores of one question, or of one decision on it."""

    name: str
    score: Floats
    """`(p,)`, a probability"""
    positive: NDArray[np.bool_]
    """`(p,)`"""
    cuts: tuple[float, ...] = ()
    """of all folds; empty without a decision that cuts this score"""


def score_distribution(evaluation: Evaluation) -> Figure | None:
    """Draw a panel for each question or decision; None for endpoints without questions."""
    drawn = [*_decided(evaluation)]
    named = {scores.name for scores in drawn}
    drawn += [_uncut(evaluation, each) for each in evaluation.questions if each.name not in named]
    if not drawn:
        return None
    figure, all_axes = panels(len(drawn), height=2.5)
    for axes, scores in zip(all_axes, drawn, strict=True):
        draw_scores(axes, scores, len(drawn))
    shared_legend(figure, all_axes)
    return figure


def draw_scores(axes: Axes, scores: Scores, panels_drawn: int = 1) -> None:
    """Draw shares of the positives above the line, of the negatives below it, and a vertical line for each cut."""
    inside = np.clip(scores.score, _TICKS[0], _TICKS[-1])
    low, high = _limits(np.append(inside, np.clip(scores.cuts, _TICKS[0], _TICKS[-1])))
    edges = np.linspace(logit(np.array(low)), logit(np.array(high)), _BINS + 1)
    highest = 0.01
    for sign, answer, look in _LOOKS:
        members = logit(inside[scores.positive == answer])
        share = np.histogram(members, edges)[0] / max(1, len(members))
        axes.bar(edges[:-1], sign * share, np.diff(edges), align="edge", linewidth=0.6, **look)
        highest = max(highest, float(share.max(initial=0)))
    axes.axhline(0, color=GREY, linewidth=0.8)
    distinct = sorted(set(scores.cuts))
    for number, cut in enumerate(distinct):
        place = float(logit(np.clip(np.array(cut), _TICKS[0], _TICKS[-1])))
        axes.axvline(
            place, color="black", linewidth=1.2, linestyle=LINES[1], label="frozen cut" if not number else None
        )
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    ticks = ticks[::2] if panels_drawn > 4 and len(ticks) > 4 else ticks
    axes.set_xticks(logit(np.array(ticks)), [_tick(tick, scores.score) for tick in ticks])
    axes.set(xlim=(edges[0], edges[-1]), ylim=(-1.1 * highest, 1.1 * highest), xlabel="Score (logit axis)")
    heights = [height for height in axes.get_yticks() if abs(height) <= 1.1 * highest]
    axes.set_yticks(heights, [f"{abs(height):.0%}" for height in heights])
    axes.set(ylabel="Share of each class")
    cut_text = f"\ncut {', '.join(format_number(cut) for cut in distinct)}" if 0 < len(distinct) < 3 else ""
    counts = f"{int(scores.positive.sum())} of {len(scores.positive)}"
    axes.set_title(f"{in_lines(scores.name, 60 if panels_drawn == 1 else 24)}: {counts}{cut_text}")


def _tick(tick: float, score: Floats) -> str:
    """Return the label of a tick; the outermost stand for everything beyond them."""
    beyond = (
        "≤ " if tick == _TICKS[0] and score.min() < tick else "≥ " if tick == _TICKS[-1] and score.max() > tick else ""
    )
    return f"{beyond}{tick:g}"


def _limits(values: Floats) -> tuple[float, float]:
    """Return the ticks between which all values lie, at least from 0.1 to 0.9."""
    low = max((tick for tick in _TICKS if tick <= values.min()), default=_TICKS[0])
    high = min((tick for tick in _TICKS if tick >= values.max()), default=_TICKS[-1])
    return min(low, 0.1), max(high, 0.9)


def _decided(evaluation: Evaluation) -> Sequence[Scores]:
    """Return the scores that decisions on yes-or-no questions cut, of the folds that have cuts."""
    drawn = list[Scores]()
    for plan in plans(evaluation.tool.decision_of_single(), evaluation.endpoint):
        question = plan.question
        if question is None or plan.compares_classes:
            continue
        score, positive, cuts = list[Floats](), list[NDArray[np.bool_]](), list[float]()
        for fold, rows in rows_of(evaluation.table, "report"):
            state = evaluation.state(fold)
            try:
                decision = state.decision(plan)
                values = total(state.calibrated(rows), decision.columns)
            except PredictionsError:
                continue  # the section says why this fold decides nobody
            answers = question.truth(rows)
            usable = ~np.isnan(answers) & ~np.isnan(values)
            score.append(values[usable])
            positive.append(answers[usable] == 1)
            cuts += decision.cuts
        if score:
            drawn.append(Scores(question.name, np.concatenate(score), np.concatenate(positive), tuple(cuts)))
    return drawn


def _uncut(evaluation: Evaluation, question: Question) -> Scores:
    reported: pd.DataFrame = evaluation.reported
    answers, score = question.truth(reported), question.probability(reported)
    usable = ~np.isnan(answers)
    return Scores(question.name, score[usable], answers[usable] == 1)

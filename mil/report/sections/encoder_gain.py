"""What each of several encoders adds: both together against each alone, on the same patients."""

from collections.abc import Iterator
from typing import ClassVar, Self

import pandas as pd
from pydantic import Field

from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import metric_intervals
from mil.report.page.words import named
from mil.report.paired_difference import CORRECTED, FOR_MODELS, paired_differences, shown_sign
from mil.report.predictions import checked, report_folds, same_patients
from mil.report.schema import Estimate, Model, Section, Sentence
from mil.stats.corrected_resampled import FOR_METHOD
from mil.stats.estimate import format_p

ENCODER, HOW = "encoder", "how"
"""Columns of the table of predictions from one encoder alone."""
ABLATED, MEMBER = "ablated", "member"
_QUESTIONS = {
    ABLATED: "How much worse the trained model is when it is shown one encoder alone: the features of the others are "
    "replaced by those of the mean training tile. It was trained on all of them and relies on all; a model trained on "
    "one alone may do better than this. mil compare of this run with a run on one encoder answers that.",
    MEMBER: "How much better the ensemble is than the model that was trained on one encoder alone, a member of it. "
    "Logits of the members are averaged; epochs were chosen for the ensemble.",
}


class EncoderAlone(Model):
    """One encoder alone, and all encoders against it."""

    encoder: str
    metrics: dict[str, Estimate]
    difference: dict[str, Estimate] = Field(title="All encoders minus this one alone, paired")


class EncoderGain(Section):
    """What each encoder adds to a model that reads several."""

    key: ClassVar[str] = "encoder_gain"
    title: ClassVar[str] = "What each encoder adds"
    explanation: ClassVar[str] = "All encoders together against each alone, on the same patients in the same folds."
    not_applicable: ClassVar[str] = ""  # most models read one encoder
    position: ClassVar[int] = 111

    question: Sentence
    """which question the differences answer"""
    encoders: tuple[EncoderAlone, ...]
    verdicts: tuple[Sentence, ...]

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return the differences; None for a model of one encoder.

        Raises:
            PredictionsError: The table has other patients in its folds, or cannot be evaluated.
        """
        table = evaluation.comparators.get("encoders")
        if table is None or table.empty:
            return None
        names = list(dict.fromkeys(map(str, table[ENCODER])))
        alone = tuple(_alone(evaluation, name, table[table[ENCODER] == name]) for name in names)
        metric = evaluation.endpoint.metric
        return cls(
            question=_QUESTIONS[str(table[HOW].iloc[0])],
            encoders=alone,
            verdicts=tuple(_verdict(each, names, metric) for each in alone),
        )

    def card_sentences(self) -> Iterator[str]:
        """Yield the question and the verdicts."""
        yield self.question
        yield from self.verdicts


def _alone(evaluation: Evaluation, name: str, table: pd.DataFrame) -> EncoderAlone:
    endpoint, folds = evaluation.endpoint, evaluation.folds
    rows = checked(table.drop(columns=[ENCODER, HOW]).reset_index(drop=True), endpoint, name)
    compared = report_folds(rows, endpoint)
    same_patients(folds, compared, name)
    others = [fold._replace(logits=each.logits) for fold, each in zip(folds, compared, strict=True)]
    return EncoderAlone(
        encoder=name,
        metrics=metric_intervals(evaluation, others),
        difference=paired_differences(evaluation, others),
    )


def _verdict(alone: EncoderAlone, names: list[str], metric: str) -> str:
    """Return whether the other encoders add to this one, in a sentence."""
    rest = " and ".join(name for name in names if name != alone.encoder)
    verb = "add" if len(names) > 2 else "adds"
    gain = alone.difference.get(metric)
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        reason = f": {gain.reason}" if gain is not None and gain.reason else ""
        return f"What {rest} {verb} to {alone.encoder} is not estimable{reason}."
    shown = {1: f"{verb} to", -1: "takes away from", 0: "is not shown to add to"}[shown_sign(gain)]
    question = FOR_METHOD if gain.method == CORRECTED else FOR_MODELS
    test = "" if gain.p is None else f", p {format_p(gain.p)}, {question}"
    return f"{rest} {shown} {alone.encoder}: difference in {named(metric)} {gain}, paired{test}."

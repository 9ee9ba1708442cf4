"""What is estimated within a subgroup: a metric whose scores come from several folds, on the patients of one level."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats
from torch import Tensor

from mil.endpoints.question import Question
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.schema import Estimate, Model, Number
from mil.stats import auroc
from mil.stats.bootstrap import METHOD, STRATIFIED, Floats, Fold, Score
from mil.stats.bootstrap_intervals import Sampled, sampled

LEAST = 20
"""Fewest positives, negatives or events for which the metric of a subgroup is estimated."""
CELL = 10
"""The same within one fold, below which the folds are pooled: a bootstrap of fewer patients varies too little.

Simulated, 33 positives and 67 negatives: intervals within 3 folds cover the area in 0.94 of 600 cohorts, within 4 in
0.925, pooled over 4 in 0.94. Ranks are coarse where a fold reports few patients: the pooled area is 0.01 too low with
25 a fold, 0.03 with 8.
"""
ALWAYS = sys.maxsize
"""In place of `CELL`, for values in a unit, which are pooled however many there are."""
RANKS = "percentile, patients resampled; scores as percentile ranks within each fold, pooled"
VALUES = "percentile, patients resampled; folds pooled"


class MeanCalibration(Model):
    """Whether predictions are right on average: observed over expected positives, or true minus predicted value."""

    observed: Number = None
    """positives"""
    expected: Number = None
    """sum of their probabilities"""
    estimate: Estimate


class Heterogeneity(Model):
    """The test that the metric is the same at all levels.

    Attributes:
        test: What was done; reports before 0.2 have Cochran's Q, which calls too many small levels different.
        statistic: Its statistic.
        freedom: Degrees of freedom, of Cochran's Q only.
        p: That levels which do not differ are as far apart.
        p_holm: The same by Holm's method for all variables.
    """

    test: str
    statistic: float
    freedom: int | None = Field(default=None, title="Degrees of freedom")
    p: float
    p_holm: float | None = Field(default=None, title="p, Holm")


class Measured(NamedTuple):
    """A metric of some patients."""

    samples: Sampled | None
    """its resamples; None where there are too few patients"""
    estimate: Estimate


@dataclass(frozen=True)
class Measure:
    """One metric, with the reported patients of every fold, and of all folds pooled."""

    name: str
    score: Score
    folds: Sequence[Fold]
    together: Fold
    """each patient once, with scores that are comparable across folds"""
    sizes: Callable[[Tensor], dict[str, int]]
    """counts the targets of which enough are needed, such as positives and negatives"""
    least: int
    """the smallest of these counts for which the metric is estimated"""
    cell: int
    """the smallest within each fold; with fewer the folds are pooled"""
    pooled: str
    """the method of the interval where the folds are pooled"""
    outcomes_alike: bool = True
    """whether levels are permuted among patients with one outcome, which keeps each level's number of positives"""
    largest_gap: float = 1.0
    """the largest difference that two levels may have"""

    def grouped(self, members: Sequence[Sequence[str]]) -> tuple[Fold, NDArray[np.intp]]:
        """Return the patients of some groups, all folds together, and the group of each, `(p,)`."""
        patients = _restricted(self.together, [name for group in members for name in group])
        group_of = {name: at for at, group in enumerate(members) for name in group}
        return patients, np.array([group_of[str(name)] for name in np.asarray(patients.patients)], dtype=np.intp)

    def alike(self, target: Tensor) -> NDArray[np.int64]:
        """Return the stratum of each patient, `(p,)`, within which levels are permuted."""
        if not self.outcomes_alike:
            return np.zeros(len(target), np.int64)
        answers = np.nan_to_num(target.double().numpy().reshape(len(target), -1), nan=-1.0)
        return np.asarray(np.unique(answers, axis=0, return_inverse=True)[1], np.int64).reshape(-1)

    def of(self, members: Sequence[str], resamples: int, seed: int) -> Measured:
        """Return the metric of these patients."""
        counts = self.counts(members)
        if reason := self.shortage(members):
            return Measured(None, Estimate.missing(reason, counts))
        cells, pooled = self.cells(members)
        within_folds = METHOD if self.together.strata is None else STRATIFIED
        [metrics] = sampled([(self.score, cells)], resamples, seed)
        samples = metrics[""]
        return Measured(samples, samples.interval(self.pooled if pooled else within_folds, counts))

    def counts(self, members: Sequence[str]) -> dict[str, int]:
        """Return the number of patients, and of those of whom enough are needed."""
        return {"n": len(members)} | self.sizes(_restricted(self.together, members).target)

    def shortage(self, members: Sequence[str]) -> str | None:
        """Return why these patients are too few for the metric; None where they are enough."""
        sizes = self.sizes(_restricted(self.together, members).target)
        return _too_few(sizes, self.least) if min(sizes.values(), default=0) < self.least else None

    def cells(self, members: Sequence[str]) -> tuple[list[Fold], bool]:
        """Return these patients fold by fold, or where a fold has too few all folds as one, and whether it is one."""
        cells = [cell for fold in self.folds if len((cell := _restricted(fold, members)).target)]
        pooled = len(cells) > 1 and any(min(self.sizes(cell.target).values()) < self.cell for cell in cells)
        return ([self.of_all_folds(members)], True) if pooled else (cells, False)

    def of_all_folds(self, members: Sequence[str]) -> Fold:
        """Return these patients once each, with scores that are comparable across folds."""
        return _restricted(self.together, members)


def main_measure(evaluation: Evaluation) -> Measure:
    """Return the endpoint's metric; of several labels or classes the mean AUROC over them."""
    endpoint = evaluation.endpoint
    if len(evaluation.questions) == 1 or (evaluation.questions and not endpoint.ordered):
        return _areas(evaluation, endpoint.metric, evaluation.questions)
    folds = evaluation.folds

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        return {"": endpoint.score(logits, target, weight)[endpoint.metric]}

    if endpoint.survival is not None:
        risks = [endpoint.decode(fold.logits)[endpoint.survival.rank_column] for fold in folds]
        ranks = [endpoint.from_oracle(_ranks(risk)) for risk in risks]
        return Measure(endpoint.metric, score, folds, _together(folds, ranks), _events, LEAST, CELL, RANKS)
    return Measure(endpoint.metric, score, folds, _together(folds, None), _patients, 2 * LEAST, ALWAYS, VALUES)


def question_measure(evaluation: Evaluation, question: Question) -> Measure:
    """Return the AUROC of one question."""
    return _areas(evaluation, "auroc", [question])


def observed_expected(observed: float, expected: float, n: int) -> MeanCalibration:
    """Return observed over expected positives: 1 where the probabilities are right on average.

    The interval is computed for the logarithm, with standard error `sqrt((1 - observed / n) / observed)`.

    Args:
        observed: Positives.
        expected: Sum of the probabilities.
        n: Patients.

    References:
        Debray et al., BMJ 356, 2017, appendix.
    """
    counts = {"n": n}
    if not n or expected <= 0:
        estimate = Estimate.missing("nobody whose probability is known", counts)
        return MeanCalibration(observed=observed, expected=expected, estimate=estimate)
    ratio, low, high = observed / expected, None, None
    if observed > 0:
        half_width = float(stats.norm.ppf(0.975)) * ((1 - observed / n) / observed) ** 0.5
        low, high = ratio * float(np.exp(-half_width)), ratio * float(np.exp(half_width))
    estimate = Estimate(value=ratio, low=low, high=high, method="of the logarithm, Debray", counts=counts)
    return MeanCalibration(observed=observed, expected=expected, estimate=estimate)


def _areas(evaluation: Evaluation, name: str, questions: Sequence[Question]) -> Measure:
    """Return the mean AUROC over the questions, each among the patients whose answer is known."""
    folds, ranks = [], []
    for fold, (_, rows) in zip(evaluation.folds, rows_of(evaluation.table, "report"), strict=True):
        named = rows.set_index("patient")
        chances = torch.from_numpy(np.stack([question.probability(named) for question in questions], 1))
        truth = torch.from_numpy(np.stack([question.truth(named) for question in questions], 1))
        folds.append(fold._replace(logits=chances, target=truth))
        ranks.append(torch.cat([_ranks(column) for column in chances.unbind(1)], 1))
    return Measure(name, _mean_area, folds, _together(folds, ranks), _answers, LEAST, CELL, RANKS)


def _mean_area(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
    areas = []
    for chance, truth in zip(logits.numpy().T, target.numpy().T, strict=True):
        answered = ~np.isnan(truth)
        areas.append(auroc(chance[answered], truth[answered] == 1, None if weight is None else weight[:, answered]))
    return {"": np.asarray(np.mean(areas, axis=0))}


def _ranks(scores: Tensor) -> Tensor:
    """Return percentile ranks `(p, 1)` in (0, 1]; ties get their mean."""
    values = scores.double().numpy()
    return torch.from_numpy(stats.rankdata(values) / max(1, len(values))).unsqueeze(1)


def _together(folds: Sequence[Fold], comparable: Sequence[Tensor] | None) -> Fold:
    """Return all folds as one, each patient as in the first fold that has it.

    Args:
        folds: The folds.
        comparable: Logits of each fold in place of its own, where those cannot be compared across folds.
    """
    logits = torch.cat([fold.logits for fold in folds] if comparable is None else list(comparable))
    names = np.concatenate([np.asarray(fold.patients) for fold in folds])
    first = np.sort(np.unique(names, return_index=True)[1])
    strata = None if folds[0].strata is None else np.concatenate([np.asarray(fold.strata) for fold in folds])[first]
    target = torch.cat([fold.target for fold in folds])[first]
    return Fold(logits[first], target, strata, names[first].astype(np.str_))


def _restricted(fold: Fold, members: Sequence[str]) -> Fold:
    rows = np.flatnonzero(np.isin(np.asarray(fold.patients), list(members)))
    strata = None if fold.strata is None else fold.strata[rows]
    return fold._replace(
        logits=fold.logits[rows], target=fold.target[rows], strata=strata, patients=np.asarray(fold.patients)[rows]
    )


def _answers(target: Tensor) -> dict[str, int]:
    """Return positives and negatives of the question that has the fewest."""
    return {"positives": int((target == 1).sum(0).min()), "negatives": int((target == 0).sum(0).min())}


def _events(target: Tensor) -> dict[str, int]:
    return {"events": int((target[:, 1] == 1).sum())}


def _patients(target: Tensor) -> dict[str, int]:
    return {"patients": len(target)}


def _too_few(sizes: dict[str, int], least: int) -> str:
    counted = " and ".join(f"{count} {name}" for name, count in sizes.items())
    return f"{counted}, expected {' and '.join(f'{least} {name}' for name in sizes)}"

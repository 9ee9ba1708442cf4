"""How far apart the levels of a subgroup variable lie: in the metric, sensitivity, specificity, and in the last two.

The best and the worst level are chosen by the data, so that their gap is above zero by construction: among six levels
that do not differ, intervals which take the two as given lie above zero in 38% of cohorts. Gaps are compared with those
of permuted levels instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from mil.report.schema import Estimate, Model
from mil.report.sections.subgroup_metrics import Heterogeneity, Measure
from mil.stats import label_permutation
from mil.stats.bootstrap import Floats
from mil.stats.bootstrap_intervals import Sampled
from mil.stats.label_permutation import PermutedGap, dispersion, group_values

Estimates = Mapping[str, Estimate | None]
"""A proportion by level; None where it is not defined"""
PERMUTATIONS = 499
METHOD = "largest gap of permuted levels"
HETEROGENEITY = "squared distances to the mean, of permuted levels"


class Gap(Model):
    """The difference between the best and the worst level."""

    variable: str | None = None
    best: str
    worst: str
    estimate: Estimate


@dataclass(frozen=True, eq=False)
class FoundGap:
    """A gap with the gaps of permuted levels, from which it is judged among any number of variables."""

    best: str
    worst: str
    permuted: PermutedGap
    heterogeneity: Heterogeneity | None = None

    def gap(self, variable: str | None = None, tests: int = 1) -> Gap:
        """Return the gap as the report has it, judged for so many variables."""
        return Gap(variable=variable, best=self.best, worst=self.worst, estimate=gap_estimate(self.permuted, tests))


def gap_estimate(permuted: PermutedGap, tests: int = 1) -> Estimate:
    """Return a largest gap with interval and p value, and as its caveat how large it is by chance."""
    low, high = permuted.bounds(tests)
    adjusted = f", Bonferroni for {tests} variables" if tests > 1 else ""
    return Estimate(
        value=permuted.value,
        low=low,
        high=high,
        method=METHOD + adjusted,
        p=permuted.p(tests),
        caveat=f"by chance {permuted.by_chance:.3f}",
    )


def metric_gap(
    samples: Mapping[str, Sampled], measure: Measure, members: Mapping[str, Sequence[str]], seed: int
) -> FoundGap | None:
    """Return the largest value of any level minus the smallest, and whether levels differ; None below two levels.

    Args:
        samples: Of each level that can be estimated.
        measure: The metric.
        members: Patients of each level.
        seed: Of the permutations.
    """
    if len(samples) < 2:
        return None
    best, worst = (choose(samples, key=lambda level: samples[level].value) for choose in (max, min))
    patients, group = measure.grouped([members[level] for level in samples])

    def metric(weight: Floats) -> Floats:
        return np.asarray(measure.score(patients.logits, patients.target, weight)[""])

    generator = np.random.default_rng(seed)
    values = group_values(metric, group, measure.alike(patients.target), PERMUTATIONS, generator)
    if values.shape[1] == 1:
        return None
    value = samples[best].value - samples[worst].value
    permuted = PermutedGap(value, np.ptp(values[:, 1:], axis=0), measure.largest_gap)
    statistic, p = dispersion(values, np.bincount(group).tolist())
    test = Heterogeneity(test=HETEROGENEITY, statistic=statistic, p=p)
    return FoundGap(best, worst, permuted, test)


def proportion_gap(estimates: Estimates, least: int, seed: int) -> FoundGap | None:
    """Return the largest proportion of any level minus the smallest; None below two levels.

    Args:
        estimates: With counts `successes` and `n`.
        least: Smallest `n` of a level that takes part.
        seed: Of the permutations.
    """
    counts = _counts(estimates, least)
    if len(counts) < 2:
        return None
    best, worst = (choose(counts, key=lambda level: counts[level][0] / counts[level][1]) for choose in (max, min))
    return FoundGap(best=best, worst=worst, permuted=_permuted(counts, seed))


def equalised_odds(sensitivities: Estimates, specificities: Estimates, least: int, seed: int) -> PermutedGap | None:
    """Return the larger of the gaps in sensitivity and in specificity; None where either has fewer than two levels.

    References:
        Hardt, Price and Srebro, NeurIPS 2016.
    """
    sides = [_counts(estimates, least) for estimates in (sensitivities, specificities)]
    if min(map(len, sides)) < 2:
        return None
    first, second = (_permuted(side, seed + at) for at, side in enumerate(sides))
    return PermutedGap(max(first.value, second.value), np.maximum(first.permuted, second.permuted))


def seed_of(seed: int, *words: str) -> int:
    """Return a seed of its own for each variable and question."""
    return seed + crc32("=".join(words).encode())


def _permuted(counts: Mapping[str, tuple[int, int]], seed: int) -> PermutedGap:
    successes, sizes = zip(*counts.values(), strict=True)
    return label_permutation.proportion_gap(successes, sizes, PERMUTATIONS, np.random.default_rng(seed))


def _counts(estimates: Estimates, least: int) -> dict[str, tuple[int, int]]:
    """Return successes and n of each level that is large enough."""
    counts = {level: each.counts for level, each in estimates.items() if each is not None}
    return {level: (count["successes"], count["n"]) for level, count in counts.items() if count["n"] >= least}

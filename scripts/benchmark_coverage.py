"""Coverage of every interval and error rate of every verdict that a report prints, by simulation with known truth.

usage: scripts/benchmark_coverage [--trials 200] [--jobs 1] [--studies NAME ...] [--quick] [--out docs/coverage.md]

Cohorts are simulated at the level of scores: each trial draws patients whose truth is known, makes a table of
predictions, calls the package's own sections and comparisons as `mil evaluate` and `mil compare` do, and notes whether
each interval holds the truth and whether each verdict is wrong. "Five folds": five models, each with its own shift of
the logit (standard deviation 0.3), report a fifth of the patients each. Equal learners are linear discriminants,
trained anew in each fold on features of their own that are equally informative: their folds differ, and are correlated
through the patients that they share, as those of real models are. Slow studies get a share of the trials only. With
`--out` the table is written after each study; cells of an existing table that are not measured again stay, and so does
everything below the line `<!-- by hand -->`. `--quick` draws a few trials, to see that the script works.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.files import write
from mil.fitted import novelty
from mil.fitted.cutoffs import choose, two_cuts
from mil.fitted.options import NoveltyOptions
from mil.fitted.rules import SensitivityRule
from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import metric_intervals
from mil.report.paired_difference import paired_differences, shown_sign
from mil.report.paired_tests import mcnemar
from mil.report.schema import Estimate, Section
from mil.report.sections.calibration import Calibration
from mil.report.sections.discrimination import Discrimination
from mil.report.sections.gaps import proportion_gap
from mil.report.sections.groups import RiskGroups
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.prediction_sets import PredictionSets
from mil.report.sections.site_synthesis import SiteSynthesis
from mil.report.sections.subgroup_metrics import LEAST, observed_expected
from mil.report.sections.subgroups import Subgroups
from mil.report.sections.survival_distribution import DCalibration
from mil.report.sections.time_to_event import TimeToEvent
from mil.report.sections.utility import Utility
from mil.runs.leaderboard import Entry, against_best
from mil.stats import cox_regression
from mil.stats.censoring import Censoring
from mil.stats.net_benefit import net_benefit
from mil.stats.observed_risk import risk_at
from mil.stats.proportions import likelihood_ratio, predictive_value, proportion
from mil.stats.site_signature import site_predictability
from mil.stats.survival_metrics import cumulative_dynamic_auc, uno_c
from mil.study.tool import Tool

ROOT = Path(__file__).resolve().parents[1]
Floats = NDArray[np.float64]
Truths = dict[str, bool | float | None]
"""By row: whether an interval held the truth or a verdict was wrong, a mean, or None where it was not estimable."""
SIZES, DESIGNS = (40, 100, 300), {"hold-out": 1, "five folds": 5}
PREVALENCE, SHIFT, RESAMPLES = 0.3, 0.3, 200
HORIZON = 36.0
TOLERANCE = 0.03
BY_HAND = "<!-- by hand -->"
"""Below this line the page is kept as it is."""


@dataclass(frozen=True)
class Study:
    """Rows that are measured on the same simulated cohorts."""

    trial: Callable[[np.random.Generator, int, int], Truths]
    share: float = 1.0
    """of the trials that it gets"""
    designs: tuple[str, ...] = tuple(DESIGNS)


class Row(NamedTuple):
    """One measured coverage or error rate."""

    name: str
    n: int
    design: str
    nominal: float
    kind: Literal["coverage", "error", "mean"]
    measured: float
    error: float
    """Monte-Carlo standard error"""
    trials: int
    undefined: float
    """share of the trials in which there was no interval or verdict"""


def main() -> None:
    """Run every study at every size and design, and write the table."""
    options = _options()
    sizes = SIZES[:1] if options.quick else SIZES
    jobs = [
        (name, n, design, 3 if options.quick else max(20, round(options.trials * STUDIES[name].share)))
        for name in options.studies
        for n in sizes
        for design in STUDIES[name].designs
    ]
    table = Cells() if options.out is None else read_cells(options.out)
    with ProcessPoolExecutor(options.jobs, initializer=_prepare_process) as pool:
        for done, measured in enumerate(pool.map(_measured, jobs), 1):
            print(f"{done} of {len(jobs)}: {jobs[done - 1][0]}, n {jobs[done - 1][1]}, {jobs[done - 1][2]}", flush=True)
            table.update(measured)
            if options.out is not None:  # as far as it is measured
                write(options.out, _page(table, options.out))
    if options.out is None:
        sys.stdout.write(_page(table, None))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="simulated cohorts of each size and design")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--quick", action="store_true", help="three cohorts of 40 patients: does it run?")
    parser.add_argument("--out", type=Path, help="Markdown file; default: print the table")
    return parser.parse_args()


def _prepare_process() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def _measured(job: tuple[str, int, str, int]) -> list[Row]:
    name, n, design, trials = job
    study = STUDIES[name]
    results: dict[str, list[float]] = {}
    undefined: dict[str, int] = {}
    for trial in range(trials):
        rng = np.random.default_rng([trial, n, DESIGNS[design], *name.encode()])
        for row, value in study.trial(rng, n, DESIGNS[design]).items():
            results.setdefault(row, [])
            undefined[row] = undefined.get(row, 0) + (value is None)
            if value is not None:
                results[row].append(float(value))
    return [_row(row, n, design, values, undefined[row]) for row, values in results.items()]


def _row(name: str, n: int, design: str, values: list[float], undefined: int) -> Row:
    kind, nominal = _nominal(name)
    count = len(values)
    measured = float(np.mean(values)) if count else float("nan")
    spread = (nominal * (1 - nominal)) ** 0.5 if kind != "mean" else float(np.std(values)) if count else 0.0
    error = spread / max(1, count) ** 0.5
    return Row(name, n, design, nominal, kind, measured, error, count, undefined / max(1, undefined + count))


def _nominal(name: str) -> tuple[Literal["coverage", "error", "mean"], float]:
    """Return what a row is measured against: errors and means are named so, all others are 95% intervals."""
    for ending, (kind, nominal) in NOMINAL.items():
        if name.endswith(ending):
            return kind, nominal
    return "coverage", 0.95


NOMINAL: Mapping[str, tuple[Literal["coverage", "error", "mean"], float]] = {
    "wrongly called different": ("error", 0.05),
    "wrongly called better": ("error", 0.05),
    "gap wrongly above zero": ("error", 0.05),
    "wrongly called heterogeneous": ("error", 0.05),
    "wrongly told from its site": ("error", 0.05),
    "wrongly worth more": ("error", 0.025),
    "mean sensitivity of a cut for 0.95": ("mean", 0.95),
    "flags of known slides": ("mean", 0.01),
    "wrongly below 0.05": ("error", 0.05),
    "mean coverage of sets for 0.90": ("mean", 0.90),
    "mean sensitivity of the lower cut for 0.95": ("mean", 0.95),
    "mean specificity of the upper cut for 0.95": ("mean", 0.95),
}


def _holds(estimate: Estimate | None, truth: float) -> bool | None:
    """Return whether an interval holds the truth; None where there is none."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    return bool(estimate.low <= truth <= estimate.high)


def _table(
    rng: np.random.Generator, folds: int, columns: Mapping[str, object], strata: NDArray[np.int64]
) -> pd.DataFrame:
    """Return a table of predictions with stratified folds; all patients are reported once."""
    n = len(strata)
    fold = np.empty(n, dtype=np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        fold[members] = (rng.permutation(len(members)) + rng.integers(folds)) % folds
    names = [f"{at:05}" for at in range(n)]
    return pd.DataFrame({"patient": names, "fold": fold, "role": "report", **columns})


def _evaluation(table: pd.DataFrame, endpoint: object, tool: Mapping[str, object] | None = None) -> Evaluation:
    return Evaluation.of(table, endpoint, Tool.parse(dict(tool or {})), None, RESAMPLES)  # type: ignore[arg-type]


def _estimates(section: Section | None) -> dict[str, Estimate]:
    return {} if section is None else {row.source: row.estimate for row in section.card_rows()}


def classification(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Areas, average precision and calls of one question, at an easy and at a hard one."""
    truths: Truths = {}
    for gap in (1.2, 2.8):
        label = rng.permutation(np.arange(n) < round(PREVALENCE * n))
        ratio = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2 + np.log(PREVALENCE / (1 - PREVALENCE))
        table = _table(rng, folds, {"label": label.astype(int)}, label.astype(np.int64))
        shifts = rng.normal(0, SHIFT, folds) if folds > 1 else np.zeros(1)
        section = Discrimination.compute(_evaluation(table.assign(p_1=expit(ratio + shifts[table["fold"]])), Binary()))
        assert section is not None
        [question], area = section.questions, norm.cdf(gap / 2**0.5)
        name = f"AUROC {area:.3f}"
        truths[f"{name}: AUROC"] = _holds(question.auroc, float(area))
        truths[f"{name}: average precision"] = _holds(question.auprc, average_precision_of(gap))
        at_half = -np.log(PREVALENCE / (1 - PREVALENCE))
        rates = [
            (norm.cdf((gap**2 / 2 + s - at_half) / gap), norm.cdf((gap**2 / 2 - s + at_half) / gap)) for s in shifts
        ]
        balanced = float(np.mean(rates))
        truths[f"{name}: balanced accuracy"] = _holds(section.balanced_accuracy, balanced)
        accuracy = float(np.mean([PREVALENCE * hit + (1 - PREVALENCE) * cleared for hit, cleared in rates]))
        truths[f"{name}: accuracy"] = _holds(section.accuracy, accuracy)
    return truths


@cache
def average_precision_of(gap: float) -> float:
    """Return the area under the precision-recall curve of normal scores."""
    cut = np.linspace(-10, 10 + gap, 200_001)
    hit, false = norm.sf(cut - gap), norm.sf(cut)
    precision = PREVALENCE * hit / np.maximum(PREVALENCE * hit + (1 - PREVALENCE) * false, 1e-300)
    return float(-np.sum(precision[:-1] * np.diff(hit)))


def grades(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Macro AUROC of three classes, and quadratic kappa of four grades."""
    label = rng.integers(0, 3, n)
    logits = 1.5 * np.eye(3)[label] + rng.normal(size=(n, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    columns = {"label": np.array(list("abc"))[label], **{f"p_{c}": shares[:, at] for at, c in enumerate("abc")}}
    classes = _evaluation(_table(rng, folds, columns, label), Multiclass(classes=("a", "b", "c")))
    grade, expected = rng.integers(0, 4, n), None
    expected = np.clip(grade + rng.normal(0, 0.8, n), 0, 3)
    spread = np.exp(-((np.arange(4) - expected[:, None]) ** 2))
    spread /= spread.sum(1, keepdims=True)
    columns = {"label": np.array(list("0123"))[grade], **{f"p_{g}": spread[:, at] for at, g in enumerate("0123")}}
    ordered = _evaluation(_table(rng, folds, columns, grade), Ordinal("label", ("0", "1", "2", "3")))
    section = Discrimination.compute(ordered)
    assert section is not None
    return {
        "three classes: macro AUROC": _holds(metric_intervals(classes)["macro_auroc"], macro_of_three()),
        "four grades: quadratic kappa": _holds(section.quadratic_kappa, kappa_of_four()),
    }


@cache
def macro_of_three() -> float:
    """Return the true macro AUROC of the three classes."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300_000)
    logits = torch.from_numpy(1.5 * np.eye(3)[label] + rng.normal(size=(300_000, 3)))
    return float(Multiclass(classes=("a", "b", "c")).score(logits, torch.from_numpy(label))["macro_auroc"])


@cache
def kappa_of_four() -> float:
    """Return the true kappa of the four grades, called by their median."""
    from mil.stats import quadratic_kappa

    rng = np.random.default_rng(0)
    grade = rng.integers(0, 4, 300_000)
    expected = np.clip(grade + rng.normal(0, 0.8, len(grade)), 0, 3)
    spread = np.exp(-((np.arange(4) - expected[:, None]) ** 2))
    calls = Ordinal("label", ("0", "1", "2", "3")).call_classes(spread / spread.sum(1, keepdims=True))
    return float(quadratic_kappa(calls, grade, 4))


def calibration(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Calibration of probabilities that are right, and observed over expected."""
    gap = 1.2
    label = rng.random(n) < PREVALENCE
    logits = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2 + np.log(PREVALENCE / (1 - PREVALENCE))
    columns = {"label": label.astype(int), "p_1": expit(logits)}
    table = _table(rng, folds, columns, label.astype(np.int64))
    of = _estimates(Calibration.compute(_evaluation(table, Binary())))
    brier = true_brier(gap)
    truth = {"intercept": 0.0, "slope": 1.0, "brier": brier, "ece.estimate": 0.0}
    truth["scaled_brier"] = 1 - brier / (PREVALENCE * (1 - PREVALENCE))
    words = {
        "brier": "Brier score",
        "scaled_brier": "scaled Brier score",
        "ece.estimate": "calibration error (ECE) of 0",
    }
    rows: Truths = {
        f"calibration: {words.get(key, key)}": _holds(of.get(f"questions[0].{key}"), value)
        for key, value in truth.items()
    }
    ratio = observed_expected(float(label.sum()), float(expit(logits).sum()), n).estimate
    rows["calibration: observed/expected"] = _holds(ratio, 1.0)
    return rows


@cache
def true_brier(gap: float) -> float:
    """Return the Brier score of the true probabilities."""
    rng = np.random.default_rng(0)
    label = rng.random(1_000_000) < PREVALENCE
    logits = gap * (rng.normal(size=len(label)) + gap * label) - gap**2 / 2 + np.log(PREVALENCE / (1 - PREVALENCE))
    chance = expit(logits)
    return float((chance * (1 - chance)).mean())


def survival(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Concordance, AUC(t), Brier score and calibration of true risks at three years, with censoring."""
    table = _followed(rng, n, folds)
    endpoint = Cox(horizons={"3y": HORIZON})
    of = _estimates(TimeToEvent.compute(_evaluation(table, endpoint)))
    truth = true_survival()
    keys = {
        "c_index": "C-index",
        "auc[0].estimate": "AUC(t)",
        "brier[0].model": "Brier score at a horizon",
        "times[0].observed": "observed risk at a horizon",
        "calibration[0].observed_expected": "observed/expected at a horizon",
        "calibration[0].slope": "calibration slope at a horizon",
    }
    known = {"calibration[0].observed_expected": 1.0, "calibration[0].slope": 1.0}
    rows: Truths = {
        f"survival: {words}": _holds(of.get(key), known.get(key, truth.get(key, float("nan"))))
        for key, words in keys.items()
        if key in of or key not in ("times[0].observed",)
    }
    time, code = table["time"].to_numpy(np.float64), table["event"].to_numpy(np.float64)
    rows["survival: Kaplan-Meier risk"] = _holds(risk_at(time, code, HORIZON), truth["times[0].observed"])
    hazard = table[["log_hazard"]].rename(columns={"log_hazard": "x"})
    fitted = cox_regression.fit(hazard, time, code == 1)
    rows["survival: hazard ratio"] = _holds(fitted.ratio("x"), float(np.e))
    return rows


def _followed(rng: np.random.Generator, n: int, folds: int) -> pd.DataFrame:
    hazard = 0.8 * rng.normal(size=n)
    death, leaving = rng.exponential(50 * np.exp(-hazard)), rng.uniform(5, 120, n)
    event = (death <= leaving).astype(int)
    risk = -np.expm1(-HORIZON / 50 * np.exp(hazard))
    columns = {"time": np.minimum(death, leaving), "event": event, "log_hazard": hazard, "risk_3y": risk}
    return _table(rng, folds, columns, event.astype(np.int64))


@cache
def true_survival() -> dict[str, float]:
    """Return the true values of the measures of survival, from patients who are all followed up, or censored alike."""
    from mil.stats import auroc, c_index

    rng = np.random.default_rng(0)
    table = _followed(rng, 20_000, 1)
    concordance = float(c_index(table["log_hazard"], table["time"], table["event"]))
    hazard = 0.8 * rng.normal(size=400_000)
    died = rng.exponential(50 * np.exp(-hazard)) <= HORIZON
    risk = -np.expm1(-HORIZON / 50 * np.exp(hazard))
    return {
        "c_index": concordance,
        "auc[0].estimate": float(auroc(hazard, died)),
        "brier[0].model": float(((died - risk) ** 2).mean()),
        "times[0].observed": float(risk.mean()),
    }


def values(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """R², correlation and mean absolute error of a predicted number."""
    value = rng.normal(size=n)
    true = value + rng.normal(size=n)
    table = _table(rng, folds, {"score": true, "value": value}, np.zeros(n, np.int64))
    metrics = metric_intervals(_evaluation(table, Regression("score")))
    truth = {"r2": 0.5, "pearson": 0.5**0.5, "mae": (2 / np.pi) ** 0.5}
    # mil's mae is negative where larger is better
    return {
        f"number: {name}": _holds(metrics.get(name), np.sign(metrics[name].value or 1) * abs(truth[name]))
        for name in truth
        if name in metrics
    }


def learners(
    rng: np.random.Generator, n: int, folds: int, count: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], Floats]:
    """Return labels `(n,)`, folds and logits `(count, n)` of equally good learners.

    Each is a linear discriminant on ten features of its own, trained on the patients of the other folds. A hold-out is
    about trained models: they are equal there, with scores that are correlated by one half.
    """
    label = rng.permutation(np.arange(n) < round(PREVALENCE * n))
    if folds == 1:
        shared = rng.normal(size=n)
        logits = 1.2 * label + (shared + rng.normal(size=(count, n))) / 2**0.5
        return label, np.zeros(n, np.int64), logits
    fold = _table(rng, folds, {}, label.astype(np.int64))["fold"].to_numpy()
    features = rng.normal(size=(count, n, 10)) + 0.38 * label[:, None]
    logits = np.zeros((count, n))
    for each in range(folds):
        train, test = fold != each, fold == each
        for learner in range(count):
            x, y = features[learner, train], label[train]
            difference = x[y].mean(0) - x[~y].mean(0)
            centred = np.concatenate([x[y] - x[y].mean(0), x[~y] - x[~y].mean(0)])
            direction = np.linalg.solve(centred.T @ centred / len(centred) + 0.1 * np.eye(10), difference)
            logits[learner, test] = features[learner, test] @ direction
    return label, fold, logits


def comparisons(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Two equal learners, and the leader of five."""
    label, fold, logits = learners(rng, n, folds, 5)
    names = [f"{at:05}" for at in range(n)]
    base = pd.DataFrame({"patient": names, "fold": fold, "role": "report", "label": label.astype(int)})
    evaluations = [_evaluation(base.assign(p_1=expit(each)), Binary()) for each in logits]
    difference = paired_differences(evaluations[0], evaluations[1].folds)["auroc"]
    leader = against_best([Entry(str(at), each) for at, each in enumerate(evaluations)])
    return {
        "two equal learners: wrongly called different": None if difference.p is None else shown_sign(difference) != 0,
        "two equal learners: difference of AUROC": _holds(difference, 0.0),
        "leader of five equal learners: wrongly called better": None
        if leader[0].p is None
        else any(" is better than " in each.verdict for each in leader),
    }


def calls(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Sensitivity, predictive values, likelihood ratios, paired calls, and cuts chosen for a sensitivity."""
    positives = round(PREVALENCE * n)
    negatives = n - positives
    hits, false = int(rng.binomial(positives, 0.9)), int(rng.binomial(negatives, 0.2))
    chance = 0.9 * 0.1 / (0.9 * 0.1 + 0.2 * 0.9)
    gained, lost, _ = rng.multinomial(n, [0.15, 0.15, 0.7])
    discordant = mcnemar(int(gained), int(lost), n)
    score = np.concatenate([rng.normal(1.2, 1, positives), rng.normal(size=negatives)])
    cut = choose(SensitivityRule(rule="sensitivity", at_least=0.95), score, np.arange(n) < positives)
    return {
        "proportion: sensitivity 0.9 (Wilson)": _holds(proportion(hits, positives), 0.9),
        "proportion: PPV at a stated prevalence": _holds(
            predictive_value(hits, positives, false, negatives, 0.1), chance
        ),
        "proportion: positive likelihood ratio": _holds(likelihood_ratio(hits, positives, false, negatives), 4.5),
        "two sets of calls: wrongly called different": (discordant.p or 1) < 0.05,
        "two sets of calls: difference of proportions": _holds(discordant, 0.0),
        "decision: mean sensitivity of a cut for 0.95": float(norm.sf(cut - 1.2)),
    }


def gaps(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Largest gaps among groups that do not differ: six where there are enough patients, else two or none."""
    label = np.arange(n) % 2
    levels = 6 if n >= 300 else 2
    group = rng.permutation(np.arange(n) // 2 % levels)
    shifts = rng.normal(0, SHIFT, folds)
    table = _table(rng, folds, {"label": label}, label.astype(np.int64))
    logits = 1.2 * label + rng.normal(size=n) + shifts[table["fold"]]
    patients = pd.DataFrame({"site": [f"site {at}" for at in group]}, index=table["patient"])
    evaluation = Evaluation.of(table.assign(p_1=expit(logits)), Binary(), Tool(), patients, RESAMPLES)
    section = Subgroups.compute(evaluation)
    assert section is not None
    variable, per_level = section.variables[0], n // 6
    rates = {str(at): proportion(int(rng.binomial(per_level, 0.9)), per_level) for at in range(6)}
    of_calls = proportion_gap(rates, 5, 0)
    assert of_calls is not None
    gap = section.largest_gap
    test = variable.heterogeneity
    return {
        "groups: AUROC gap wrongly above zero": None if gap is None else (gap.estimate.low or 0) > 0,
        "groups: sensitivity gap wrongly above zero": (of_calls.gap().estimate.low or 0) > 0,
        "groups: wrongly called heterogeneous": None if test is None else test.p < 0.05,
    }


def sites(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """A score that does not tell its site: five sites, ten numbers."""
    site = rng.permutation([f"site {at % 5}" for at in range(n)]).tolist()
    result = site_predictability(rng.normal(size=(n, 10)), site, 2)
    area = result.macro_auroc
    return {"score: wrongly told from its site": None if area is None or area.p is None else area.p <= 0.05}


def utility(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Net benefit over treating all or none: the band over all thresholds, at the own cut, and of a useless score."""
    gap = 1.2
    label = rng.random(n) < PREVALENCE
    logits = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2 + np.log(PREVALENCE / (1 - PREVALENCE))
    decision = {"decision": {"rule": "two_cuts", "low": 0.2, "high": 0.5}, "thresholds": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    table = _table(rng, folds, {"label": label.astype(int), "p_1": expit(logits)}, label.astype(np.int64))
    section = Utility.compute(Evaluation.refitted(table, Binary(), Tool.parse(decision), None, RESAMPLES))
    useless = table.assign(p_1=np.clip(PREVALENCE + 0.15 * rng.normal(size=n), 0.01, 0.99))
    blank = Utility.compute(_evaluation(useless, Binary()))
    assert section is not None
    assert blank is not None
    [curve], [guess], truth = section.questions, blank.questions, true_gain(gap)
    if curve.simultaneous is None or guess.simultaneous is None:
        return {}
    bounds = zip(curve.simultaneous.low, curve.simultaneous.high, truth, strict=True)
    rows: Truths = {
        "decision curve: gain at all thresholds at once": all(
            (low or 0) - 1e-9 <= true <= (high or 0) + 1e-9 for low, high, true in bounds
        ),
        "decision curve of a useless score: wrongly worth more": bool(guess.useful),
    }
    if len(curve.at_cuts) == 2:
        both = [(each.gain.low, each.gain.high) for each in curve.at_cuts]
        inside = [
            None if low is None or high is None else low <= true <= high
            for (low, high), true in zip(both, (truth[1], truth[4]), strict=True)
        ]
        rows["decision curve: gain at both own cuts"] = None if None in inside else all(map(bool, inside))
    return rows


@cache
def true_gain(gap: float) -> tuple[float, ...]:
    """Return the true gain over treating all or none at the six thresholds."""
    rng = np.random.default_rng(0)
    label = rng.random(1_000_000) < PREVALENCE
    logits = gap * (rng.normal(size=len(label)) + gap * label) - gap**2 / 2 + np.log(PREVALENCE / (1 - PREVALENCE))
    gains = []
    for at in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        odds = np.array([at / (1 - at)])
        model = float(net_benefit((expit(logits) >= at)[:, None], label, odds)[0, 0])
        gains.append(model - max(0.0, PREVALENCE - (1 - PREVALENCE) * float(odds[0])))
    return tuple(gains)


def flags(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Novelty flags of slides like those of training."""
    train, select, new = (rng.normal(size=(size, 8)) for size in (n, n, 200))
    fitted = novelty.fit(NoveltyOptions(min_tiles=1), np.full(n, 100), train, select)
    if fitted.features is None:
        return {}
    flagged = fitted.features.distance(new) > fitted.features.cut
    return {"novelty: flags of known slides": float(np.mean(flagged))}


def competing(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Incidence, Wolbers' C, AUC(t) and calibration of the true risks of the first of two causes."""
    table = _competed(rng, n, folds)
    endpoint = CompetingRisks(causes=("relapse", "death"), horizons={"3y": HORIZON})
    of = _estimates(TimeToEvent.compute(_evaluation(table, endpoint)))
    truth = true_competing()
    words = {
        "uno_c": "C (Wolbers)",
        "auc[0].estimate": "AUC(t)",
        "times[0].observed": "incidence (Aalen-Johansen)",
        "calibration[0].observed_expected": "observed/expected at a horizon",
        "calibration[0].slope": "calibration slope at a horizon",
    }
    return {f"competing risks: {name}": _holds(of.get(key), truth.get(key, 1.0)) for key, name in words.items()}


def _competed(rng: np.random.Generator, n: int, folds: int, end: float = 90.0) -> pd.DataFrame:
    score = rng.normal(size=n)
    first, second = np.exp(0.8 * score) / 60, np.exp(-0.3 * score) / 80
    total = first + second
    ends, leaving = rng.exponential(1 / total), rng.uniform(5, end, n)
    code = np.where(ends > leaving, 0, np.where(rng.random(n) < first / total, 1, 2))
    risk = first / total * -np.expm1(-HORIZON * total)
    columns = {
        "time": np.minimum(ends, leaving),
        "event": np.array(["censored", "relapse", "death"])[code],
        "risk": risk,
        "risk_relapse_3y": risk,
        "risk_death_3y": second / total * -np.expm1(-HORIZON * total),
    }
    return _table(rng, folds, columns, code.astype(np.int64))


@cache
def true_competing() -> dict[str, float]:
    """Return the true values, from patients who are all followed up."""
    rng = np.random.default_rng(0)
    table = _competed(rng, 20_000, 1, end=1e9)
    code = table["event"].map({"censored": 0, "relapse": 1, "death": 2}).to_numpy()
    time, risk = table["time"].to_numpy(), table["risk"].to_numpy()
    nobody = Censoring.fit(time, code)
    return {
        "uno_c": float(uno_c(risk, time, code, HORIZON, nobody)),
        "auc[0].estimate": float(cumulative_dynamic_auc(risk, time, code, HORIZON, nobody)),
        "times[0].observed": float(_competed(rng, 400_000, 1)["risk_relapse_3y"].mean()),
    }


def hazards(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Two equal learners of survival, trained anew in each fold, and groups of a risk that says nothing."""
    hazard = rng.normal(size=n)
    death, leaving = rng.exponential(50 * np.exp(-hazard)), rng.uniform(5, 120, n)
    time, event = np.minimum(death, leaving), (death <= leaving).astype(int)
    table = _table(rng, folds, {"time": time, "event": event, "log_hazard": 0.0}, event.astype(np.int64))
    scores = []
    for _ in range(2):
        features = hazard[:, None] + 3 * rng.normal(size=(n, 10))
        score = features.mean(1)
        for each in range(folds if folds > 1 else 0):
            train = (table["fold"] != each).to_numpy()
            direction = features[train].T @ (event[train] - time[train] / time[train].mean() * event[train].mean())
            score[~train] = features[~train] @ direction / np.linalg.norm(direction)
        scores.append(score)
    evaluations = [_evaluation(table.assign(log_hazard=score), Cox()) for score in scores]
    difference = paired_differences(evaluations[0], evaluations[1].folds)["c_index"]
    useless = table.assign(log_hazard=rng.normal(size=n))
    trained = useless.assign(role="train", patient=[f"t{at}" for at in range(n)], log_hazard=rng.normal(size=n))
    both = pd.concat([useless, trained], ignore_index=True)
    groups = RiskGroups.compute(Evaluation.refitted(both, Cox(), Tool(), None, RESAMPLES))
    ratios = () if groups is None else groups.hazard_ratios
    return {
        "two equal learners: difference of C-index": _holds(difference, 0.0),
        "two equal learners of survival: wrongly called different": None
        if difference.p is None
        else shown_sign(difference) != 0,
        "risk groups: log-rank wrongly below 0.05": None
        if groups is None or groups.log_rank_p is None
        else groups.log_rank_p < 0.05,
        "risk groups: hazard ratio": _holds(ratios[0].estimate, 1.0) if ratios else None,
    }


def method(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """The interval for the method of a single AUROC: it holds what models trained on other patients have on average."""
    label, fold, logits = learners(rng, n, folds, 1)
    names = [f"{at:05}" for at in range(n)]
    table = pd.DataFrame({"patient": names, "fold": fold, "role": "report", "label": label.astype(int)})
    estimate = metric_intervals(_evaluation(table.assign(p_1=expit(logits[0])), Binary()))["auroc"]
    second = estimate.second
    truth = true_of_method(n)
    held = None if second is None or second.low is None or second.high is None else second.low <= truth <= second.high
    return {"AUROC of a method: its interval for the method": held}


@cache
def true_of_method(n: int) -> float:
    """Return the AUROC of linear discriminants trained on four fifths of n patients, on average."""
    rng, areas = np.random.default_rng(0), []
    for _ in range(400):
        y = np.arange(round(0.8 * n)) < round(PREVALENCE * 0.8 * n)
        x = rng.normal(size=(len(y), 10)) + 0.38 * y[:, None]
        centred = np.concatenate([x[y] - x[y].mean(0), x[~y] - x[~y].mean(0)])
        direction = np.linalg.solve(centred.T @ centred / len(centred) + 0.1 * np.eye(10), x[y].mean(0) - x[~y].mean(0))
        areas.append(norm.cdf(0.38 * direction.sum() / np.linalg.norm(direction) / 2**0.5))
    return float(np.mean(areas))


def sets(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Conformal sets of two classes for a coverage of 0.9, whose limits come from as many select patients."""
    gap = 1.2

    def drawn(size: int) -> tuple[NDArray[np.bool_], Floats]:
        label = rng.random(size) < PREVALENCE
        return label, gap * (rng.normal(size=size) + gap * label) - gap**2 / 2 + np.log(PREVALENCE / (1 - PREVALENCE))

    tables = []
    for role in ("report", "select"):
        label, logits = drawn(n)
        table = _table(rng, folds, {"label": label.astype(int), "p_1": expit(logits)}, label.astype(np.int64))
        tables.append(table.assign(role=role, patient=role[0] + table["patient"]))
    table, tool = pd.concat(tables, ignore_index=True), Tool.parse({"conformal": {"coverage": 0.9}})
    evaluation = Evaluation.refitted(table, Binary(), tool, None, RESAMPLES)
    section = PredictionSets.compute(evaluation)
    if section is None:
        return {"prediction sets: coverage of these limits": None}
    label, logits = drawn(20_000)
    new, shares = pd.DataFrame({"p_1": expit(logits)}), []
    for fold in range(folds):
        limits = evaluation.state(fold).conformal
        if limits is None:
            return {"prediction sets: coverage of these limits": None}
        inside = limits.apply(new)["set"].str.split("|").tolist()
        shares.append(np.mean([str(int(each)) in members for each, members in zip(label, inside, strict=True)]))
    true = float(np.mean(shares))
    return {
        "prediction sets: coverage of these limits": _holds(section.parts[0].coverage, true),
        "prediction sets: mean coverage of sets for 0.90": true,
    }


def cuts(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Two cuts: the undecided share at stated ones, and what cuts for a sensitivity and a specificity keep."""
    gap = 1.8
    label = rng.permutation(np.arange(n) < n // 2)
    logits = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2
    table = _table(rng, folds, {"label": label.astype(int), "p_1": expit(logits)}, label.astype(np.int64))
    tool = Tool.parse({"decision": {"rule": "two_cuts", "low": 0.2, "high": 0.7}})
    section = OperatingPoints.compute(Evaluation.refitted(table, Binary(), tool, None, RESAMPLES))
    assert section is not None
    bounds = np.log([0.2 / 0.8, 0.7 / 0.3])
    shares = [np.diff(norm.cdf((bounds + gap**2 / 2) / gap - gap * y)) for y in (0, 1)]
    score = (logits + gap**2 / 2) / gap
    both = two_cuts({"sensitivity": 0.95}, {"specificity": 0.95}, score, label)
    low, high = both[0], both[-1]  # the same where both promises can be kept by one cut
    return {
        "two cuts: undecided share": _holds(section.decisions[0].undecided, float(np.mean(shares))),
        "two cuts: mean sensitivity of the lower cut for 0.95": float(norm.sf(low - gap)),
        "two cuts: mean specificity of the upper cut for 0.95": float(norm.cdf(high)),
    }


def synthesis(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Six sites whose areas differ: their mean, and what is said of a further site. Fewer patients are not pooled."""
    sites = 6
    gap_of = rng.normal(1.3, 0.3, sites + 1)
    if n // (2 * sites) < LEAST:
        return {}
    site, label = np.arange(n) % sites, np.arange(n) // sites % 2
    logits = gap_of[site] * label + rng.normal(size=n)
    table = _table(rng, folds, {"label": label, "p_1": expit(logits)}, label.astype(np.int64))
    patients = pd.DataFrame({"site": [f"site {at}" for at in site]}, index=table["patient"])
    section = SiteSynthesis.compute(Evaluation.of(table, Binary(), Tool(), patients, 10))
    area = None if section is None else section.measures[0]
    further = float(norm.cdf(gap_of[-1] / 2**0.5))
    return {
        "sites together: mean AUROC": None if area is None else _holds(area.mean, true_of_sites()),
        "sites together: interval of a further site": None if area is None else _holds(area.further_site, further),
    }


@cache
def true_of_sites() -> float:
    """Return the AUROC whose logit is the mean over sites."""
    areas = norm.cdf(np.random.default_rng(0).normal(1.3, 0.3, 1_000_000) / 2**0.5)
    return float(expit(np.mean(np.log(areas / (1 - areas)))))


def curves(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """D-calibration of true survival curves, a third of the patients censored; and the scaled Brier score of risks."""
    table = _followed(rng, n, folds)
    horizons = {"1y": 12.0, "3y": HORIZON, "6y": 72.0}
    risks = {f"risk_{name}": -np.expm1(-at / 50 * np.exp(table["log_hazard"])) for name, at in horizons.items()}
    evaluation = _evaluation(table.assign(**risks), Cox(horizons=horizons))
    section = DCalibration.compute(evaluation)
    of = _estimates(TimeToEvent.compute(_evaluation(table, Cox(horizons={"3y": HORIZON}))))
    truth = true_survival()
    observed = truth["times[0].observed"]
    scaled = 1 - truth["brier[0].model"] / (observed * (1 - observed))
    return {
        "D-calibration: wrongly below 0.05": None if section is None else section.p < 0.05,
        "survival: scaled Brier score (IPA) at a horizon": _holds(of.get("brier[0].scaled"), scaled),
    }


STUDIES: Mapping[str, Study] = {
    "classification": Study(classification),
    "grades": Study(grades),
    "calibration": Study(calibration, 0.5),
    "survival": Study(survival, 0.3),
    "values": Study(values, 0.5),
    "comparisons": Study(comparisons),
    "calls": Study(calls, 2.5, ("hold-out",)),
    "gaps": Study(gaps, 0.5),
    "sites": Study(sites, 0.5, ("hold-out",)),
    "utility": Study(utility, 0.5),
    "flags": Study(flags, 0.25, ("hold-out",)),
    "competing": Study(competing, 0.5),
    "hazards": Study(hazards, 0.5),
    "method": Study(method, designs=("five folds",)),
    "sets": Study(sets, 0.5),
    "cuts": Study(cuts),
    "synthesis": Study(synthesis, 0.5),
    "curves": Study(curves, 0.5),
}


class Cells:
    """The cells of the table by name, design and size, as they are written."""

    def __init__(self) -> None:
        self.nominal: dict[str, str] = {}
        self.cells: dict[tuple[str, str, int], str] = {}

    def update(self, rows: Iterable[Row]) -> None:
        """Write measured rows over their cells."""
        for row in rows:
            self.nominal[row.name] = f"{row.nominal:g}"
            if row.trials:
                self.cells[row.name, row.design, row.n] = _cell(row)

    def lines(self) -> Iterator[str]:
        """Yield the table in Markdown."""
        designs = [design for design in DESIGNS if any(key[1] == design for key in self.cells)]
        sizes = sorted({key[2] for key in self.cells})
        heads = ["what", "nominal", *(f"{design}, n {n}" for design in designs for n in sizes)]
        yield f"| {' | '.join(heads)} |"
        yield "|" + "---|" * len(heads)
        for name, nominal in self.nominal.items():
            cells = [self.cells.get((name, design, n), "·") for design in designs for n in sizes]
            yield f"| {name} | {nominal} | {' | '.join(cells)} |"

    def unsafe(self) -> list[str]:
        """Return the cells on the unsafe side, with what they are about."""
        return [
            f"{name} ({design}, n {n}: {cell.strip('*').split(' ')[0]})"
            for (name, design, n), cell in self.cells.items()
            if cell.startswith("**")
        ]


def read_cells(path: Path) -> Cells:
    """Return the cells of an existing file; none where there is no such file."""
    table = Cells()
    rows = (
        [line for line in path.read_text(encoding="utf-8").splitlines() if line[:2] == "| "] if path.is_file() else []
    )
    split = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows]
    heads = next((row[2:] for row in split if row[0] == "what"), [])
    for name, nominal, *cells in (row for row in split if row[0] != "what" and len(row) == len(heads) + 2):
        table.nominal[name] = nominal
        for head, cell in zip(heads, cells, strict=True):
            design, _, n = head.rpartition(", n ")
            if cell != "·":
                table.cells[name, design, int(n)] = cell
    return table


def _page(table: Cells, path: Path | None) -> str:
    lines = [
        "# What intervals and verdicts hold",
        "",
        "Measured by `scripts/benchmark_coverage`: simulated cohorts with known truth, the package's own sections and",
        "comparisons, 200 bootstrap resamples. Each cell is the measured rate ± its Monte-Carlo standard error, which",
        "says how many cohorts were drawn; `·` marks a size for which the report gives no interval or verdict.",
        "**Bold**: further than 0.03 from nominal by more than two Monte-Carlo errors, on the unsafe side; *italics*:",
        "the safe side (intervals wider, verdicts rarer than promised).",
        "",
        *table.lines(),
        "",
        *_notes(table),
    ]
    page = "\n".join(lines) + "\n"
    old = path.read_text(encoding="utf-8") if path is not None and path.is_file() else ""
    return page + (f"\n{BY_HAND}{old.partition(BY_HAND)[2]}" if BY_HAND in old else "")


def _cell(row: Row) -> str:
    shown = f"{row.measured:.3f} ± {row.error:.3f}"
    if row.undefined > 0.01:
        shown += f" ({row.undefined:.0%} without)"
    mark = {1: "**", -1: "*", 0: ""}[_side(row)]
    return f"{mark}{shown}{mark}"


def _side(row: Row) -> int:
    """Return 1 where a rate is off by more than the tolerance on the unsafe side, -1 on the safe side, else 0."""
    off = row.measured - row.nominal if row.kind == "error" or row.nominal < 0.5 else row.nominal - row.measured
    return int(np.sign(off)) if abs(off) > TOLERANCE + 2 * row.error else 0


def _notes(table: Cells) -> Iterator[str]:
    yield f"Outside the tolerance on the unsafe side: {'; '.join(table.unsafe()) or 'none'}."
    yield ""
    yield "Hold-out: the question is about the trained models. Five folds: single intervals are about the trained"
    yield "models (their second interval about the method), differences of learners about the method, trained anew."
    yield ""
    yield "Where the methods are: `mil/stats/delong.py` (areas), `mil/stats/jackknife.py` (average precision, kappa,"
    yield "metrics of numbers), `mil/stats/corrected_resampled.py` and `mil/report/paired_difference.py` (is better),"
    yield "`mil/stats/label_permutation.py` (gaps), `mil/stats/site_signature.py` (sites), `mil/stats/max_type.py`"
    yield "(bands), `mil/stats/random_effects.py` (sites together), `mil/stats/d_calibration.py`,"
    yield "`mil/report/verdict_minimum.py` (how few are too few)."


if __name__ == "__main__":
    main()

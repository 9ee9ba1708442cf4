"""Calls, cuts, net benefit and flags."""

from functools import cache

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from coverage_studies.simulated import BASE_LOGIT, PREVALENCE, RESAMPLES, Truths, evaluated, holds, predictions
from mil.endpoints.classification import Binary
from mil.fitted import novelty
from mil.fitted.cutoffs import choose, two_cuts
from mil.fitted.options import NoveltyOptions
from mil.fitted.rules import SensitivityRule
from mil.report.evaluation import Evaluation
from mil.report.paired_tests import mcnemar
from mil.report.sections.operating_points import OperatingPoints
from mil.report.sections.utility import Utility
from mil.stats.net_benefit import net_benefit
from mil.stats.proportions import likelihood_ratio, predictive_value, proportion
from mil.study.tool import Tool


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
        "proportion: sensitivity 0.9 (Wilson)": holds(proportion(hits, positives), 0.9),
        "proportion: PPV at a stated prevalence": holds(
            predictive_value(hits, positives, false, negatives, 0.1), chance
        ),
        "proportion: positive likelihood ratio": holds(likelihood_ratio(hits, positives, false, negatives), 4.5),
        "two sets of calls: wrongly called different": (discordant.p or 1) < 0.05,
        "two sets of calls: difference of proportions": holds(discordant, 0.0),
        "decision: mean sensitivity of a cut for 0.95": float(norm.sf(cut - 1.2)),
    }


def cuts(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Two cuts: the undecided share at stated ones, and what cuts for a sensitivity and a specificity keep."""
    gap = 1.8
    label = rng.permutation(np.arange(n) < n // 2)
    logits = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2
    table = predictions(rng, folds, {"label": label.astype(int), "p_1": expit(logits)}, label.astype(np.int64))
    tool = Tool.parse({"decision": {"rule": "two_cuts", "low": 0.2, "high": 0.7}})
    section = OperatingPoints.compute(Evaluation.refitted(table, Binary(), tool, None, RESAMPLES))
    assert section is not None
    bounds = np.log([0.2 / 0.8, 0.7 / 0.3])
    shares = [np.diff(norm.cdf((bounds + gap**2 / 2) / gap - gap * y)) for y in (0, 1)]
    score = (logits + gap**2 / 2) / gap
    both = two_cuts({"sensitivity": 0.95}, {"specificity": 0.95}, score, label)
    low, high = both[0], both[-1]  # the same where both promises can be kept by one cut
    return {
        "two cuts: undecided share": holds(section.decisions[0].undecided, float(np.mean(shares))),
        "two cuts: mean sensitivity of the lower cut for 0.95": float(norm.sf(low - gap)),
        "two cuts: mean specificity of the upper cut for 0.95": float(norm.cdf(high)),
    }


def utility(rng: np.random.Generator, n: int, folds: int) -> Truths:
    """Net benefit over treating all or none: the band over all thresholds, at the own cut, and of a useless score."""
    gap = 1.2
    label = rng.random(n) < PREVALENCE
    logits = gap * (rng.normal(size=n) + gap * label) - gap**2 / 2 + BASE_LOGIT
    decision = {"decision": {"rule": "two_cuts", "low": 0.2, "high": 0.5}, "thresholds": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    table = predictions(rng, folds, {"label": label.astype(int), "p_1": expit(logits)}, label.astype(np.int64))
    section = Utility.compute(Evaluation.refitted(table, Binary(), Tool.parse(decision), None, RESAMPLES))
    useless = table.assign(p_1=np.clip(PREVALENCE + 0.15 * rng.normal(size=n), 0.01, 0.99))
    blank = Utility.compute(evaluated(useless, Binary()))
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
    if curve.at_cuts:
        cut = curve.at_cuts[0]  # 0.2, where the model's net benefit is its gain and that of treating all
        true = truth[1] + max(0.0, PREVALENCE - (1 - PREVALENCE) * 0.25)
        rows["decision curve: net benefit at a cut"] = holds(cut.benefit, true)
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
    logits = gap * (rng.normal(size=len(label)) + gap * label) - gap**2 / 2 + BASE_LOGIT
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

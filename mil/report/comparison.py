"""Two models on the same patients: how far apart they are, how sure that is, and what it comes to in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from mil.endpoints.question import Question
from mil.errors import PredictionsError
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.sections.calls import Called, called
from mil.stats import delong
from mil.stats.bootstrap import Fold
from mil.stats.bootstrap_intervals import sampled
from mil.stats.estimate import LEVEL

BOOTSTRAP = "percentile, paired: the same patients drawn for both, within folds"
ALPHA = 0.05
NAMES = {"auroc": "AUROC", "macro_auroc": "macro AUROC", "c_index": "C-index", "qwk": "quadratic kappa", "r2": "R²"}
"""What a sentence calls a metric."""


def compare(a: Evaluation, b: Evaluation, names: tuple[str, str] = ("A", "B")) -> dict[str, Any]:
    """A minus B on the patients that both report, whatever folds each was trained in.

    Resamples and their seed are A's. `verdict` is about the endpoint's own metric; A is called better, or worse, only
    where the bootstrap interval leaves out zero and the test's p is below 0.05.

    Args:
        a: One model.
        b: Another one, of the same endpoint.
        names: What they are called.

    Raises:
        PredictionsError: other targets, or no patient that both report.
    """
    shared = _shared(a, b, names)
    ours, theirs = (_folds_of(one, shared) for one in (a, b))
    one, other = sampled([(a.endpoint.score, ours), (b.endpoint.score, theirs)], a.resamples, a.seed)
    counts = a.endpoint.counts(a.endpoint.encode(a.reported.loc[shared]))
    metrics = {}
    for name in (name for name in one if name in other):
        gained = one[name].minus(other[name])
        own = {key: each[name].interval(BOOTSTRAP).value for key, each in (("a", one), ("b", other))}
        metrics[name] = own | as_dict(gained.interval(BOOTSTRAP)) | {"p": gained.p, "n": len(shared), "counts": counts}
    found = {
        "names": list(names),
        "metric": a.endpoint.metric,
        "n": len(shared),
        "counts": counts,
        "left_out": {name: len(each.reported) - len(shared) for name, each in zip(names, (a, b), strict=True)},
        "same_folds": _placed(ours) == _placed(theirs),
        "metrics": metrics,
        "delong": _delong(a, b, shared),
        "mcnemar": _mcnemar(a, b, shared),
    }
    found |= {"p": _p(found)}
    return found | {"verdict": verdict(found)}


def adjusted(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same comparisons with Holm's p and their verdicts by it; one alone stays as it is."""
    if len(comparisons) < 2:
        return [dict(one) for one in comparisons]
    raised = holm([one["p"] for one in comparisons])
    found = [{**one, "p_holm": p} for one, p in zip(comparisons, raised, strict=True)]
    return [one | {"verdict": verdict(one)} for one in found]


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Step-down adjusted p-values; what is not known has no part. Holm, Scandinavian Journal of Statistics 6, 1979."""
    known = sorted((value, at) for at, value in enumerate(p) if value is not None and np.isfinite(value))
    found, highest = list[float | None]([None] * len(p)), 0.0
    for rank, (value, at) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        found[at] = highest
    return found


def verdict(found: Mapping[str, Any]) -> str:
    """One sentence on the endpoint's own metric, with its interval, patients and p."""
    metric, (a, b) = found["metric"], found["names"]
    gain, title = found["metrics"].get(metric) or {}, NAMES.get(metric, metric)
    if gain.get("low") is None:
        return f"{a} and {b} cannot be compared by {title}: it is not estimable on {found['n']} shared patients."
    p = found.get("p_holm", found["p"])
    zero_out = gain["low"] > 0 or gain["high"] < 0
    sure = zero_out and p is not None and p < ALPHA
    better, worse = (a, b) if gain["value"] >= 0 else (b, a)
    size, ends = abs(gain["value"]), sorted((gain["low"], gain["high"]), reverse=gain["value"] < 0)
    low, high = (end if gain["value"] >= 0 else -end for end in ends)
    said = f"{size:.3f} {title} ({low:.3f} to {high:.3f})"
    people = ", ".join([_population(found["counts"]), *_tested(found)])
    if not gain["value"]:
        return f"No difference is shown: {a} and {b} are level, {said}, {people}."
    if sure:
        return f"{better} is better than {worse} by {said}, {people}."
    return f"No difference is shown: {better} is ahead of {worse} by {said}, {people}."


def targets(one: Evaluation, shared: Sequence[str]) -> Tensor:
    """Return the targets of these reported patients, `(p, k)`, without the strata that training may add to times."""
    target, view = one.endpoint.encode(one.reported.loc[list(shared)]), one.endpoint.survival
    return target.double().reshape(len(shared), -1) if view is None else view.event_times(target)


def _population(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {amount}" for name, amount in counts.items())


def _tested(found: Mapping[str, Any]) -> list[str]:
    p = found["p"]
    if p is None:
        return []
    test = "bootstrap" if _exact(found) is None else "DeLong"
    raised = found.get("p_holm")
    return [f"{test} p {_short(p)}" + ("" if raised is None else f", Holm {_short(raised)}")]


def _short(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _p(found: Mapping[str, Any]) -> float | None:
    """DeLong's where there is one question, else that of the bootstrap; none where neither is defined."""
    gain, exact = found["metrics"].get(found["metric"]) or {}, _exact(found)
    if exact is not None or gain.get("low") is None:
        return exact
    return float(gain["p"])


def _exact(found: Mapping[str, Any]) -> float | None:
    """DeLong's p, where one question is all that the metric speaks of and its variance is defined."""
    alone = found["delong"] if found["metric"] == "auroc" and len(found["delong"]) == 1 else [{"p": None}]
    return None if alone[0]["p"] is None else float(alone[0]["p"])


def _shared(a: Evaluation, b: Evaluation, names: Sequence[str]) -> list[str]:
    """Patients that both report, in order of their names; their targets have to agree."""
    pair = " and ".join(names)
    if a.endpoint.metric != b.endpoint.metric:
        found = f"{a.endpoint.metric} and {b.endpoint.metric}"
        raise PredictionsError(f"{pair}: are scored by {found}, expected runs of one endpoint")
    shared = sorted(set(a.reported.index) & set(b.reported.index))
    if not shared:
        amounts = f"{len(a.reported)} and {len(b.reported)}"
        raise PredictionsError(f"{pair}: report {amounts} patients, none in common, expected the same cohort")
    ours, theirs = (targets(one, shared) for one in (a, b))
    if ours.shape != theirs.shape:
        raise PredictionsError(f"{pair}: have targets of {ours.shape[1]} and {theirs.shape[1]} numbers, expected alike")
    differ = ~((ours == theirs) | (ours.isnan() & theirs.isnan())).all(1)
    if differ.any():
        first = shared[int(differ.nonzero()[0])]
        raise PredictionsError(
            f"{pair}: targets differ in {int(differ.sum())} of {len(shared)} shared patients, first {first}, "
            "expected the same"
        )
    return shared


def _folds_of(one: Evaluation, shared: Sequence[str]) -> list[Fold]:
    kept = [(fold, np.flatnonzero(np.isin(np.asarray(fold.patients), list(shared)))) for fold in one.folds]
    return [
        Fold(
            fold.logits[rows],
            fold.target[rows],
            None if fold.strata is None else fold.strata[rows],
            np.asarray(fold.patients)[rows],
        )
        for fold, rows in kept
        if len(rows)
    ]


def _placed(folds: Sequence[Fold]) -> set[tuple[str, ...]]:
    return {tuple(np.asarray(fold.patients).tolist()) for fold in folds}


def _delong(a: Evaluation, b: Evaluation, shared: Sequence[str]) -> list[dict[str, Any]]:
    """The paired test of each question; of a question that either does not ask there is none."""
    asked = {question.name: question for question in b.questions}
    found = []
    for question in (one for one in a.questions if one.name in asked):
        ours, theirs = _area(a, question, shared), _area(b, asked[question.name], shared)
        truth = question.truth(a.reported.loc[list(shared)])
        sizes = {"n": int((~np.isnan(truth)).sum()), "positives": int((truth == 1).sum())}
        found.append({"name": question.name} | _stated(ours, theirs) | sizes)
    return found


def _stated(ours: delong.Area, theirs: delong.Area) -> dict[str, Any]:
    nothing = dict.fromkeys(("value", "low", "high", "p")) | {"level": LEVEL, "method": "DeLong, paired"}
    if len(ours.influence) != len(theirs.influence):
        return nothing | {"reason": "a fold lacks positives or negatives, and its patients have no area"}
    paired = delong.difference(ours, theirs)
    if paired.p is None:
        return nothing | {"reason": "a class has too few patients in a fold for a variance"}
    own = {"value": paired.value, "low": paired.low, "high": paired.high, "p": paired.p}
    return own | {"level": paired.level, "method": paired.method}


def _area(one: Evaluation, question: Question, shared: Sequence[str]) -> delong.Area:
    areas, patients = [], []
    for _, rows in rows_of(one.table, "report"):
        own = rows[rows["patient"].isin(shared)].set_index("patient")
        truth = question.truth(own) if len(own) else np.zeros(0)
        known = ~np.isnan(truth)
        if known.any():
            areas.append(delong.area(question.probability(own)[known], truth[known] == 1))
            patients.append(own.index[known].to_numpy(dtype=np.str_))
    return delong.mean(areas, patients)


def _mcnemar(a: Evaluation, b: Evaluation, shared: Sequence[str]) -> list[dict[str, Any]]:
    """Calls at the frozen cuts: sensitivity and specificity of one model beside the other's."""
    theirs = {one.name: one for one in called(b)}
    pairs = [(one, theirs[one.name]) for one in called(a) if one.name in theirs and one.truth is not None]
    return [{"name": one.name, **_discordant(one, other, shared)} for one, other in pairs if other.truth is not None]


def _discordant(one: Called, other: Called, shared: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, positive in (("sensitivity", True), ("specificity", False)):
        ours, theirs = one.right(positive), other.right(positive)
        both = [name for name in shared if name in ours.index and name in theirs.index]
        gained = int((ours.loc[both] & ~theirs.loc[both]).sum())
        lost = int((~ours.loc[both] & theirs.loc[both]).sum())
        right = {"a": int(ours.loc[both].sum()), "b": int(theirs.loc[both].sum())}
        found[key] = right | mcnemar(gained, lost, len(both))
    return found


def mcnemar(gained: int, lost: int, n: int) -> dict[str, Any]:
    """Difference of two paired shares, with its interval and the exact test of McNemar.

    The interval is Bonett and Price's (Psychological Methods 17, 2012), Wald's with one patient added to either
    discordant cell; p is that of a fair coin over the discordant patients.

    Args:
        gained: Patients whom the first alone gets right.
        lost: Patients whom the second alone gets right.
        n: All patients.
    """
    counted = {"gained": gained, "lost": lost, "n": n}
    if not n:
        return {"value": None, "reason": "nobody whom both decide"} | counted
    one, other = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * ((one + other - (one - other) ** 2) / (n + 2)) ** 0.5
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    bounds = {"low": max(-1.0, one - other - half), "high": min(1.0, one - other + half), "level": LEVEL}
    return {"value": (gained - lost) / n, **bounds, "method": "Bonett-Price, McNemar exact", "p": p} | counted

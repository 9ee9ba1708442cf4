"""Time the intervals of every discrimination metric, compared with a loop over scikit-learn and scikit-survival.

usage: python scripts/benchmark_evaluation.py [--patients 1000] [--resamples 2000] [--naive 20] [--repeats 3]

Simulated patients, one fold. `mil evaluate` computes all metrics of all resamples at once. The loop draws the same
number of patients and calls scikit-learn or scikit-survival for each metric; it makes `--naive` resamples, and its time
is scaled to `--resamples`. Both run in turn; reported are the medians of the repeats.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import metrics as sklearn
from sksurv import metrics as sksurv
from sksurv.util import Surv
from torch import Tensor

from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.endpoint import Endpoint, Scores
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.survival import Cox
from mil.report.evaluation import Evaluation
from mil.stats import Censoring, brier_at, c_index, cumulative_dynamic_auc, integrated_brier, uno_c
from mil.stats.bootstrap import Fold, Score
from mil.stats.bootstrap_intervals import intervals

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
HORIZONS = np.array([12.0, 36.0, 60.0])


@dataclass(frozen=True)
class Case:
    """Patients of one endpoint, and both ways to compute its metrics."""

    name: str
    folds: list[Fold]
    score: Score
    naive: Callable[[Places], object]


def main() -> None:
    """Print a line per endpoint and one for all."""
    options = _options()
    rng = np.random.default_rng(0)
    cases = [*_classifiers(rng, options.patients), _survival(rng, options.patients)]
    ours: dict[str, list[float]] = {case.name: [] for case in cases}
    loops: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(options.repeats):
        for case in cases:
            ours[case.name].append(_seconds(partial(intervals, case.score, case.folds, options.resamples)))
            loop = _seconds(partial(_loop, case, rng, options.patients, options.naive))
            loops[case.name].append(loop * options.resamples / options.naive)
    print(f"{options.patients} patients, {options.resamples} resamples; medians of {options.repeats}")
    note = f"loop scaled from {options.naive} resamples"
    print(f"{'':12}{'ours, s':>10}{'loop, s':>10}{'ratio':>8}{'peak, MB':>10}   {note}")
    for case in cases:
        peak = _peak(case, options.resamples)
        print(
            _line(case.name, statistics.median(ours[case.name]), statistics.median(loops[case.name])) + f"{peak:10.0f}"
        )
    totals = [sum(statistics.median(each) for each in side.values()) for side in (ours, loops)]
    print(_line("all", *totals))


def _classifiers(rng: np.random.Generator, patients: int) -> list[Case]:
    four, six = ("a", "b", "c", "d"), ("0", "1", "2", "3", "4", "5")
    binary, labels = Binary(), tuple("wxyz")
    chance = _chances(rng, patients, labels)
    return [
        _case("binary", binary, pd.DataFrame({"label": rng.integers(0, 2, patients), "p_1": rng.random(patients)})),
        _case("multiclass", Multiclass("label", four), _classes(rng, patients, four)),
        _case("ordinal", Ordinal("label", six), _classes(rng, patients, six)),
        _case("multilabel", Multilabel(labels), chance),
    ]


def _classes(rng: np.random.Generator, patients: int, names: tuple[str, ...]) -> pd.DataFrame:
    shares = rng.dirichlet(np.ones(len(names)), patients)
    label = {"label": np.array(names)[rng.integers(0, len(names), patients)]}
    return pd.DataFrame(label | {f"p_{name}": shares[:, at] for at, name in enumerate(names)})


def _chances(rng: np.random.Generator, patients: int, labels: tuple[str, ...]) -> pd.DataFrame:
    truth = {name: rng.integers(0, 2, patients) for name in labels}
    return pd.DataFrame(truth | {f"p_{name}": rng.random(patients) for name in labels})


def _case(name: str, endpoint: Endpoint, table: pd.DataFrame) -> Case:
    patients = [f"{at:06}" for at in range(len(table))]
    evaluation = Evaluation.of(table.assign(patient=patients, fold=0, role="report"), endpoint)
    (fold,) = evaluation.folds
    rankings = [each for same in endpoint.rankings(fold.logits, fold.target).values() for each in same]
    label, shares = (
        (endpoint.labels(evaluation.reported), endpoint.class_probabilities(evaluation.reported))
        if endpoint.classes
        else (np.zeros(0, np.int64), np.zeros((0, 0)))
    )

    def naive(rows: Places) -> object:
        areas = [sklearn.roc_auc_score(each.truth[rows], each.score[rows]) for each in rankings]
        return areas if isinstance(endpoint, Multilabel) else (areas, _naive_calls(endpoint, label[rows], shares[rows]))

    return Case(name, [fold], endpoint.score, naive)


def _naive_calls(endpoint: Endpoint, label: NDArray[np.int64], shares: Floats) -> object:
    calls = endpoint.call_classes(shares)
    if isinstance(endpoint, Ordinal):
        return sklearn.cohen_kappa_score(label, calls, weights="quadratic")
    return sklearn.balanced_accuracy_score(label, calls)


def _survival(rng: np.random.Generator, patients: int) -> Case:
    hazard = rng.normal(size=patients)
    death, leaving = rng.exponential(60 * np.exp(-hazard)), rng.uniform(5, 120, patients)
    time_, event = np.minimum(death, leaving), (death <= leaving).astype(int)
    table = pd.DataFrame({"time": time_, "event": event, "log_hazard": hazard})
    table = table.assign(patient=[f"{at:06}" for at in range(patients)], fold=0, role="report")
    (fold,) = Evaluation.of(table, Cox()).folds
    survival = np.exp(-np.outer(np.exp(hazard), HORIZONS) / 60)
    censoring, pair = Censoring.fit(time_, event), Surv.from_arrays(event == 1, time_)

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> Scores:
        return _times(hazard, survival, time_, event, censoring, weight)

    def naive(rows: Places) -> object:
        drawn = pair[rows]
        return (
            sksurv.concordance_index_censored(drawn["event"], drawn["time"], hazard[rows]),
            sksurv.concordance_index_ipcw(pair, drawn, hazard[rows], HORIZONS[-1]),
            sksurv.cumulative_dynamic_auc(pair, drawn, hazard[rows], HORIZONS),
            sksurv.integrated_brier_score(pair, drawn, survival[rows], HORIZONS),
        )

    return Case("survival", [fold], score, naive)


def _times(
    risk: Floats, survival: Floats, time_: Floats, event: Floats, censoring: Censoring, weight: Floats | None
) -> Scores:
    outcome = (time_, event)
    scores: Mapping[str, Floats] = {
        "c_index": c_index(risk, *outcome, weight),
        "uno_c": uno_c(risk, *outcome, HORIZONS[-1], censoring, weight),
        "integrated_brier": integrated_brier(survival, *outcome, HORIZONS, censoring, weight),
        **{f"auc {at:g}": cumulative_dynamic_auc(risk, *outcome, at, censoring, weight) for at in HORIZONS},
        **{f"brier {at:g}": brier_at(survival[:, k], *outcome, at, censoring, weight) for k, at in enumerate(HORIZONS)},
    }
    return dict(scores)


def _loop(case: Case, rng: np.random.Generator, patients: int, resamples: int) -> None:
    for _ in range(resamples):
        case.naive(rng.integers(0, patients, patients))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak(case: Case, resamples: int) -> float:
    """Return the peak of additional numpy memory in MB; measured separately, as measuring is slow."""
    tracemalloc.start()
    intervals(case.score, case.folds, resamples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def _line(name: str, ours: float, loop: float) -> str:
    return f"{name:12}{ours:10.2f}{loop:10.1f}{loop / ours:8.0f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--naive", type=int, default=20, help="resamples of the loop")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()

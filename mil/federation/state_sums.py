"""The sums of one hospital from which cuts, calibration, prediction sets and novelty of all hospitals are fitted."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from mil.endpoints.endpoint import Endpoint
from mil.federation.measures import CELLS, Grid, plan_measures, question_measures
from mil.federation.messages import FederationError, Message
from mil.federation.prepared_fold import PreparedFold
from mil.federation.targets import TimeCells, event_codes
from mil.fitted import conformal
from mil.fitted.calibration_check import PARTITIONS, PARTS, deal_out
from mil.fitted.conformal import Interval, Sets
from mil.fitted.novelty import PARTS as NOVELTY_PARTS
from mil.fitted.novelty import Space
from mil.fitted.specification import Specification

Floats = NDArray[np.float64]
HAZARD_CELLS, HAZARD_REACH = 801, 10.0
SHARES, ANY = Grid("share"), Grid("asinh")
SUBSETS = 1 + PARTITIONS * PARTS
"""All select patients, then, for each partition, those outside each of its parts."""


def state_sums(
    question: Message, tool: Specification, prepared: PreparedFold, cells: Mapping[str, TimeCells]
) -> dict[str, Floats]:
    """Return the sums that a question asks for.

    Args:
        question: Its facts `what` and `role` say which sums, of whom.
        tool: What is to be fitted.
        prepared: The fold, at the final weights.
        cells: Of endpoints of times.

    Raises:
        FederationError: An unknown question.
    """
    answers: dict[str, Callable[[], dict[str, Floats]]] = {
        "risk sets": lambda: _risk_sets(prepared),
        "measures": lambda: _measures(question.text("role"), tool, prepared),
        "survival": lambda: {"counts survival": _survival(prepared, cells[""])},
        "deviations": lambda: _deviations(tool, prepared),
        "temperature": lambda: _temperature(question.array("powers"), prepared),
        "temperature check": lambda: _temperature_check(question.array("powers"), prepared),
        "tiles": lambda: {"counts tiles": histogram(ANY, np.asarray(prepared.fold.data["train"].sizes, np.float64))},
        "moments": lambda: {"moments": _moments(prepared)},
        "left out": lambda: _left_out(question, prepared),
        "distances": lambda: _distances(question, prepared),
    }
    what = question.text("what")
    if what not in answers:
        raise FederationError(f"unknown sums {what!r}, expected one of {', '.join(answers)}")
    return answers[what]()


def histogram(grid: Grid, values: Floats) -> Floats:
    """Return the number of values in each cell, `(cells,)`."""
    return np.bincount(grid.cell(values), minlength=CELLS).astype(np.float64)


def _risk_sets(prepared: PreparedFold) -> dict[str, Floats]:
    values, target = prepared.of_patients("train")
    return {"risk sets": prepared.shared.sums(values.double(), target).numpy()}


def _measures(role: str, tool: Specification, prepared: PreparedFold) -> dict[str, Floats]:
    endpoint, table = prepared.fold.endpoint, prepared.table(role)
    measures = [item.measure for item in plan_measures(tool, endpoint) if item.measure is not None]
    measures += question_measures(endpoint) if tool.calibration is not None else []
    return {f"counts {measure.name}": measure.counts(table) for measure in measures if measure.role == role}


def hazard_cell(log_hazard: Floats) -> NDArray[np.int64]:
    """Return the cell of each log hazard, to the nearest centre."""
    position = (np.clip(log_hazard, -HAZARD_REACH, HAZARD_REACH) / HAZARD_REACH + 1) / 2 * (HAZARD_CELLS - 1)
    return np.rint(position).astype(np.int64)


def hazard_centres() -> Floats:
    """Return the log hazard at the centre of each cell."""
    return np.linspace(-HAZARD_REACH, HAZARD_REACH, HAZARD_CELLS)


def _survival(prepared: PreparedFold, cells: TimeCells) -> Floats:
    """Return select patients by code, time and log hazard, `(codes, t, cells)`."""
    endpoint, table = prepared.fold.endpoint, prepared.table("select")
    counts = np.zeros((event_codes(endpoint), len(cells.times), HAZARD_CELLS))
    if len(table):
        target = cells.rounded(endpoint.encode(table)).double().numpy()
        time = np.searchsorted(cells.times, target[:, 0])
        assert endpoint.survival is not None
        hazard = hazard_cell(table[endpoint.survival.rank_column].to_numpy(np.float64))
        np.add.at(counts, (target[:, 1].astype(np.int64), time, hazard), 1)
    return counts


def unlimited_sets(tool: Specification, endpoint: Endpoint) -> list[Sets | Interval]:
    """Return the prediction sets, or the interval, of a tool without their limits."""
    return [] if tool.conformal is None else conformal.unlimited(tool.conformal, endpoint)


def _deviations(tool: Specification, prepared: PreparedFold) -> dict[str, Floats]:
    """Return the deviations of the true class by class, `(k, cells)`, or those of the true number, `(1, cells)`."""
    endpoint, table = prepared.fold.endpoint, prepared.table("select")
    patients = table[endpoint.has_target(table)] if len(table) else table
    sums = dict[str, Floats]()
    for number, part in enumerate(unlimited_sets(tool, endpoint)):
        if isinstance(part, Interval):
            true = endpoint.encode(patients).double().numpy() if len(patients) else np.zeros(0)
            deviations = part.deviations(patients, true) if len(patients) else np.zeros(0)
            sums[f"counts deviations {number}"] = histogram(ANY, deviations)[None]
            continue
        counts = np.zeros((len(part.classes), CELLS))
        if len(patients):
            truth = conformal.truths(endpoint, patients)[number]
            labelled = truth >= 0
            by_class = part.deviations(patients[labelled])
            own_class = by_class[np.arange(len(by_class)), truth[labelled]]
            np.add.at(counts, (truth[labelled], SHARES.cell(own_class)), 1)
        sums[f"counts deviations {number}"] = counts
    return sums


def _log_shares(prepared: PreparedFold) -> tuple[Floats, NDArray[np.int64]]:
    """Return log probabilities of all classes and the true class of select patients, `(p, k)` and `(p,)`."""
    endpoint, table = prepared.fold.endpoint, prepared.table("select")
    shares = table[list(endpoint.class_columns)].to_numpy(np.float64)
    return np.log(np.maximum(shares, 1e-300)), endpoint.labels(table)


def _losses(shares: Floats, label: NDArray[np.int64], power: float) -> Floats:
    return -np.asarray(log_softmax(power * shares, axis=1)[np.arange(len(label)), label])


def _parts(label: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [deal_out(label, seed) for seed in range(PARTITIONS)]


def _temperature(powers: Floats, prepared: PreparedFold) -> dict[str, Floats]:
    """Return summed log losses at inverse temperatures `(subsets, g)` and numbers of patients by subset and class."""
    shares, label = _log_shares(prepared)
    members = [np.ones(len(label), bool), *(part != at for part in _parts(label) for at in range(PARTS))]
    losses = [
        [float(_losses(shares[mask], label[mask], power).sum()) for power in row]
        for mask, row in zip(members, powers, strict=True)
    ]
    classes = shares.shape[1]
    counts = [np.bincount(label[mask], minlength=classes) for mask in members]
    return {"losses": np.array(losses), "counts subsets": np.array(counts, np.float64)}


def _temperature_check(powers: Floats, prepared: PreparedFold) -> dict[str, Floats]:
    """Return the summed log loss as it is, and with each part calibrated by the others, `(1 + parts,)`."""
    shares, label = _log_shares(prepared)
    before, members = _losses(shares, label, 1.0), [part == at for part in _parts(label) for at in range(PARTS)]
    after = [
        float(_losses(shares[mask], label[mask], power).sum()) for mask, power in zip(members, powers, strict=True)
    ]
    return {"losses": np.array([float(before.sum()), *after])}


def _turns(prepared: PreparedFold) -> NDArray[np.int64]:
    """Return the part of each training bag that is left out in turn."""
    return np.random.default_rng(0).permutation(len(prepared.fold.bags["train"])) % NOVELTY_PARTS


def _moments(prepared: PreparedFold) -> Floats:
    """Return number, sum and products of mean features by part, `(parts, 1 + d + d * d)`."""
    means, turn = prepared.means("train"), _turns(prepared)
    rows = (means[turn == part] for part in range(NOVELTY_PARTS))
    return np.stack([np.concatenate([[len(row)], row.sum(0), (row.T @ row).ravel()]) for row in rows])


def spaces_in(message: Message) -> list[Space]:
    """Return the spaces in a question: of all training bags, then of those outside each part."""
    arrays = [message.array(name) for name in ("means", "scales", "bases", "variances")]
    return [Space(*(array[place] for array in arrays)) for place in range(len(arrays[0]))]


def left_out_distances(question: Message, prepared: PreparedFold) -> Floats:
    """Return the log distances of each training bag from the bags of the other parts, `(b, 2)`."""
    means, turn, spaces = prepared.means("train"), _turns(prepared), spaces_in(question)
    distances = np.empty((len(means), 2))
    for part in range(NOVELTY_PARTS):
        distances[turn == part] = spaces[1 + part].log_distances(means[turn == part])
    return distances


def _left_out(question: Message, prepared: PreparedFold) -> dict[str, Floats]:
    distances = left_out_distances(question, prepared)
    return {"sums": np.stack([np.full(2, float(len(distances))), distances.sum(0), (distances**2).sum(0)])}


def _distances(question: Message, prepared: PreparedFold) -> dict[str, Floats]:
    """Return the distances of left-out training bags and of select bags, each as counts by cell."""
    middle, spread = question.array("middle"), question.array("spread")
    left_out = ((left_out_distances(question, prepared) - middle) / spread).max(1)
    select = np.zeros(0)
    if "select" in prepared.fold.data:
        select = ((spaces_in(question)[0].log_distances(prepared.means("select")) - middle) / spread).max(1)
    return {"counts train": histogram(ANY, left_out), "counts select": histogram(ANY, select)}

"""Assign whole sites to folds so that every fold has its share of every stratum.

F. M. Howard, J. Dolezal, S. Kochanny et al.: The impact of site-specific digital histology signatures on deep learning
model accuracy and bias. Nature Communications 12:4423, 2021: no site in two folds, classes balanced, there by
quadratic programming with a commercial solver. Here the objective is linear, the sum over the strata (and all patients
together) of the largest relative deviation of a fold from its even share, and HiGHS solves the mixed-integer programme.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import coo_array

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Places = NDArray[np.intp]

MOST = 30
"""Sites up to which the programme is solved; for more, the best of many greedy assignments is as good, and faster."""
_NODES = 400
_GAP = 0.02
_ORDERS = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Assignment:
    """Sites in folds.

    Attributes:
        fold_of_site: The fold of each site, `(s,)`.
        deviation: Each fold's count of each stratum less its even share, in patients, `(f, k)`.
        even: The even shares, `(k,)`.
    """

    fold_of_site: Places
    deviation: Floats
    even: Floats


def assign(counts: Counts, folds: int, seed: int, exact: bool = True) -> Assignment:
    """Assign sites to folds.

    The result is the best of many greedy assignments; up to `MOST` sites the programme is solved too, and the better
    one is returned. The solver is stopped by a number of nodes, not of seconds, so that the same seed gives the same
    folds on any machine.

    Args:
        counts: Patients of each site and stratum, `(s, k)`; every site has some.
        folds: Number of folds, at most as many as sites.
        seed: Seed of the orders in which sites are assigned, and of the numbers of the folds.
        exact: Solve the programme.
    """
    patients = np.column_stack([counts, counts.sum(1)]).astype(np.float64)  # (s, k + 1)
    patients = patients[:, patients.sum(0) > 0]
    shares = patients * folds / patients.sum(0)  # of a fold's even share
    rng = np.random.default_rng(seed)
    sizes = patients[:, -1]
    orders = [np.argsort(-sizes * rng.lognormal(0, 0.3, len(sizes)), kind="stable") for _ in range(_ORDERS)]
    candidates = [_greedy(shares, folds, order) for order in (np.argsort(-sizes, kind="stable"), *orders)]
    if exact and len(sizes) <= MOST:
        candidates += _solved(shares, folds)
    best = min(candidates, key=lambda fold_of_site: np.abs(_sums(fold_of_site, shares, folds) - 1).max(0).sum())
    fold_of_site = rng.permutation(folds)[best]
    even = counts.sum(0) / folds
    return Assignment(fold_of_site, _sums(fold_of_site, counts, folds) - even, even)


def _sums(fold_of_site: Places, table: Floats | Counts, folds: int) -> Floats:
    """Each fold's sum of the rows of its sites, `(f, k)`."""
    sums = np.zeros((folds, table.shape[1]))
    np.add.at(sums, fold_of_site, table)
    return sums


def _greedy(shares: Floats, folds: int, order: Places) -> Places:
    """Assign site after site to the fold that it brings nearest to even in squares; empty folds come first."""
    sums, fold_of_site = np.zeros((folds, shares.shape[1])), np.zeros(len(shares), dtype=np.intp)
    for site in order:
        increase = ((sums + shares[site] - 1) ** 2).sum(1) - ((sums - 1) ** 2).sum(1)
        fold_of_site[site] = increase.argmin()
        sums[fold_of_site[site]] += shares[site]
    return fold_of_site


def _solved(shares: Floats, folds: int) -> list[Places]:
    """Return the programme's assignment; nothing where the solver has found none within its nodes.

    Variables are `x[s, f]`, 1 where site s is in fold f, and `t[k]`, the largest relative deviation of stratum k. Folds
    are interchangeable, so site s, from the largest on, goes to one of the first s + 1.
    """
    sites, strata = shares.shape
    order = np.argsort(-shares[:, -1], kind="stable")
    x = np.arange(sites * folds).reshape(sites, folds)
    upper = np.ones(sites * folds + strata)
    upper[x[np.triu_indices(sites, 1, folds)]] = 0
    upper[sites * folds :] = np.inf
    solution: OptimizeResult = milp(
        np.append(np.zeros(sites * folds), np.ones(strata)),
        integrality=np.append(np.ones(sites * folds), np.zeros(strata)),
        bounds=Bounds(0, upper),
        constraints=[_once(x, strata), _filled(x, strata), *_within(x, shares[order])],
        options={"node_limit": _NODES, "mip_rel_gap": _GAP},
    )
    if solution.x is None:
        _log.debug("no assignment of %d sites within %d nodes: %s", sites, _NODES, solution.message)
        return []
    fold_of_site = np.empty(sites, dtype=np.intp)
    fold_of_site[order] = solution.x[x].argmax(1)
    return [fold_of_site]


def _once(x: Places, strata: int) -> LinearConstraint:
    """Every site has exactly one fold."""
    rows = np.repeat(np.arange(len(x)), x.shape[1])
    return LinearConstraint(coo_array((np.ones(x.size), (rows, x.ravel())), (len(x), x.size + strata)), 1, 1)


def _filled(x: Places, strata: int) -> LinearConstraint:
    """Every fold has a site."""
    rows = np.repeat(np.arange(x.shape[1]), len(x))
    return LinearConstraint(coo_array((np.ones(x.size), (rows, x.T.ravel())), (x.shape[1], x.size + strata)), 1, np.inf)


def _within(x: Places, shares: Floats) -> list[LinearConstraint]:
    """`|sum_s shares[s, k] x[s, f] - 1| <= t[k]` for every stratum and fold."""
    sites, strata = shares.shape
    folds = x.shape[1]
    row = np.arange(strata * folds).reshape(strata, folds)
    at = np.broadcast_to(row[:, None, :], (strata, sites, folds))
    values = np.broadcast_to(shares.T[:, :, None], at.shape)
    columns = np.broadcast_to(x[None], at.shape)
    bound = np.repeat(x.size + np.arange(strata), folds)
    where = (np.append(at.ravel(), row.ravel()), np.append(columns.ravel(), bound))
    shape = (strata * folds, x.size + strata)
    over, under = (coo_array((np.append(values.ravel(), np.full(row.size, t)), where), shape) for t in (-1.0, 1.0))
    return [LinearConstraint(over, -np.inf, 1), LinearConstraint(under, 1, np.inf)]

"""Whole sites dealt out to folds so that every fold has its share of every stratum.

F. M. Howard, J. Dolezal, S. Kochanny et al.: The impact of site-specific digital histology signatures on deep learning
model accuracy and bias. Nature Communications 12:4423, 2021: no site on two sides of a fold, classes balanced, there by
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

MOST = 60
"""Sites up to which the programme is solved; more are dealt out by exchange alone, which then comes close."""
_NODES = 400
_GAP = 0.02
_SWEEPS = 50
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Assignment:
    """Sites in folds.

    Attributes:
        parts: The fold of each site, `(s,)`.
        deviation: Each fold's count of each stratum less its even share, in patients, `(f, k)`.
        even: The even shares, `(k,)`.
    """

    parts: Places
    deviation: Floats
    even: Floats

    @property
    def cost(self) -> float:
        """What is minimised; zero where every fold has its share of everything."""
        return _cost(self.deviation, self.even)


def assign(counts: Counts, folds: int, seed: int, exact: bool = True) -> Assignment:
    """Deals sites out to folds.

    An exchange of sites from several starts gives a good assignment; up to `MOST` sites the programme is solved too,
    and the better of both is taken. The solver is stopped by a number of nodes, not of seconds, so that the same seed
    gives the same folds on any machine.

    Args:
        counts: Patients of each site and stratum, `(s, k)`.
        folds: How many, at most as many as sites.
        seed: Of the order in which sites are tried, and so of the choice among equals.
        exact: Solve the programme.
    """
    table = np.column_stack([counts, counts.sum(1)]).astype(np.float64)  # (s, k + 1)
    table = table[:, table.sum(0) > 0]
    even = table.sum(0) / folds
    rng = np.random.default_rng(seed)
    order = np.lexsort([rng.random(len(table)), -table[:, -1]])
    placed = table[order]
    found = [_exchanged(_dealt(placed, folds, even), placed, folds, even)]
    starts = 8 if len(placed) <= MOST else 2
    found += [_exchanged(rng.integers(0, folds, len(placed)), placed, folds, even) for _ in range(starts)]
    if exact and len(placed) <= MOST:
        found += [_exchanged(parts, placed, folds, even) for parts in _solved(placed, folds, even)]
    filled = [parts for parts in found if len(np.unique(parts)) == folds] or found[:1]
    best = min(filled, key=lambda parts: _cost(_deviation(parts, placed, folds, even), even))
    parts = np.empty(len(table), dtype=np.intp)
    parts[order] = rng.permutation(folds)[best]
    deviation = _deviation(parts, counts.astype(np.float64), folds, counts.sum(0) / folds)
    return Assignment(parts, deviation, counts.sum(0) / folds)


def _deviation(parts: Places, table: Floats, folds: int, even: Floats) -> Floats:
    sums = np.zeros((folds, table.shape[1]))
    np.add.at(sums, parts, table)
    return sums - even


def _cost(deviation: Floats, even: Floats) -> float:
    there = even > 0
    return float((np.abs(deviation[..., there]) / even[there]).max(0).sum())


def _dealt(table: Floats, folds: int, even: Floats) -> Places:
    """Sites from the largest on, each to the fold that it leaves nearest to even, empty ones first."""
    sums, parts = np.zeros((folds, table.shape[1])), np.zeros(len(table), dtype=np.intp)
    for site, own in enumerate(table):
        # squares prefer to fill what lacks most
        loss = (((sums + own - even) / even) ** 2).sum(1) - (((sums - even) / even) ** 2).sum(1)
        parts[site] = int(loss.argmin())
        sums[parts[site]] += own
    return parts


def _exchanged(parts: Places, table: Floats, folds: int, even: Floats) -> Places:
    """Moves a site or swaps two as long as it helps; the best of all changes each time."""
    parts = parts.copy()
    for _ in range(_SWEEPS * len(table)):
        now = _deviation(parts, table, folds, even)
        moves = [*_moved(parts, table, now, even), *_swapped(parts, table, now, even)]
        if not moves or min(moves)[0] >= _cost(now, even) - 1e-9:
            break
        _, site, other, fold = min(moves)
        if other >= 0:
            parts[site], parts[other] = parts[other], parts[site]
        else:
            parts[site] = fold
    return parts


Change = tuple[float, int, int, int]
"""Cost after it, the site, the site it is swapped with or -1, the fold it goes to."""


def _moved(parts: Places, table: Floats, now: Floats, even: Floats) -> list[Change]:
    """The best move of each site."""
    folds, found = len(now), list[Change]()
    kept = np.bincount(parts, minlength=folds) > 1
    for site, own in enumerate(table):
        if not kept[parts[site]]:
            continue
        after = np.repeat(now[None], folds, 0)  # (f, f, k)
        after[:, parts[site]] -= own
        after[np.arange(folds), np.arange(folds)] += own
        costs = (np.abs(after) / even).max(1).sum(1)
        costs[parts[site]] = np.inf
        to = int(costs.argmin())
        found.append((float(costs[to]), site, -1, to))
    return found


def _swapped(parts: Places, table: Floats, now: Floats, even: Floats) -> list[Change]:
    """The best swap of each site with one of another fold."""
    found = list[Change]()
    for site, own in enumerate(table[:-1]):
        others = np.flatnonzero(parts[site + 1 :] != parts[site]) + site + 1
        if not len(others):
            continue
        change = table[others] - own  # (m, k), what the site's own fold gains
        after = np.repeat(now[None], len(others), 0)
        after[:, parts[site]] += change
        after[np.arange(len(others)), parts[others]] -= change
        costs = (np.abs(after) / even).max(1).sum(1)
        best = int(costs.argmin())
        found.append((float(costs[best]), site, int(others[best]), -1))
    return found


def _solved(table: Floats, folds: int, even: Floats) -> list[Places]:
    """The programme's assignment; none where the solver has found none within its nodes.

    Variables are `x[s, f]`, 1 where site s is in fold f, and `t[k]`, the largest relative deviation of stratum k. Folds
    are alike, so site s, in the order given, goes to one of the first s + 1.
    """
    sites, strata = table.shape
    x = np.arange(sites * folds).reshape(sites, folds)
    upper = np.ones(sites * folds + strata)
    upper[x[np.triu_indices(sites, 1, folds)]] = 0
    upper[sites * folds :] = np.inf
    found: OptimizeResult = milp(
        np.append(np.zeros(sites * folds), np.ones(strata)),
        integrality=np.append(np.ones(sites * folds), np.zeros(strata)),
        bounds=Bounds(0, upper),
        constraints=[_once(x, strata), _filled(x, strata), *_within(x, table / even)],
        options={"node_limit": _NODES, "mip_rel_gap": _GAP},
    )
    if found.x is None:
        _log.debug("no assignment of %d sites within %d nodes: %s", sites, _NODES, found.message)
        return []
    return [found.x[x].argmax(1)]


def _once(x: Places, strata: int) -> LinearConstraint:
    """Every site has one fold."""
    rows = np.repeat(np.arange(len(x)), x.shape[1])
    return LinearConstraint(coo_array((np.ones(x.size), (rows, x.ravel())), (len(x), x.size + strata)), 1, 1)


def _filled(x: Places, strata: int) -> LinearConstraint:
    """Every fold has a site."""
    rows = np.repeat(np.arange(x.shape[1]), len(x))
    return LinearConstraint(coo_array((np.ones(x.size), (rows, x.T.ravel())), (x.shape[1], x.size + strata)), 1, np.inf)


def _within(x: Places, share: Floats) -> list[LinearConstraint]:
    """`|sum_s share[s, k] x[s, f] - 1| <= t[k]` for every stratum and fold."""
    sites, strata = share.shape
    folds = x.shape[1]
    row = np.arange(strata * folds).reshape(strata, folds)
    at = np.broadcast_to(row[:, None, :], (strata, sites, folds))
    values = np.broadcast_to(share.T[:, :, None], at.shape)
    columns = np.broadcast_to(x[None], at.shape)
    bound = np.repeat(x.size + np.arange(strata), folds)
    where = (np.append(at.ravel(), row.ravel()), np.append(columns.ravel(), bound))
    shape = (strata * folds, x.size + strata)
    over, under = (coo_array((np.append(values.ravel(), np.full(row.size, t)), where), shape) for t in (-1.0, 1.0))
    return [LinearConstraint(over, -np.inf, 1), LinearConstraint(under, 1, np.inf)]

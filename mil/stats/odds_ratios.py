"""Logistic regression with Wald's intervals, or the reason why it has no finite estimate."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from mil.stats.cox_regression import NotEstimableError
from mil.stats.estimate import LEVEL, Estimate
from mil.stats.logistic import logistic
from mil.stats.weights import Floats

METHOD = "Wald, logistic regression"
_FARTHEST = 15.0
"""Log odds above which the likelihood has no maximum."""


@dataclass(frozen=True)
class Odds:
    """A fitted model."""

    names: tuple[str, ...]
    weights: Floats
    """of the covariates, `(k,)`"""
    errors: Floats
    """standard errors, `(k,)`"""
    log_likelihood: float
    n: int
    events: int

    def ratio(self, name: str) -> Estimate:
        """Return a covariate's odds ratio, with Wald's interval and p."""
        place, z = self.names.index(name), float(stats.norm.ppf((1 + LEVEL) / 2))
        middle, error = self.weights[place], self.errors[place]
        log_odds = Estimate(
            value=middle,
            low=middle - z * error,
            high=middle + z * error,
            method=METHOD,
            p=float(2 * stats.norm.sf(abs(middle / error))),
            counts={"n": self.n, "events": self.events},
        )
        return log_odds.transformed(np.exp)

    def risk(self, covariates: pd.DataFrame) -> Floats:
        """Return log odds of patients `(p,)` against all covariates at zero."""
        return np.asarray(covariates[list(self.names)].to_numpy(np.float64) @ self.weights)


def fit(covariates: pd.DataFrame, event: NDArray[np.bool_], penalty: float = 0.0) -> Odds:
    """Fit by maximum likelihood, with an intercept.

    Args:
        covariates: `(p, k)`, numbers.
        event: `(p,)`, the positives.
        penalty: Of the squared coefficients of standardised covariates, for predictions, which have no errors.

    Raises:
        NotEstimableError: no more positives or negatives than covariates, a covariate that does not vary or follows
            from the others, or classes that they separate.
    """
    if not covariates.shape[1]:
        raise NotEstimableError("no covariate varies among the patients")
    if penalty:
        return _penalised(covariates, event, penalty)
    fewest = int(min(event.sum(), (~event).sum()))
    if fewest <= covariates.shape[1]:
        raise NotEstimableError(
            f"{fewest} patients of the rarer class are too few for {covariates.shape[1]} covariates"
        )
    design = np.column_stack([np.ones(len(covariates)), covariates.to_numpy(np.float64)])  # (p, k + 1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise NotEstimableError("a covariate does not vary among the patients, or follows from the others")
    weights = logistic(design, event)[0]
    eta = design @ weights
    if np.abs(eta).max() > _FARTHEST:
        raise NotEstimableError("the likelihood has no maximum: covariates separate the classes")
    share = expit(eta)
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (share * (1 - share))[:, None]))))
    log_likelihood = float(np.sum(event * eta - np.logaddexp(0, eta)))
    names = tuple(map(str, covariates.columns))
    return Odds(names, weights[1:], errors[1:], log_likelihood, len(event), int(event.sum()))


def _penalised(covariates: pd.DataFrame, event: NDArray[np.bool_], penalty: float) -> Odds:
    if event.all() or not event.any():
        raise NotEstimableError("all patients are of one class")
    values = covariates.to_numpy(np.float64)
    spread = values.std(axis=0)
    spread[spread == 0] = 1.0
    model = LogisticRegression(C=1 / (penalty * len(event)), max_iter=1000).fit(values / spread, event)
    unknown = np.full(values.shape[1], np.nan)
    names = tuple(map(str, covariates.columns))
    return Odds(names, model.coef_[0] / spread, unknown, float("nan"), len(event), int(event.sum()))

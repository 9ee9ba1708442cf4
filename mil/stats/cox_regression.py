"""Cox's model, by lifelines, or the reason why it has no finite estimate."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from lifelines.statistics import proportional_hazard_test
from numpy.typing import NDArray
from scipy.stats import chi2

from mil.stats.estimate import LEVEL, Estimate

METHOD = "Wald, Cox's model with Efron's ties"


class NotEstimableError(ValueError):
    """The patients do not determine an estimate; the message is one sentence for the report."""


@dataclass(frozen=True)
class Cox:
    """A fitted model and the table that it was fitted to."""

    model: CoxPHFitter
    frame: pd.DataFrame

    @property
    def log_likelihood(self) -> float:
        """Maximum of the partial log likelihood."""
        return float(self.model.log_likelihood_)

    def coefficient(self, name: str) -> Estimate:
        """Return the logarithm of a covariate's hazard ratio, with Wald's interval and p."""
        value, error = float(self.model.params_[name]), float(self.model.standard_errors_[name])
        low, high = self.model.confidence_intervals_.loc[name]
        return Estimate(
            value=value,
            low=float(low),
            high=float(high),
            method=METHOD,
            p=float(chi2.sf((value / error) ** 2, 1)),
            counts={"n": len(self.frame), "events": int(self.frame["event_"].sum())},
        )

    def ratio(self, name: str) -> Estimate:
        """Return a covariate's hazard ratio, with Wald's interval and p."""
        return self.coefficient(name).transformed(np.exp)

    def proportionality(self) -> dict[str, float]:
        """Return by covariate the p of Grambsch and Therneau's test that its hazard ratio does not change with time.

        Scaled Schoenfeld residuals against one minus Kaplan-Meier. Biometrika 81, 1994.
        """
        test = proportional_hazard_test(self.model, self.frame, time_transform="km")
        return {str(name): float(p) for name, p in zip(self.model.params_.index, test.p_value, strict=True)}

    def risk(self, covariates: pd.DataFrame) -> NDArray[np.float64]:
        """Return log hazard ratios of patients `(p,)` against all covariates at zero."""
        weights = self.model.params_
        return np.asarray(covariates[weights.index].to_numpy(np.float64) @ weights.to_numpy())


def fit(covariates: pd.DataFrame, time: NDArray[np.float64], event: NDArray[np.bool_], penalty: float = 0.0) -> Cox:
    """Fit proportional hazards with Efron's ties.

    Args:
        covariates: `(p, k)`, numbers.
        time: `(p,)`.
        event: `(p,)`.
        penalty: Of the squared coefficients of standardised covariates, for predictions; estimates have none.

    Raises:
        NotEstimableError: no more events than covariates, a covariate that does not vary, or a likelihood without a
            maximum.
    """
    if not covariates.shape[1]:
        raise NotEstimableError("no covariate varies among the patients")
    if not event.any() or (event.sum() <= covariates.shape[1] and not penalty):
        raise NotEstimableError(f"{int(event.sum())} events are too few for {covariates.shape[1]} covariates")
    centred = covariates.to_numpy(np.float64) - covariates.to_numpy(np.float64).mean(axis=0)
    if not penalty and np.linalg.matrix_rank(centred) < covariates.shape[1]:
        raise NotEstimableError("a covariate does not vary among the patients, or follows from the others")
    frame = covariates.astype(np.float64).assign(time_=time, event_=event.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # so that an estimate that does not converge is not printed
        try:
            fitter = CoxPHFitter(alpha=1 - LEVEL, penalizer=penalty)
            model = fitter.fit(frame, "time_", "event_", fit_options={"precision": 1e-9})
        except (ConvergenceWarning, ConvergenceError):
            raise NotEstimableError("the likelihood has no maximum: covariates and events are separated") from None
    return Cox(model, frame)

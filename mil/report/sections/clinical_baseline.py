"""Predictions from the clinical variables alone, by models of each fold's training patients."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from mil.endpoints.question import Question
from mil.endpoints.survival_view import SurvivalView
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.sections.clinical import Clinical
from mil.stats import cox_regression
from mil.stats.bootstrap import Floats

PENALTY = 0.1
"""Of Cox's squared coefficients, in standard deviations; a prediction has to exist for rare levels too."""
METHODS = {"logistic": "logistic regression with a ridge of 1", "cox": f"Cox's model with a ridge of {PENALTY}"}

_Fit = Callable[[pd.DataFrame, pd.DataFrame], Callable[[pd.DataFrame], Floats]]
"""From the design and the rows of training patients to a function from a design to probabilities."""


def answers(evaluation: Evaluation, clinical: Clinical, question: Question) -> "pd.Series[float]":
    """Return the probability of yes by patient, without the patients for whom no fold has a model."""

    def fit(design: pd.DataFrame, rows: pd.DataFrame) -> Callable[[pd.DataFrame], Floats]:
        truth = question.truth(rows)
        answered = ~np.isnan(truth)
        if len(set(truth[answered])) < 2:
            raise cox_regression.NotEstimableError("the training patients are all positive or all negative")
        model = LogisticRegression(max_iter=1000).fit(design[answered], truth[answered])
        return lambda others: np.asarray(model.predict_proba(others)[:, 1])

    return _by_fold(evaluation, clinical, fit)


def risks(evaluation: Evaluation, clinical: Clinical, view: SurvivalView, horizon: float) -> "pd.Series[float]":
    """Return the chance of the event until the horizon, without the patients for whom no fold has a model."""

    def fit(design: pd.DataFrame, rows: pd.DataFrame) -> Callable[[pd.DataFrame], Floats]:
        time, code = view.event_times(evaluation.endpoint.encode(rows)).numpy().T
        varying = design.loc[:, np.ptp(design.to_numpy(), axis=0) > 0]
        model = cox_regression.fit(varying, time, code == 1, PENALTY).model
        return lambda others: 1 - model.predict_survival_function(others[varying.columns], [horizon]).to_numpy()[0]

    return _by_fold(evaluation, clinical, fit)


def _by_fold(evaluation: Evaluation, clinical: Clinical, fit: _Fit) -> "pd.Series[float]":
    train, by_fold = dict(rows_of(evaluation.table, "train")), list[pd.Series]()
    for fold, rows in rows_of(evaluation.table, "report"):
        training = train[fold].set_index("patient")
        if training.empty:
            continue
        learnt, reported = list(training.index), list(rows["patient"])
        scale = clinical.fit(learnt)
        try:
            predict = fit(clinical.design(learnt, scale), training)
        except cox_regression.NotEstimableError:
            continue
        by_fold.append(pd.Series(predict(clinical.design(reported, scale)), index=reported))
    pooled = pd.concat(by_fold) if by_fold else pd.Series(dtype=np.float64)
    return pooled[~pooled.index.duplicated()]

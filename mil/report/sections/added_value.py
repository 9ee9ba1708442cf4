"""What a score adds to what the clinic knows already.

Two questions, two ways. Is the score associated with the outcome beside the covariates? Models of the reported patients
with and without it, where the score is in standard deviations of its fold's reported patients, so that folds can be
taken together. Does it order patients better? Models that were fitted before: covariates on each fold's training
patients, and both together on its select patients, whose scores did not train the weights; refitted ones would flatter.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from mil.endpoints.classification import Binary
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.survival import Survival
from mil.report.as_dict import as_dict
from mil.report.evaluation import Evaluation
from mil.report.predictions import rows_of
from mil.report.sections.clinical import Clinical, without_certain
from mil.stats import cox_regression, odds_ratios
from mil.stats.bootstrap import Score
from mil.stats.bootstrap_intervals import intervals
from mil.stats.classification_metrics import auroc
from mil.stats.cox_regression import NotEstimableError
from mil.stats.survival_metrics import c_index, competing_c_index
from mil.stats.weights import Floats

SCORE, CLINICAL = "score_", "clinical_"
"""Columns of the designs; a clinical column of that name is not to be feared."""
FEWEST = 10
"""Events, and for classes as many without, among select patients who weigh score against covariates."""


@dataclass(frozen=True)
class Outcome:
    """How patients fared: when and whether they had the event, or whether they are positives."""

    event: NDArray[np.bool_]
    time: Floats | None = None

    @classmethod
    def of(cls, endpoint: Endpoint, rows: pd.DataFrame) -> "Outcome":
        """Of predictions; of competing events the first cause."""
        target = endpoint.encode(rows.set_index("patient")).double().numpy()
        return cls(target[:, 1] == 1, target[:, 0]) if isinstance(endpoint, Survival) else cls(target == 1)

    def among(self, kept: NDArray[np.bool_]) -> "Outcome":
        """Of some of the patients."""
        return Outcome(self.event[kept], None if self.time is None else self.time[kept])

    @property
    def enough(self) -> bool:
        """Whether two coefficients can be fitted."""
        rarer = self.event.sum() if self.time is not None else min(self.event.sum(), (~self.event).sum())
        return bool(rarer >= FEWEST)

    def model(self, design: pd.DataFrame, penalty: float = 0.0) -> cox_regression.Cox | odds_ratios.Odds:
        """Cox's model or logistic regression.

        Raises:
            NotEstimableError: there is no finite estimate.
        """
        if self.time is None:
            return odds_ratios.fit(design, self.event, penalty)
        return cox_regression.fit(design, self.time, self.event, penalty)


def section(evaluation: Evaluation) -> dict[str, Any] | None:
    """Ratios, likelihood-ratio test and differences in discrimination; none without clinical columns.

    Of survival by Cox's model, of a binary endpoint by logistic regression; other endpoints have none.
    """
    clinical = Clinical.of(evaluation) if isinstance(evaluation.endpoint, Survival | Binary) else None
    if clinical is None:
        return None
    return {
        **evaluation.counts,
        "measure": "odds_ratio" if isinstance(evaluation.endpoint, Binary) else "hazard_ratio",
        "covariates": {
            "numeric": list(clinical.covariates.numeric),
            "categorical": {name: list(levels) for name, levels in clinical.covariates.categorical.items()},
            "absent": list(clinical.absent),
            "scaled_on": "all reported patients, missing values at the mean with an indicator",
        },
        **adjusted(evaluation, clinical),
        "discrimination": gained(evaluation, clinical),
    }


def adjusted(evaluation: Evaluation, clinical: Clinical) -> dict[str, Any]:
    """Models of the reported patients, one row a patient, with and without the score."""
    endpoint, rows = evaluation.endpoint, evaluation.reported.reset_index()
    outcome = Outcome.of(endpoint, rows)
    score = _standardised(evaluation)
    scale = clinical.fit(list(rows["patient"]))
    design = clinical.design(list(rows["patient"]), scale)
    references = clinical.references(design, outcome.event, outcome.time is None)
    design = design.drop(columns=list(references.values()))
    kept, dropped = without_certain(design, outcome.event, outcome.time is None)
    counts = {name: int((design[name] == 1).sum()) for name in map(str, design) if design[name].isin([0, 1]).all()}
    design, outcome = design[kept], outcome.among(kept)
    design = design.loc[:, design.nunique() > 1]
    result = _models(design, pd.Series(score[kept], index=design.index), outcome, references, counts)
    said = [{"name": name, "n": n, "reason": "all of them had the same outcome"} for name, n in dropped.items()]
    deviations = dict(zip(scale.numeric, scale.spread, strict=True))
    return result | {"standard_deviations": deviations, "left_out": said}


def _models(
    design: pd.DataFrame, score: pd.Series, outcome: Outcome, references: dict[str, str], counts: dict[str, int]
) -> dict[str, Any]:
    try:
        alone = outcome.model(score.to_frame(SCORE))
        without, both = outcome.model(design), outcome.model(design.assign(**{SCORE: score}))
    except NotEstimableError as reason:
        none = {"value": None, "reason": str(reason), "n": len(score), "events": int(outcome.event.sum())}
        return {"score": {"alone": none, "adjusted": none}, "rows": [], "likelihood_ratio": none}
    statistic = max(0.0, 2 * (both.log_likelihood - without.log_likelihood))
    rows = [
        {"name": name, "reference": references.get(name.partition("=")[0]), "with_level": counts.get(name)}
        | {"with_score": as_dict(both.ratio(name)), "without_score": as_dict(without.ratio(name))}
        for name in map(str, design)
    ]
    test = {"statistic": statistic, "freedom": 1, "p": float(stats.chi2.sf(statistic, 1))}
    return {
        "score": {
            "per": "standard deviation of the fold's reported patients",
            "alone": as_dict(alone.ratio(SCORE)),
            "adjusted": as_dict(both.ratio(SCORE)),
        },
        "rows": rows,
        "likelihood_ratio": test | {"n": len(score), "events": int(outcome.event.sum())},
    }


def _scores(endpoint: Endpoint, rows: pd.DataFrame) -> Floats:
    """The number that orders patients, `(p,)`: of classes the logit."""
    if isinstance(endpoint, Survival):
        return rows[endpoint.rank].to_numpy(np.float64)
    return np.asarray(endpoint.recode(rows).double().numpy()[:, 0])


def _standardised(evaluation: Evaluation) -> Floats:
    """In order of `evaluation.reported`, each patient's score as its first fold has it."""
    parts = []
    for _, rows in rows_of(evaluation.table, "report"):
        score = _scores(evaluation.endpoint, rows)
        spread = score.std(ddof=1) if len(score) > 1 else 0.0
        parts.append(pd.Series((score - score.mean()) / (spread or 1.0), index=rows["patient"].to_numpy()))
    every = pd.concat(parts)
    return np.asarray(every[~every.index.duplicated()].reindex(evaluation.reported.index).to_numpy(np.float64))


def gained(evaluation: Evaluation, clinical: Clinical) -> dict[str, Any]:
    """Discrimination of covariates, score and both, and its paired differences.

    A fold that cannot fit its clinical model counts for none of the three.
    """
    endpoint = evaluation.endpoint
    folds, fitted = [], []
    parts = (rows_of(evaluation.table, role) for role in ("report", "train", "select"))
    for fold, (name, rows), (_, train), (_, select) in zip(evaluation.folds, *parts, strict=True):
        try:
            scores, said = _ranked(endpoint, clinical, rows, train, select)
        except NotEstimableError as reason:
            scores, said = np.full((len(rows), 3), np.nan), {"reason": str(reason)}
        target = fold.target[:, :2].double() if isinstance(endpoint, Survival) else fold.target
        folds.append(fold._replace(logits=torch.from_numpy(scores), target=target))
        fitted.append({"fold": name} | said)
    found = intervals(_compared(endpoint), folds, evaluation.resamples, evaluation.seed)
    numbers = {name: as_dict(interval) | evaluation.counts for name, interval in found.items()}
    return {"metric": endpoint.metric, "fitted": fitted} | numbers


def _ranked(
    endpoint: Endpoint, clinical: Clinical, rows: pd.DataFrame, train: pd.DataFrame, select: pd.DataFrame
) -> tuple[Floats, dict[str, Any]]:
    """Covariates', score's and both's numbers of the reported patients, `(p, 3)`, and on whom they were fitted."""
    if train.empty:
        raise NotEstimableError("there are no training patients to fit the covariates")
    scale, outcome = clinical.fit(list(train["patient"])), Outcome.of(endpoint, train)
    design = clinical.design(list(train["patient"]), scale)
    kept = design.columns[np.ptp(design.to_numpy(), axis=0) > 0]
    # the ridge of scikit-learn's C = 1, so that rare levels keep finite weights
    model = outcome.model(design[kept], penalty=1 / len(train))

    def beside(patients: pd.DataFrame) -> pd.DataFrame:
        known = model.risk(clinical.design(list(patients["patient"]), scale)[kept])
        return pd.DataFrame({CLINICAL: known, SCORE: _scores(endpoint, patients)})

    weighed = select if len(select) and Outcome.of(endpoint, select).enough else train
    both = Outcome.of(endpoint, weighed).model(beside(weighed), penalty=1 / len(weighed))
    reported = beside(rows)
    on = {"clinical_on": "train", "clinical_n": len(train)}
    on |= {"both_on": "select" if weighed is select else "train", "both_n": len(weighed)}
    return np.column_stack([reported.to_numpy(), both.risk(reported)]), on


def _compared(endpoint: Endpoint) -> Score:
    def metric(score: Floats, target: Floats, weight: Floats | None) -> Floats:
        if not isinstance(endpoint, Survival):
            return auroc(score, target, weight)
        concordance = competing_c_index if isinstance(endpoint, CompetingRisks) else c_index
        return concordance(score, target[:, 0], target[:, 1], weight)

    def score(logits: Tensor, target: Tensor, weight: Floats | None) -> dict[str, Floats]:
        if logits.isnan().any():
            clinical = alone = both = np.full(() if weight is None else len(weight), np.nan)
        else:
            clinical, alone, both = (metric(column, target.numpy(), weight) for column in logits.numpy().T)
        apart = {"both_minus_clinical": both - clinical, "score_minus_clinical": alone - clinical}
        return {"clinical": clinical, "score": alone, "both": both} | apart

    return score

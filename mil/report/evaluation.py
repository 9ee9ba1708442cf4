"""What every section of a report reads: one checked table of predictions, and what it is evaluated with."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.question import Question
from mil.fitted.state import FittedState, refit
from mil.report.predictions import checked, report_folds, rows_of
from mil.stats.bootstrap import Fold
from mil.stats.corrected_resampled import mean_ratio
from mil.study.flow import FlowStep
from mil.study.tool import Tool


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions of one endpoint, checked.

    Attributes:
        table: `patient, fold, role`, targets and scores, in order of fold and patient.
        endpoint: What was predicted.
        tool: Decision, prevalences, subgroups and the like; almost empty for predictions made elsewhere.
        patients: The clinical table, indexed by patient; None without one.
        resamples: Number of resamples of every bootstrap.
        seed: Seed of every bootstrap.
        states: What was fitted with each fold's model, by fold; sections apply it and do not fit it again.
        comparators: Tables of other models' predictions of the same patients, by name: `baseline`, `covariates`, and
            `oracle` with columns `patient` and the endpoint's `oracle_columns`.
        flow: How the cohort of the study came about; empty where it is not known.
    """

    table: pd.DataFrame
    endpoint: Endpoint
    tool: Tool = field(default_factory=Tool)
    patients: pd.DataFrame | None = None
    resamples: int = 2000
    seed: int = 0
    states: Mapping[Hashable, FittedState] = field(default_factory=dict)
    comparators: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    flow: tuple[FlowStep, ...] = ()

    @classmethod
    def of(
        cls,
        predictions: pd.DataFrame,
        endpoint: Endpoint,
        tool: Tool | None = None,
        patients: pd.DataFrame | None = None,
        resamples: int = 2000,
        seed: int = 0,
        states: Mapping[Hashable, FittedState] | None = None,
        comparators: Mapping[str, pd.DataFrame] | None = None,
    ) -> "Evaluation":
        """Check the table and return its evaluation.

        Raises:
            PredictionsError: the table cannot be evaluated.
        """
        return cls(
            checked(predictions, endpoint),
            endpoint,
            tool or Tool(),
            patients,
            resamples,
            seed,
            dict(states or {}),
            dict(comparators or {}),
        )

    @classmethod
    def refitted(
        cls,
        predictions: pd.DataFrame,
        endpoint: Endpoint,
        tool: Tool | None = None,
        patients: pd.DataFrame | None = None,
        resamples: int = 2000,
        seed: int = 0,
        comparators: Mapping[str, pd.DataFrame] | None = None,
    ) -> "Evaluation":
        """Return an evaluation whose states are fitted to the table's own training and selection rows.

        For predictions that no checkpoint stands behind.

        Raises:
            PredictionsError: the table cannot be evaluated.
            ConfigError: the tool asks for something that does not exist.
        """
        bare = cls.of(predictions, endpoint, tool, patients, resamples, seed, comparators=comparators)
        return replace(bare, states=refit(bare.table, endpoint, bare.tool))

    def state(self, fold: Hashable) -> FittedState:
        """Return what was fitted with a fold's model; an empty state where no checkpoint of the fold is at hand."""
        return self.states.get(fold, FittedState())

    @cached_property
    def folds(self) -> list[Fold]:
        """Logits, targets, strata and patients of each fold's report rows."""
        return report_folds(self.table, self.endpoint)

    @cached_property
    def fold_ratio(self) -> float | None:
        """Reported patients of a fold over those that its model was fitted to, on average.

        None where folds do not say how models differ that are trained anew: one fold, or several that all report the
        same patients. A fold without training rows was fitted to the patients that it does not report.
        """
        if len(self.folds) < 2 or len({tuple(map(str, np.asarray(fold.patients))) for fold in self.folds}) == 1:
            return None
        everybody = len(self.reported)
        fitted = []
        for fold, (name, _) in zip(self.folds, rows_of(self.table, "report"), strict=True):
            of_fold = self.table[self.table["fold"] == name]
            fitted.append(int((of_fold["role"] != "report").sum()) or everybody - len(fold.target))
        return mean_ratio([len(fold.target) for fold in self.folds], fitted)

    @cached_property
    def reported(self) -> pd.DataFrame:
        """Report rows indexed by patient, each patient as in the first fold that reports it.

        Decisions, probabilities and groups can be pooled over folds; scores that only order patients cannot.
        """
        rows = self.table[self.table["role"] == "report"]
        return rows.drop_duplicates("patient").set_index("patient")

    @cached_property
    def questions(self) -> list[Question]:
        """The yes-or-no questions of the endpoint; none for survival and regression."""
        return self.endpoint.questions()

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of reported patients, `n`, and of the positives, classes or events among them."""
        return self.endpoint.counts(self.endpoint.encode(self.reported))

    def parts(self) -> dict[str, "Evaluation"]:
        """Return an evaluation for each of several endpoints that has reported patients, with its own decision."""
        endpoints = self.endpoint.parts()
        decisions, parts = self.tool.decisions_by_endpoint() if endpoints else {}, dict[str, Evaluation]()
        for name, endpoint in endpoints.items():
            table = self.table[endpoint.has_target(self.table)].reset_index(drop=True)
            if (table["role"] == "report").any():
                tool = self.tool.model_copy(update={"decision": decisions.get(name)})
                states = {fold: state.of_endpoint(name) for fold, state in self.states.items()}
                parts[name] = replace(self, table=table, endpoint=endpoint, tool=tool, states=states, comparators={})
        return parts

"""What every section of a report reads: one checked table of predictions and what is known beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from mil.endpoints.endpoint import Endpoint
from mil.endpoints.question import Question
from mil.endpoints.several import Several
from mil.report.predictions import checked, report_folds
from mil.stats.bootstrap import Fold


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions of one endpoint, checked.

    Attributes:
        table: `patient, fold, role`, targets and scores, in order of fold and patient.
        endpoint: What was predicted.
        tool: The tool's yaml: decision, prevalences, subgroups and the like; empty for predictions made elsewhere.
        patients: What the clinical table says of each patient, by name; none where it is not at hand.
        resamples: Of every bootstrap.
        seed: Of every bootstrap.
        frozen: `fitted` of a checkpoint's manifest, where a cohort is evaluated that it was not trained on: nothing is
            fitted to that. None where each fold's own train and select patients are in the table.
    """

    table: pd.DataFrame
    endpoint: Endpoint
    tool: Mapping[str, Any] = field(default_factory=dict)
    patients: pd.DataFrame | None = None
    resamples: int = 2000
    seed: int = 0
    frozen: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        predictions: pd.DataFrame,
        endpoint: Endpoint,
        tool: Mapping[str, Any] | None = None,
        patients: pd.DataFrame | None = None,
        resamples: int = 2000,
        seed: int = 0,
        frozen: Mapping[str, Any] | None = None,
    ) -> "Evaluation":
        """With the table checked.

        Raises:
            PredictionsError: a table that cannot be evaluated.
        """
        return cls(checked(predictions, endpoint), endpoint, dict(tool or {}), patients, resamples, seed, frozen)

    @cached_property
    def folds(self) -> list[Fold]:
        """What each fold reports: logits, targets, strata of resampling, names."""
        return report_folds(self.table, self.endpoint)

    @cached_property
    def reported(self) -> pd.DataFrame:
        """Report rows, one a patient as its first fold has it, indexed by patient.

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
        """Of the reported patients: `n`, and the positives, classes or events among them."""
        return self.endpoint.counts(self.endpoint.encode(self.reported))

    def parts(self) -> dict[str, "Evaluation"]:
        """Where the endpoint is several: each one's own patients and decision; not those of whom nobody is known."""
        if not isinstance(self.endpoint, Several):
            return {}
        decisions, found = self.tool.get("decision") or {}, {}
        for name, one in self.endpoint.endpoints.items():
            known = self.table[one.known(self.table)].reset_index(drop=True)
            if (known["role"] == "report").any():
                tool = {**self.tool, "decision": decisions.get(name)}
                found[name] = replace(self, table=known, endpoint=one, tool=tool)
        return found

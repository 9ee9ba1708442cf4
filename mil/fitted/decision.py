"""A fitted decision: what is summed into a score, where it is cut, and what the zones are called."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from mil.endpoints.endpoint import numbers
from mil.errors import ConfigError, PredictionsError
from mil.fitted.guarantee import AveragePromise, Guarantee, cut_from_positives
from mil.fitted.rules import AnyRule, ArgmaxRule, NoRule, Output, SensitivityRule, TwoCutsRule, YoudenRule, parse_rule

ABSTAINED, BETWEEN = "abstained", "indeterminate"
On = Literal["select", "train", "stated beforehand", "known positives"]


class Decision(BaseModel):
    """Cuts of one score with the names of the zones between them, or the likeliest of several classes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    """of the question, or of the score where there is no question"""
    columns: tuple[str, ...]
    """summed into the score; for `argmax` compared"""
    rule: Annotated[AnyRule | NoRule, BeforeValidator(parse_rule)]
    """as the tool states it"""
    cuts: tuple[float, ...]
    """increasing; for `argmax` the least probability of a call, where there is one"""
    calls: tuple[str, ...]
    """names of the zones from the lowest; for `argmax` the classes, then the call for abstaining"""
    outputs: tuple[Output, ...] = ()
    """what each call means, in the same order; empty where the tool does not say"""
    on: On
    """whose scores set the cuts"""
    n: int = 0
    """patients who set the cuts; 0 where they were stated beforehand"""
    positives: int | None = None
    """positives or events among them; None where there is no such thing"""
    achieved: dict[str, float | None] = {}
    """rates, or shares of the zones, of these patients"""
    note: str | None = None
    """which promise the rule could not keep"""
    promises: tuple[AveragePromise, ...] = ()
    """of cuts that select patients set for a sensitivity or a specificity"""
    guarantee: Guarantee | None = None
    """of cuts set on known positives"""

    @model_validator(mode="after")
    def _zones(self) -> "Decision":
        expected = max(len(self.columns), 2) + len(self.cuts) if self.likeliest else len(self.cuts) + 1
        if len(self.calls) != expected or not self.columns or list(self.cuts) != sorted(self.cuts):
            raise ValueError(f"{len(self.cuts)} cuts, {len(self.columns)} columns and {len(self.calls)} calls")
        if self.outputs and tuple(output.name for output in self.outputs) != self.calls:
            raise ValueError(f"outputs {', '.join(output.name for output in self.outputs)} are not the calls")
        return self

    @property
    def between(self) -> str | None:
        """The call that decides nothing: between two cuts, or where no class is likely enough."""
        if self.likeliest:
            return self.calls[-1] if self.cuts else None
        return self.calls[1] if isinstance(self.rule, TwoCutsRule) and len(self.cuts) == 2 else None

    def promise_sentences(self) -> list[str]:
        """Return what the cuts promise for further patients, and what they do not."""
        sentences = [] if self.guarantee is None else [self.guarantee.sentence()]
        sentences += [promise.sentence() for promise in self.promises]
        for measure in self.rule.promises():
            side, cut = ("below", "lower cut") if measure == "npv" else ("above", "upper cut")
            reached = self.achieved.get(measure, self.achieved.get(f"{measure}, {cut}"))
            if measure in ("npv", "ppv") and reached is not None and self.on == "select":
                sentences.append(
                    f"The {measure.upper()} of {reached:.6g} {side} the cut is that of the {self.n} {self.on} patients "
                    "by whom the cut was chosen; no value is promised for further patients, and a lower one is to be "
                    "expected."
                )
        return sentences

    @property
    def likeliest(self) -> bool:
        """Whether the likeliest class is called, and no score is cut."""
        return isinstance(self.rule, ArgmaxRule)

    def score(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """Return the score that is cut, `(p,)`.

        Raises:
            PredictionsError: a column is missing.
        """
        return total(table, self.columns)

    def call(self, table: pd.DataFrame) -> NDArray[np.object_]:
        """Return the zone or class of each patient, `(p,)`; None without a score. A score at a cut is above it.

        Raises:
            PredictionsError: a column is missing.
        """
        if self.likeliest:
            return self._likeliest(numbers(table, self.columns).numpy())
        score = self.score(table)
        zone = np.searchsorted(self.cuts, score, side="right")
        calls = np.array(self.calls, dtype=object)[zone]
        calls[np.isnan(score)] = None
        return calls

    def _likeliest(self, shares: NDArray[np.float64]) -> NDArray[np.object_]:
        shares = np.concatenate([1 - shares, shares], axis=1) if shares.shape[1] == 1 else shares  # (p, c)
        calls: NDArray[np.object_] = np.array(self.calls, dtype=object)[shares.argmax(axis=1)]
        if self.cuts:
            calls[shares.max(axis=1) < self.cuts[0]] = self.calls[-1]
        calls[np.isnan(shares).any(axis=1)] = None
        return calls


def total(table: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """Return the sum of columns `(p,)`, added from the left, so that a score that set a cut is the same number again.

    Raises:
        PredictionsError: a column is missing.
    """
    score, *addends = numbers(table, columns).numpy().T
    for addend in addends:
        score = score + addend
    return np.asarray(score)


def apply(decisions: Sequence[Decision], table: pd.DataFrame) -> pd.DataFrame:
    """Return the calls of each row: column `call` for one decision, `call_<name>` for each of several.

    Raises:
        PredictionsError: a column of scores is missing.
    """
    names = ["call"] if len(decisions) == 1 else [f"call_{decision.name}" for decision in decisions]
    calls = {name: decision.call(table) for name, decision in zip(names, decisions, strict=True)}
    return pd.DataFrame(calls, index=table.index, dtype=object)


def recalibrate(decision: Decision, scores: ArrayLike, sensitivity: float = 0.95, confidence: float = 0.95) -> Decision:
    """Return the decision with its lowest cut set on known positives of a new site or scanner.

    Args:
        decision: One that rules out: of a sensitivity, by Youden, or of two cuts, whose upper cut stays.
        scores: `Decision.score` of known positives, `(k,)`.
        sensitivity: What is promised.
        confidence: How often the promise holds.

    Raises:
        ConfigError: a decision without a cut that rules out.
        PredictionsError: too few positives to carry the promise, or they lie above the upper cut.
    """
    if not isinstance(decision.rule, SensitivityRule | YoudenRule | TwoCutsRule):
        rule = decision.rule.rule
        raise ConfigError(f"decision {decision.name}: rule {rule!r} rules nobody out, expected sensitivity or two_cuts")
    guarantee = cut_from_positives(scores, sensitivity, confidence)
    cuts = (guarantee.cut, *decision.cuts[1:])
    if list(cuts) != sorted(cuts):
        raise PredictionsError(
            f"decision {decision.name}: known positives set the lower cut to {cuts[0]:.6g}, "
            f"expected it below the upper cut {cuts[1]:.6g}"
        )
    share = float(np.mean(np.asarray(scores) >= guarantee.cut))
    fresh = {
        "cuts": cuts,
        "on": "known positives",
        "n": guarantee.positives,
        "positives": guarantee.positives,
        "achieved": {"sensitivity, lower cut" if len(cuts) == 2 else "sensitivity": share},
        "note": None,
        "promises": tuple(promise for promise in decision.promises if promise.measure != "sensitivity"),
        "guarantee": guarantee,
    }
    return decision.model_copy(update=fresh)

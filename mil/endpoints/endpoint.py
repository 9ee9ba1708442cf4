"""What a tool predicts: its target, its loss, its score, its output, and what can be reported about it."""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.endpoints.explained import Explained
from mil.endpoints.question import Question, class_question
from mil.endpoints.survival_view import SurvivalView
from mil.errors import ConfigError, PredictionsError

Scores = dict[str, NDArray[np.float64]]
State = dict[str, Any]
"""What an endpoint has fitted, in plain JSON types; only the endpoint itself reads it."""

PROBABILITY_CALIBRATIONS = ("temperature", "platt", "isotonic")
"""Calibration methods for the probabilities of yes-or-no questions, see `mil.fitted.calibrators`."""
RISK_CALIBRATIONS = ("baseline", "baseline_slope")
"""Calibration methods for risks at horizons, see `mil.fitted.risk_calibration`."""


def _recording(constructor: Callable[..., None]) -> Callable[..., None]:
    """Return the constructor, which also sets `arguments` where no constructor of a subclass has done so."""

    @functools.wraps(constructor)
    def recorded(self: "Endpoint", *positional: Any, **named: Any) -> None:
        if "arguments" not in vars(self):
            self.arguments = named | dict(zip(list(signature.parameters)[1:], positional, strict=False))
        constructor(self, *positional, **named)

    signature = inspect.signature(constructor)
    return recorded


class Ranking(NamedTuple):
    """Scores that order patients by the answer to one yes-or-no question."""

    score: NDArray[np.float64]
    """`(p,)`, higher for yes"""
    truth: NDArray[np.float64]
    """`(p,)`, 1 for yes, 0 for no, NaN where unknown"""


class Part(NamedTuple):
    """One endpoint of a tool of several, with the patients who have its target."""

    name: str
    endpoint: "Endpoint"
    mask: NDArray[np.bool_]
    """which patients have its target, `(p,)`"""
    target: Tensor
    """of those patients, as the endpoint itself encodes it"""


class Endpoint(ABC):
    """Target, loss, score and output of one prediction.

    What is fitted to patients (class weights, a baseline hazard) is fitted on training patients only, by `fit` before
    training and `finish` after it, and is stored in the checkpoint's manifest as `state`.

    An endpoint also declares what its predictions are: answers to yes-or-no questions, probabilities of exclusive
    classes or of independent labels, a number, or times to an event. Thresholds, calibration, prediction sets and the
    sections of the report read these declarations, never the class of the endpoint.
    """

    arguments: Mapping[str, Any] = {}
    """what the constructor was called with, by parameter, without defaults: enough to build the endpoint anew"""
    metric: ClassVar[str]
    """key of `score` that ranks models; larger is better"""
    task: ClassVar[str] = "other"
    """task name on a model hub: classification, regression, survival"""
    partial: ClassVar[bool] = False
    """True where a patient may lack some of the columns, though not all of them"""
    nested_option: ClassVar[str | None] = None
    """argument of the constructor that takes endpoints by name"""
    columns: tuple[str, ...]
    """columns of the cohort that the target is made of"""
    out_dim: int
    """logits per bag, c"""
    groups: tuple[int, ...] | None = None
    """logits of each endpoint where there are several in one; else None"""
    alone: bool = True
    """False where the loss compares patients, so that a single patient has none"""
    partial_likelihood: str | None = None
    """how tied times are treated, `efron` or `breslow`, where the loss is Cox's; a third column of targets is the
    stratum"""

    classes: tuple[str, ...] = ()
    """mutually exclusive classes, in the order of the target's indices; empty where there are none"""
    ordered: ClassVar[bool] = False
    """True where the classes are grades, from the lowest to the highest"""
    called_by: ClassVar[str] = "likeliest class"
    """how `call_classes` chooses, in words"""
    value_column: str | None = None
    """column of the predictions with a number in the unit of the target; None where no number is predicted"""
    spread_column: str | None = None
    """column with the standard deviation of that number; None where none is predicted"""
    quantile_columns: Mapping[float, str] = {}
    """columns with quantiles of that number by level, rising; empty where none are predicted"""
    unit: str | None = None
    """of the number, or of the times to an event"""

    def __init_subclass__(cls, **options: Any) -> None:
        """Let constructors record their arguments, so that an endpoint made in Python can be written to a config."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            type.__setattr__(cls, "__init__", _recording(vars(cls)["__init__"]))

    def has_target(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which patients have a target, `(p,)`: every column is filled, or any of them where `partial`."""
        cells = table[list(self.columns)]
        filled = cells.notna() & cells.astype(str).apply(lambda column: column.str.strip() != "")
        return np.asarray(filled.any(axis=1) if self.partial else filled.all(axis=1), dtype=np.bool_)

    @abstractmethod
    def encode(self, table: pd.DataFrame) -> Tensor:
        """Return the targets of `p` patients from their columns, `(p,)` or `(p, k)`.

        Raises:
            CohortError: a value is not a valid target, such as an unknown label or a time that is not positive.
        """

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the training loss, `()`, of logits `(b, c)`."""

    def membership(self, target: Tensor) -> Tensor | None:
        """Return whether each bag belongs to the class of each logit, `(b, c)`: 1, 0, or NaN where unknown.

        Models with an auxiliary loss on tiles use it. None for endpoints without classes.
        """
        return None

    @abstractmethod
    def score(self, logits: Tensor, target: Tensor, weight: NDArray[np.float64] | None = None) -> Scores:
        """Return the metrics of logits `(p, c)`, NaN where the patients do not define one.

        Args:
            logits: `(p, c)`.
            target: As `encode` returns it.
            weight: Patient weights `(r, p)`; a bootstrap resample is a row of multiplicities.

        Returns:
            By name, `()` each, or `(r,)` with weights.
        """

    def rankings(self, logits: Tensor, target: Tensor) -> dict[str, list[Ranking]]:
        """Return the rankings whose areas under the ROC curve a metric is the mean of, by its name in `score`.

        Intervals and tests of these metrics are DeLong's. Empty for endpoints without such metrics.

        Args:
            logits: `(p, c)`.
            target: As `encode` returns it.
        """
        return {}

    @abstractmethod
    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Return the columns of predictions.csv, `(p,)` each."""

    @abstractmethod
    def recode(self, table: pd.DataFrame) -> Tensor:
        """Return logits `(p, c)` from the columns that `decode` wrote, so that foreign scores can be evaluated.

        Raises:
            PredictionsError: a column is missing or out of its range.
        """

    @property
    def oracle_columns(self) -> tuple[str, ...]:
        """Columns of a simulated cohort's truth that hold the scores of an optimal classifier."""
        return ("oracle",)

    def from_oracle(self, scores: Tensor) -> Tensor:
        """Return the logits `(p, c)` of an optimal classifier from its scores `(p, k)`, one per oracle column."""
        return scores

    def legend(self) -> str:
        """Return what the columns of `decode` mean, in Markdown, for the card."""
        return ", ".join(f"`{name}`" for name in self.decode(torch.zeros(1, self.out_dim))) + "."

    def counts(self, target: Tensor) -> dict[str, int]:
        """Return the counts that every number is printed with: `n`, and positives, classes or events."""
        return {"n": len(target)}

    def strata(self, target: Tensor) -> NDArray[np.int64]:
        """Return the stratum of each patient, `(p,)`; every split keeps the strata in proportion."""
        return np.zeros(len(target), dtype=np.int64)

    def fit(self, target: Tensor, balance: bool = False) -> None:
        """Fit what the loss needs to the targets of the training patients; `balance` asks for class weights."""

    def finish(self, logits: Tensor, target: Tensor) -> None:
        """Fit what the predictions need to the logits of the training patients, after training."""

    def state(self) -> State:
        """Return everything fitted, in plain JSON types."""
        return {}

    def load_state(self, state: State) -> None:
        """Restore what `state` returned."""

    def questions(self) -> list[Question]:
        """Return the yes-or-no questions that the predictions answer; none for survival and regression."""
        return []

    def joint_question(self, positive: Collection[str]) -> Question:
        """Return the question in which several classes together count as yes.

        Raises:
            ConfigError: the endpoint has no columns of classes, or `positive` is none or all of them.
        """
        chosen = {str(name) for name in positive}
        names = ", ".join(map(str, positive)) or "nothing"
        if len(self.class_columns) < 2:
            raise ConfigError(f"decision: positive {names}, expected an endpoint of several classes")
        if not chosen or not chosen < set(self.classes):
            raise ConfigError(f"decision: positive {names}, expected some of the classes {', '.join(self.classes)}")
        yes = [name for name in self.classes if name in chosen]
        no = [name for name in self.classes if name not in chosen]
        return class_question(self, yes, " or ".join(yes), " or ".join(no), " or ".join(yes))

    def explained(self) -> tuple[Explained, ...]:
        """Return the numbers that an explanation of a prediction is about, the main one first; by default the logits.

        Numbers that need something fitted, such as risks at a horizon, are left out before it is fitted.
        """
        return tuple(
            Explained(f"logit {number + 1}", f"raises logit {number + 1}", "logit") for number in range(self.out_dim)
        )

    def explained_values(self, logits: Tensor) -> Tensor:
        """Return these numbers, `(b, o)`, from logits `(b, c)`; it can be differentiated."""
        return logits

    @property
    def class_columns(self) -> tuple[str, ...]:
        """Columns of the predictions with the probabilities of `classes`; one column where there are two classes."""
        return tuple(f"p_{name}" for name in self.classes)

    def labels(self, table: pd.DataFrame) -> NDArray[np.int64]:
        """Return the true class of each patient as its index in `classes`, `(p,)`."""
        return self.encode(table).long().numpy()

    def class_probabilities(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """Return the predicted probability of each class, `(p, k)`."""
        values = table[list(self.class_columns)].to_numpy(np.float64)
        return np.hstack([1 - values, values]) if values.shape[1] == 1 else values

    def call_classes(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the index of each patient's called class, `(p,)`, from the probabilities of all classes `(p, k)`."""
        return np.asarray(probabilities.argmax(1), dtype=np.int64)

    @property
    def declared_words(self) -> Mapping[str, tuple[str, ...]]:
        """Words with a meaning by column, such as names of classes; they are never read as missing values."""
        return {}

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Columns of the cohort with yes-or-no labels that do not exclude each other; empty where there are none."""
        return ()

    @property
    def survival(self) -> SurvivalView | None:
        """Columns, horizons and causes where the target is a time to an event, else None."""
        return None

    def parts(self) -> Mapping[str, "Endpoint"]:
        """Return the endpoints within by name, where this is a tool of several; else empty."""
        return {}

    @property
    def part_weights(self) -> Mapping[str, float]:
        """The weight of each loss within by name, where this is a tool of several; else empty."""
        return {}

    @property
    def part_columns(self) -> Mapping[str, slice]:
        """The columns of each target within by name, where this is a tool of several; else empty."""
        return {}

    @property
    def compares_pairs(self) -> bool:
        """Whether the loss has a term over pairs of patients."""
        return any(part.compares_pairs for part in self.parts().values())

    def part_targets(self, target: Tensor) -> Iterator[Part]:
        """Yield each endpoint within, with the targets of the patients who have one."""
        yield from ()

    def events(self, target: Tensor) -> NDArray[np.bool_] | None:
        """Return whose follow-up ended with an event, `(p,)`; None where patients are not followed."""
        return None

    def resampling_strata(self, target: Tensor) -> NDArray[np.int64] | None:
        """Return the strata within which patients are resampled, `(p,)`; None to resample all patients alike."""
        return self.strata(target) if self.classes else None

    @property
    def columns_beyond_follow_up(self) -> frozenset[str]:
        """Columns of the predictions that may be missing: risks at horizons that training follow-up does not reach."""
        risks = () if self.survival is None else self.survival.all_risk_columns()
        return frozenset(name for names in risks for name in names)

    @property
    def pooled_metrics(self) -> frozenset[str]:
        """Keys of `score` that are computed over the patients of all folds together: those of values in a unit."""
        return frozenset()

    @property
    def group_score(self) -> str | None:
        """Column of the predictions that the rule `quantiles` may divide into groups; None where there is none."""
        return self.value_column if self.survival is None else self.survival.rank_column

    @property
    def calibration_methods(self) -> tuple[str, ...]:
        """Calibration methods that a tool may ask for; empty where there is nothing to calibrate."""
        if self.survival is not None:
            return RISK_CALIBRATIONS if self.survival.horizons else ()
        return PROBABILITY_CALIBRATIONS if self.questions() else ()

    @property
    def sections_left_out(self) -> frozenset[str]:
        """Keys of the report sections that make no sense for this endpoint."""
        keys = set[str]()
        if self.parts():
            keys |= {"operating_points", "subgroups", "site"}
        if not self.questions() and self.value_column is None:
            keys |= {"discrimination", "calibration", "conformal"}
        if not self.questions() and self.survival is None:
            keys.add("site_synthesis")
        if self.survival is None:
            keys |= {"survival", "groups", "d_calibration"}
        if not self.questions() and (self.survival is None or not self.survival.horizons):
            keys.add("utility")
        if self.survival is None and len(self.class_columns) != 1:
            keys.add("added_value")
        return frozenset(keys)

    @property
    def prediction_columns(self) -> frozenset[str]:
        """Every column that `decode` may write, including risks at horizons, which need a fitted baseline."""
        columns = set(self.decode(torch.zeros(1, self.out_dim)))
        for risks in self.survival.all_risk_columns() if self.survival is not None else ():
            columns |= set(risks)
        return frozenset(columns)


def numbers(table: pd.DataFrame, columns: Sequence[str]) -> Tensor:
    """Return columns of a table of predictions, `(p, k)`, in double precision.

    Raises:
        PredictionsError: a column is missing.
    """
    missing = [name for name in columns if name not in table]
    if missing:
        raise PredictionsError(f"predictions: no column {missing[0]!r}, found {', '.join(map(str, table.columns))}")
    return torch.tensor(table[list(columns)].to_numpy(np.float64))

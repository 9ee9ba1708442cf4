"""How much models of one method differ about the same patients, as `mil evaluate RUN --instability` measures it."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, ValidationError

from mil.errors import ReportError
from mil.report.evaluation import Evaluation
from mil.report.schema import Model, Row, Section, Sentence
from mil.stats.estimate import format_number
from mil.storage import read_bytes

FOLDER, FILE = "instability", "instability.json"
"""Of a run."""


class ScoreInstability(Model):
    """How much the models differ in one predicted number."""

    name: str
    n: int
    """patients with two models or more"""
    fewest_models: int
    """of a patient"""
    most_models: int
    mean_error: float = Field(title="Mean absolute prediction error")
    """mean over patients"""
    median_error: float
    ninth_decile: float = Field(title="Error that a tenth of the patients exceed")

    @property
    def sentence(self) -> str:
        """The errors in words, with the number of patients."""
        return (
            f"{self.name}: mean absolute prediction error {format_number(self.mean_error)}, median "
            f"{format_number(self.median_error)}, a tenth of the patients above "
            f"{format_number(self.ninth_decile)}; {self.n} patients"
        )


class _Compared(Model):
    source: Sentence
    """which models predicted which patients, and what follows from it"""
    models: int = Field(title="Models compared")
    shared_training: float | None = Field(default=None, title="Training patients that two models share")
    """share of a model's training patients that another one was trained on too, mean over pairs"""
    scores: tuple[ScoreInstability, ...]

    def lines(self) -> Iterator[str]:
        """Yield the result in sentences."""
        yield self.source
        yield from (score.sentence for score in self.scores)


class InstabilityResult(_Compared):
    """What `mil evaluate RUN --instability` writes to `instability.json`."""

    tool: str | None = None
    simulated: bool


class Instability(Section, _Compared):
    """How much the predictions of a patient depend on the sample and the seed that a model was trained with."""

    key: ClassVar[str] = "instability"
    title: ClassVar[str] = "Prediction instability"
    explanation: ClassVar[str] = (
        "How much a patient's prediction depends on which patients and which seed a model was trained with."
    )
    not_applicable: ClassVar[str] = ""  # it answers a question of its own, which few ask
    position: ClassVar[int] = 112
    captions: ClassVar[dict[str, str]] = {
        "instability": "Predictions of several models for the same patients, and each patient's mean absolute error"
    }

    def card_rows(self) -> Iterator[Row]:
        """Yield nothing: the sentences have the numbers, which are no estimates with intervals."""
        yield from ()

    def card_sentences(self) -> Iterator[str]:
        """Yield which models were compared, and the errors of each number."""
        yield from (f"{line.rstrip('.')}." for line in self.lines())

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return None: it compares models about patients that other folds report, and is kept with the run."""
        return None


def read_instability(folder: Path) -> Instability | None:
    """Return what was measured of a run, by its folder; None where it was not.

    Raises:
        ReportError: The file is not what it should be.
    """
    path = folder / FOLDER / FILE
    if not path.is_file():
        return None
    try:
        result = InstabilityResult.model_validate_json(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise ReportError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return Instability.model_validate(result.model_dump(exclude={"tool", "simulated"}))

"""How a model was trained over several hospitals, and how well it does in each."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, ValidationError

from mil.errors import ReportError
from mil.report.evaluation import Evaluation
from mil.report.page.words import below
from mil.report.schema import Block, Estimate, Model, Row, Section, Sentence, Table
from mil.storage import read_bytes

FILE = "federation.json"
"""Where a run's folder keeps this section."""


class SiteResult(Model):
    """One site: its patients, and the model's metrics among its report patients."""

    site: str
    train: int
    select: int
    report: int
    metrics: dict[str, Estimate] = Field(default_factory=dict)
    """by name, with intervals from the site's own patients"""


class SynthesisResult(Model):
    """A metric over all sites that there could be."""

    metric: str
    estimate: Estimate
    """mean over sites"""
    predicted_low: float
    """of the interval for a further site"""
    predicted_high: float
    tau2: float
    """variance between sites, on the scale of the synthesis"""
    scale: str
    """logit, logarithm, or as it is"""
    sites: int


class Federation(Section):
    """How the model was trained over sites, the metrics in each, and their synthesis."""

    key: ClassVar[str] = "federation"
    title: ClassVar[str] = "Federation"
    explanation: ClassVar[str] = "How the model was trained over several sites, and how well it does in each of them."
    not_applicable: ClassVar[str] = "The model was trained in one place."
    position: ClassVar[int] = 98

    algorithm: str
    sentences: tuple[Sentence, ...] = ()
    """what was summed, masked and bounded"""
    sites: tuple[SiteResult, ...] = ()
    synthesis: tuple[SynthesisResult, ...] = ()
    left_out: tuple[SiteResult, ...] = ()
    """each site as the test of a model of the others"""
    left_out_synthesis: tuple[SynthesisResult, ...] = ()
    minimum: int
    """patients behind every number of a site"""
    secure: bool
    epsilon: float | None = None
    delta: float | None = None
    rounds: int = 0
    megabytes: float = 0.0
    """sent to sites and received from them"""
    seconds: float = 0.0
    incidents: tuple[str, ...] = ()
    """sites that were absent, late or refused"""
    unlike: tuple[Sentence, ...] = ()
    """sites that do not resemble the others"""

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        """Return None: predictions do not tell how a model was trained; the run's folder does."""
        return None

    def block(self) -> Block:
        """Return sentences, the table of sites, and the synthesis."""
        tables = [self._sites_table(self.sites, "Sites")] if self.sites else []
        if self.synthesis:
            tables.append(self._synthesis_table(self.synthesis))
        if self.left_out:
            tables.append(self._sites_table(self.left_out, "Each site as the test of a model of the others"))
        if self.left_out_synthesis:
            tables.append(self._synthesis_table(self.left_out_synthesis))
        sentences = (*self.sentences, *self.unlike, *(f"{incident}." for incident in self.incidents))
        return Block(heading=self.title, sentences=sentences, tables=tuple(tables))

    def card_rows(self) -> Iterator[Row]:
        """Yield the metrics of each site and their synthesis."""
        for name, results in (("sites", self.sites), ("left_out", self.left_out)):
            after = "" if name == "sites" else ", not trained on"
            for place, result in enumerate(results):
                for metric, estimate in result.metrics.items():
                    yield Row(
                        f"{result.site}{after}: {_name(metric)}", estimate, below(f"{name}[{place}].metrics", metric)
                    )
        for name, rows in (("synthesis", self.synthesis), ("left_out_synthesis", self.left_out_synthesis)):
            for place, row in enumerate(rows):
                label = f"{_name(row.metric)}, mean over sites"
                yield Row(label, row.estimate, f"{name}[{place}].estimate")

    def card_sentences(self) -> Iterator[str]:
        """Yield how it was trained, and what a further site may expect."""
        yield from self.sentences
        yield from self.unlike
        for row in (*self.synthesis, *self.left_out_synthesis):
            yield (
                f"{_name(row.metric)} at a further site of the same kind: {row.predicted_low:.3f} to "
                f"{row.predicted_high:.3f} (95% prediction interval from {row.sites} sites)."
            )

    def _sites_table(self, results: tuple[SiteResult, ...], head: str) -> Table:
        metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
        rows = tuple(
            (
                result.site,
                str(result.train),
                str(result.select),
                str(result.report),
                *(str(result.metrics.get(name, Estimate.missing("not stated"))) for name in metrics),
            )
            for result in results
        )
        note = f"Intervals of 95% from each site's own patients; no number rests on fewer than {self.minimum}."
        columns = (head, "Training", "Model selection", "Report", *map(_name, metrics))
        return Table(columns=columns, rows=rows, note=note)

    @staticmethod
    def _synthesis_table(rows: tuple[SynthesisResult, ...]) -> Table:
        cells = tuple(
            (
                _name(row.metric),
                str(row.sites),
                str(row.estimate),
                f"{row.predicted_low:.3f} to {row.predicted_high:.3f}",
                f"{row.tau2:.3g} ({row.scale})",
            )
            for row in rows
        )
        columns = ("Random effects", "Sites", "Mean over sites", "Prediction interval", "tau² (scale)")
        return Table(columns=columns, rows=cells, note=next(iter(rows)).estimate.method or "")


def _name(metric: str) -> str:
    from mil.report.page.words import named

    return named(metric)


def read_federation(folder: Path) -> Federation | None:
    """Return how the model of a run folder was trained over sites; None where it was trained in one place.

    Raises:
        ReportError: The file is not what it should be.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Federation.model_validate_json(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise ReportError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

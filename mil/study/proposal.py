"""What to train a cohort with, proposed from its numbers: patients, events, tiles, width. Nothing is trained for it.

The rules are few and rough; each prints its reason, and `docs/how-to/sweep.md` cites what they rest on.
"""

import math
from dataclasses import dataclass
from statistics import median

from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.findings import raise_first_error
from mil.study.reader import StudyReader
from mil.study.study import Study

FEW, SOME = 30, 100
"""Informative patients (events, or of the smaller class) below which attention is not worth it, and from which it is
worth trying."""
STEPS = 1500
"""Steps of the optimiser that are aimed at."""
EVENTS_OF_BATCH = 4
"""Events that a batch should have where the loss compares patients."""
MOST_TILES = 4096
"""Tiles of a bag in training where bags are larger than can be held."""
BATCH_BYTES = 2**30
"""Features of a batch in single precision that are held at once."""
TRAINED = 0.64
"""Share of the patients that train: of five folds, less a fifth for model selection."""


@dataclass(frozen=True)
class CohortNumbers:
    """What a proposal rests on.

    Attributes:
        patients: Number of patients with a label and features.
        informative: Events, or patients of the smallest class; of numbers all patients.
        kind: What `informative` counts.
        compares: Whether the loss compares patients, as Cox's does.
        tiles: Median tiles of a bag.
        most_tiles: Tiles of the largest bag.
        width: Of the features.
        whole_slides: Whether a row is a vector of a whole slide.
        encoders: Number of encoders whose features are joined.
    """

    patients: int
    informative: int
    kind: str
    compares: bool
    tiles: float
    most_tiles: int
    width: int
    whole_slides: bool = False
    encoders: int = 1

    @property
    def line(self) -> str:
        """The numbers, for a reader."""
        rows = "vectors" if self.whole_slides else "tiles"
        return (
            f"{self.patients} patients, {self.informative} {self.kind}; bags of {self.tiles:g} {rows} (median, at most "
            f"{self.most_tiles}), {self.width} wide"
        )


@dataclass(frozen=True)
class ProposedOption:
    """A word of the command line, and why."""

    word: str
    reason: str


@dataclass(frozen=True)
class Proposal:
    """What is proposed, and what to know of it.

    Attributes:
        numbers: What it rests on.
        options: Words with reasons.
        attention: Whether attention is worth it, in a sentence.
    """

    numbers: CohortNumbers
    options: tuple[ProposedOption, ...]
    attention: str


def numbers_of(reader: StudyReader) -> CohortNumbers:
    """Return the numbers of a cohort; headers are read, features are not.

    Raises:
        MilError: The first error in cohort, features or labels.
    """
    for _, stage in reader.stages():
        raise_first_error(stage.findings)
    study = reader.study().value_or_raise()
    tiles = sorted(reader.tiles_by_bag.values())
    if not tiles:
        raise ConfigError("the cohort has no bag with tiles, of which nothing can be proposed")
    informative, kind = _informative(study, study.endpoint)
    return CohortNumbers(
        patients=len(study.patients),
        informative=informative,
        kind=kind,
        compares=not study.endpoint.alone,
        tiles=median(tiles),
        most_tiles=tiles[-1],
        width=study.encoder.dim,
        whole_slides=study.encoder.level != "tile",
        encoders=len(study.encoder.widths),
    )


def _informative(study: Study, endpoint: Endpoint) -> tuple[int, str]:
    """Return how many patients carry the information, and what they are called."""
    events = endpoint.events(study.target)
    if events is not None:
        return int(events.sum()), "with the event"
    counts = {name: count for name, count in endpoint.counts(study.target).items() if name != "n"}
    if not counts:
        return len(study.target), "with a value"
    name = min(counts, key=lambda each: counts[each])
    return counts[name], f"of the smallest class, {name}"


def propose(numbers: CohortNumbers) -> Proposal:
    """Return model, learning rate, epochs and batch for a cohort of these numbers."""
    is_attentive, attention = _attention(numbers)
    model = _model(numbers, is_attentive)
    batch, batches = _batch(numbers)
    options = [model, _rate(numbers, is_attentive), *batches, *_most_tiles(numbers, batch)]
    if model.word != "model=linear":
        options.append(_epochs(numbers, batch))
    return Proposal(numbers, tuple(options), attention)


def _attention(numbers: CohortNumbers) -> tuple[bool, str]:
    if numbers.whole_slides:
        return False, "Attention is not worth it: a slide is one vector already."
    if numbers.informative < FEW:
        return False, (
            f"Attention is not worth it: {numbers.informative} patients {numbers.kind}, below {FEW}, cannot show which "
            "tiles matter."
        )
    if numbers.tiles < 10:
        return False, f"Attention is not worth it: bags have {numbers.tiles:g} tiles, of which the mean loses little."
    if numbers.informative < SOME:
        return True, (
            f"Attention may be worth it: {numbers.informative} patients {numbers.kind} are between {FEW} and {SOME}. "
            "Compare with mean pooling (baseline=true does), and trust it only where the report says that it is better."
        )
    return True, f"Attention is worth trying: {numbers.informative} patients {numbers.kind}, at least {SOME}."


def _model(numbers: CohortNumbers, is_attentive: bool) -> ProposedOption:
    per = f"{numbers.informative} patients {numbers.kind}"
    if numbers.whole_slides and numbers.informative < SOME:
        return ProposedOption("model=linear", f"one vector a slide and {per}: a penalised linear model, without epochs")
    if numbers.whole_slides:
        return ProposedOption("model=mlp", f"one vector a slide and {per}: a small network")
    if is_attentive:
        return ProposedOption("model=abmil_gated", f"bags of {numbers.tiles:g} tiles and {per}")
    return ProposedOption("model=simlp", f"{per}: mean pooling and a small network has the fewest weights to learn")


def _rate(numbers: CohortNumbers, is_attentive: bool) -> ProposedOption:
    if is_attentive and numbers.width >= 768:
        return ProposedOption(
            "optimizer.lr=1e-4", f"attention on features {numbers.width} wide learns them by heart soon"
        )
    if is_attentive:
        return ProposedOption("optimizer.lr=2e-4", f"attention on features {numbers.width} wide")
    return ProposedOption("optimizer.lr=1e-3", "a pooled vector for each bag bears larger steps")


def _batch(numbers: CohortNumbers) -> tuple[int, list[ProposedOption]]:
    trained = max(2, round(TRAINED * numbers.patients))
    if not numbers.compares:
        batch = 1 if trained < 50 else 4 if trained < 400 else 16
        return batch, [ProposedOption(f"data.batch_bags={batch}", f"{trained} patients train: so many steps an epoch")]
    share = max(numbers.informative, 1) / numbers.patients
    batch = min(trained, max(16, math.ceil(EVENTS_OF_BATCH / share)))
    why = f"the loss compares patients, {share:.0%} have the event: about {batch * share:.0f} events in a batch"
    return batch, [ProposedOption(f"data.batch_bags={batch}", why)]


def _most_tiles(numbers: CohortNumbers, batch: int) -> list[ProposedOption]:
    needed = batch * numbers.most_tiles * numbers.width * 4
    if needed <= BATCH_BYTES or numbers.most_tiles <= MOST_TILES:
        return []
    return [
        ProposedOption(
            f"data.max_tiles={MOST_TILES}",
            f"a batch of the largest bags would hold {needed / 2**30:.1f} GiB; tiles are drawn anew in each epoch",
        )
    ]


def _epochs(numbers: CohortNumbers, batch: int) -> ProposedOption:
    steps = max(1, round(TRAINED * numbers.patients / batch))
    epochs = min(60, max(10, round(STEPS / steps)))
    reason = f"{steps} steps an epoch, about {steps * epochs} in all; training stops when select patients get no better"
    return ProposedOption(f"trainer.max_epochs={epochs}", reason)

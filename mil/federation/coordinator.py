"""Rounds of questions to the hospitals: who answers, what is refused, and the totals over those who did.

Nothing here knows how a question travels (`Engine`). Answers are taken in any order; totals are formed in the order of
the sites' names, so that the same answers give the same bits.
"""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from mil.federation.federation_options import FederationOptions
from mil.federation.messages import SUMS, Array, FederationError, Message, NotReadyError
from mil.federation.norm_guard import NormGuard
from mil.federation.secure_sums import total as unmasked

logger = logging.getLogger(__name__)
Floats = NDArray[np.float64]
RECENT = 30
"""Updates whose norms are remembered."""
Reply = tuple[str, Message | FederationError]


class Engine(Protocol):
    """How questions reach the sites."""

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites that were asked to take part."""

    def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
        """Yield answers as they come, or errors, with the name of the site; one that is late yields nothing."""


class RoundError(FederationError):
    """A round could not be completed."""


@dataclass
class Traffic:
    """What travelled."""

    rounds: int = 0
    sent: int = 0
    """bytes to the sites"""
    received: int = 0
    """bytes from the sites"""
    seconds: float = 0.0
    repeated: int = 0
    """rounds that were asked again"""


@dataclass
class Coordinator:
    """Asks the sites, checks what they answer, and adds it up.

    Attributes:
        engine: How questions travel.
        options: Of the federation.
        session: Distinguishes this coordinator from others.
        active: Sites that take part in the next round.
        traffic: What travelled so far.
        incidents: Sentences about sites that were absent or refused, each once.
        guard: Refuses steps that are too large.
    """

    engine: Engine
    options: FederationOptions
    session: str = field(default_factory=lambda: uuid.uuid4().hex)
    active: list[str] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)
    incidents: list[str] = field(default_factory=list)
    on_rejoin: "Rejoin | None" = None
    norms: list[float] = field(default_factory=list)
    """of recent updates, for each patient, with which the next ones are compared"""
    guard: NormGuard = field(init=False)

    def __post_init__(self) -> None:
        self.guard = NormGuard(self.options)
        self.active = self.active or sorted(self.engine.sites)

    @property
    def quorum(self) -> int:
        """Sites that a round needs."""
        return len(self.engine.sites) if self.options.quorum is None else self.options.quorum

    def ask(
        self,
        kind: str,
        arrays: Mapping[str, Array] | None = None,
        facts: Mapping[str, JsonValue] | None = None,
        sites: Sequence[str] | None = None,
    ) -> dict[str, Message]:
        """Return the answers of all active sites, asked again where they fail.

        A site that still fails is left out if a quorum remains; answers to a sum are then asked anew of the others, as
        masks and weights depend on who takes part.

        Raises:
            RoundError: Fewer sites than needed answer, with the reason of each.
        """
        sites = sorted(self.active) if sites is None else sorted(sites)
        started = time.monotonic()
        while True:
            answers, failures = self._round(kind, arrays or {}, facts or {}, sites)
            if not failures:
                self.traffic.seconds += time.monotonic() - started
                return answers
            sites = [site for site in sites if site not in failures]
            reasons = "; ".join(str(error) for error in failures.values())
            if len(sites) < self.quorum:
                needed = f"{len(sites)} of {len(self.engine.sites)} sites are left, expected {self.quorum}"
                raise RoundError(f"round {kind}: {reasons}; {needed}")
            self.active = [site for site in self.active if site not in failures]
            self.traffic.repeated += 1
            self.note(f"left out of round {kind}: {reasons}")

    def total(
        self, kind: str, arrays: Mapping[str, Array] | None = None, facts: Mapping[str, JsonValue] | None = None
    ) -> "Total":
        """Return the sum of the answers of all active sites; a step that is too large is asked for again.

        Raises:
            RoundError: As in `ask`, or a total that stays too large.
        """
        for _ in range(self.options.attempts):
            answers = self.ask(kind, arrays, facts)
            sums = added(answers)
            refusal = self.guard.refusal(kind, sums)
            if refusal is None:
                return self._total(answers, sums)
            self.note(f"round {refusal}")
            self.traffic.repeated += 1
        raise RoundError(f"round {refusal}")

    @staticmethod
    def _total(answers: Mapping[str, Message], sums: Mapping[str, Floats]) -> "Total":
        patients = sum(answer.patients for answer in answers.values())
        released = max(
            (int(answer.number("released")) for answer in answers.values() if "released" in answer.facts), default=0
        )
        return Total(sums, patients, tuple(sorted(answers)), released)

    def _round(
        self, kind: str, arrays: Mapping[str, Array], facts: Mapping[str, JsonValue], sites: Sequence[str]
    ) -> tuple[dict[str, Message], dict[str, FederationError]]:
        """Ask some sites, and those that fail again; a sum is asked anew of all."""
        failures = dict[str, FederationError]()
        answers = dict[str, Message]()
        for attempt in range(self.options.attempts):
            asked_sites = sites if kind in SUMS else [site for site in sites if site not in answers]
            question = self._question(kind, arrays, facts, sites)
            failures, fresh = dict[str, FederationError](), dict[str, Message]()
            if attempt:
                self.traffic.repeated += 1
            self.traffic.rounds += 1
            self.traffic.sent += question.size * len(asked_sites)
            for site, reply in self.engine.ask(question, asked_sites, self.options.seconds):
                self._take(question, asked_sites, site, reply, fresh, failures)
            for site in asked_sites:
                if site not in fresh and site not in failures:
                    failures[site] = FederationError(f"site {site}: no answer within {self.options.seconds:g} s")
            failures |= self._unlike(kind, fresh)
            answers |= {site: message for site, message in fresh.items() if site not in failures}
            if not failures:
                return answers, {}
            for site, error in failures.items():
                self.note(str(error))
                if isinstance(error, NotReadyError) and self.on_rejoin is not None:
                    self.on_rejoin(site)
        return answers, failures

    def _question(
        self, kind: str, arrays: Mapping[str, Array], facts: Mapping[str, JsonValue], sites: Sequence[str]
    ) -> Message:
        head: dict[str, JsonValue] = {"session": self.session, "round": uuid.uuid4().hex, "sites": list(sites)}
        return Message(kind, arrays, {**facts, **head})

    def _take(
        self,
        question: Message,
        sites: Sequence[str],
        site: str,
        reply: Message | FederationError,
        answers: dict[str, Message],
        failures: dict[str, FederationError],
    ) -> None:
        """Sort a reply into answers and failures."""
        if site not in sites:
            self.note(f"site {site}: answered without being asked, ignored")
            return
        if isinstance(reply, FederationError):
            failures.setdefault(site, reply)
            return
        self.traffic.received += reply.size
        if reply.facts.get("round") != question.facts["round"]:
            self.note(f"site {site}: answered to an earlier round, ignored")
            return
        if site in answers:
            self.note(f"site {site}: answered twice, the first answer counts")
            return
        if not reply.finite:
            failures[site] = FederationError(f"site {site}: {reply.kind} holds numbers that are not finite")
            return
        answers[site] = reply

    def _unlike(self, kind: str, answers: Mapping[str, Message]) -> dict[str, FederationError]:
        """Return the sites whose answer to a sum has another shape than most, or a norm far beyond the others'."""
        if kind not in SUMS or not answers:
            return {}
        shapes = {site: str(_layout(answer)) for site, answer in sorted(answers.items())}
        usual = max(sorted(set(shapes.values())), key=list(shapes.values()).count)
        errors = {
            site: FederationError(f"site {site}: {kind} of shape {shape}, expected {usual}")
            for site, shape in shapes.items()
            if shape != usual
        }
        return errors | self._too_large({site: answer for site, answer in answers.items() if site not in errors})

    def _too_large(self, answers: Mapping[str, Message]) -> dict[str, FederationError]:
        """Return the sites whose gradient or change of weights, for each patient, is far larger than the median."""
        norms = {
            site: float(np.linalg.norm(answer.array(name))) / max(answer.patients, 1)
            for site, answer in answers.items()
            for name in ("gradient", "change")
            if name in answer.arrays
        }
        if len(norms) < 3:
            return {}
        errors = dict[str, FederationError]()
        for site, norm in norms.items():
            others = [value for other_site, value in norms.items() if other_site != site and value > 0]
            median = float(np.median([*others, *self.norms])) if others or self.norms else 0.0
            if norm > self.options.norm_factor * median > 0:
                errors[site] = FederationError(
                    f"site {site}: an update {norm / median:.3g} times as large as the median of the others, the bound "
                    f"is {self.options.norm_factor:g} (federation.norm_factor)"
                )
        self.norms = [*self.norms, *(norm for site, norm in norms.items() if site not in errors and norm > 0)][-RECENT:]
        return errors

    def note(self, sentence: str) -> None:
        """Keep a sentence for the report, once, and log it."""
        if sentence not in self.incidents:
            self.incidents.append(sentence)
            logger.warning("%s", sentence)


class Rejoin(Protocol):
    """Tells a site that was started anew what it is part of."""

    def __call__(self, site: str) -> None:
        """Set the site up again."""


@dataclass(frozen=True, eq=False)
class Total:
    """Sums over sites."""

    arrays: Mapping[str, Floats]
    patients: int
    sites: tuple[str, ...]
    released: int = 0
    """how often a gradient with noise has left a site of this fold, at most"""


def _layout(message: Message) -> JsonValue:
    if message.masked:
        return message.facts.get("layout")
    return [[name, list(shape)] for name, shape in sorted(message.shape.items())]


def added(answers: Mapping[str, Message]) -> dict[str, Floats]:
    """Return the sum of each array over sites, in the order of their names; masks of secure sums cancel.

    Raises:
        FederationError: Some answers are masked and others are not.
    """
    masked = {answer.masked for answer in answers.values()}
    if len(masked) > 1:
        raise FederationError(
            "some sites mask their sums and others do not, expected federation.secure the same at all"
        )
    if masked == {True}:
        flat = unmasked({site: np.asarray(answer.arrays["masked"], np.uint64) for site, answer in answers.items()})
        return _unflattened(flat, next(iter(answers.values())).facts["layout"])
    names = sorted(next(iter(answers.values())).arrays)
    return {name: sum((answers[site].array(name) for site in sorted(answers)), np.zeros(1)) for name in names}


def _unflattened(flat: Floats, layout: JsonValue) -> dict[str, Floats]:
    arrays, start = dict[str, Floats](), 0
    assert isinstance(layout, list)
    for entry in layout:
        assert isinstance(entry, list)
        name, shape = entry
        assert isinstance(shape, list)
        dims = tuple(int(str(side)) for side in shape)
        size = int(np.prod(dims, dtype=np.int64))
        arrays[str(name)] = flat[start : start + size].reshape(dims)
        start += size
    return arrays

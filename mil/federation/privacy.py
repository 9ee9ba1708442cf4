"""The one gate through which everything leaves a hospital, and the file that lists what did.

Numbers that rest on fewer patients than the minimum stay where they are. A count of some patients, such as those of a
class, is a number of its own: below the minimum it may leave in a masked message only, of which the coordinator learns
the total over all hospitals.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mil.federation.messages import FederationError, Message

logger = logging.getLogger(__name__)

WITHOUT_PATIENTS = frozenset({"description", "done", "key"})
"""Kinds of messages that state versions, counts of patients by role and public keys."""
COUNTS = "counts"
"""Arrays whose names begin so hold numbers of patients."""


@dataclass
class Gate:
    """Decides what may leave one hospital.

    Args:
        site: Name of the hospital.
        minimum: Patients that must stand behind every message, and behind every count that is not masked.
        audit: File to which a line is added for each message; None keeps no file.
    """

    site: str
    minimum: int
    audit: Path | None = None

    def release(self, message: Message, question: str) -> Message:
        """Check a message, write it to the audit file, and return it.

        Args:
            message: What is to leave.
            question: The question that it answers.

        Raises:
            FederationError: It rests on too few patients, or holds numbers that are not finite.
        """
        reason = self._refusal(message)
        self._write(message, question, reason)
        if reason is not None:
            raise FederationError(f"site {self.site}: {message.kind} is withheld: {reason}")
        return message

    def _refusal(self, message: Message) -> str | None:
        if message.kind in WITHOUT_PATIENTS:
            return None
        if message.patients < self.minimum:
            return f"{message.patients} patients stand behind it, the minimum is {self.minimum}"
        if message.masked:
            return None
        if not message.finite:
            return "it holds numbers that are not finite"
        for name, array in message.arrays.items():
            if name.startswith(COUNTS):
                counts = np.asarray(array, np.float64)
                small = counts[(counts > 0) & (counts < self.minimum)]
                if small.size:
                    return (
                        f"{name} counts {small.min():g} patients, the minimum is {self.minimum}; with "
                        "federation.secure=true the coordinator learns totals over all sites only"
                    )
        return None

    def _write(self, message: Message, question: str, reason: str | None) -> None:
        if self.audit is None:
            return
        line = {
            "question": question,
            "kind": message.kind,
            "shape": {name: list(shape) for name, shape in message.shape.items()},
            "facts": sorted(message.facts),
            "patients": message.patients,
            "masked": message.masked,
            "sha256": message.digest(),
            "withheld": reason,
        }
        self.audit.parent.mkdir(parents=True, exist_ok=True)
        with self.audit.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")

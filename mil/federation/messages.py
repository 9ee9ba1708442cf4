"""What travels between coordinator and hospitals: arrays and facts with the number of patients behind them."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from mil.errors import MilError

Array = NDArray[np.float64] | NDArray[np.float32] | NDArray[np.uint64] | NDArray[np.int64]
_TYPES = ("float64", "float32", "uint64", "int64")
_LARGEST = 2**31


class FederationError(MilError):
    """A hospital or the coordinator cannot go on: a message that is wrong, late or withheld."""


class NotReadyError(FederationError):
    """A hospital was started anew and has to be told again what it is part of."""


SUMS = frozenset(("target sums", "covariate sums", "loss sums", "gradient", "update", "select sums", "state sums"))
"""Kinds of answers that are summed over hospitals."""


@dataclass(frozen=True, eq=False)
class Message:
    """One question or answer.

    Attributes:
        kind: What it is, such as `gradient`.
        arrays: Numbers by name.
        facts: Names, versions and single numbers; never a patient's.
        patients: Number of patients behind the numbers; 0 where there are none.
        masked: Whether the arrays are masked for a secure sum, and tell nothing by themselves.
    """

    kind: str
    arrays: Mapping[str, Array] = field(default_factory=dict)
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    patients: int = 0
    masked: bool = False

    @property
    def shape(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array."""
        return {name: array.shape for name, array in self.arrays.items()}

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        return all(bool(np.isfinite(array).all()) for array in self.arrays.values())

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def number(self, name: str) -> float:
        """Return a fact that is a number.

        Raises:
            FederationError: There is none, or it is no finite number.
        """
        value = self.facts.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FederationError(f"message {self.kind}: {name} is {value!r}, expected a finite number")
        return float(value)

    def text(self, name: str) -> str:
        """Return a fact that is a text.

        Raises:
            FederationError: There is none, or it is no text.
        """
        value = self.facts.get(name)
        if not isinstance(value, str):
            raise FederationError(f"message {self.kind}: {name} is {value!r}, expected a text")
        return value

    def array(self, name: str) -> NDArray[np.float64]:
        """Return an array in double precision.

        Raises:
            FederationError: There is none.
        """
        if name not in self.arrays:
            raise FederationError(f"message {self.kind}: no array {name!r}, found {', '.join(self.arrays) or 'none'}")
        return np.asarray(self.arrays[name], np.float64)

    def digest(self) -> str:
        """Return the sha256 of the bytes that travel."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return a JSON line that describes the arrays, then their bytes; nothing in it is ever unpickled."""
        layout = [(name, str(array.dtype), list(array.shape)) for name, array in sorted(self.arrays.items())]
        head = {
            "kind": self.kind,
            "facts": dict(self.facts),
            "patients": self.patients,
            "masked": self.masked,
            "arrays": layout,
        }
        body = b"".join(np.ascontiguousarray(self.arrays[name]).tobytes() for name, _, _ in layout)
        return json.dumps(head, sort_keys=True).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, content: bytes) -> "Message":
        """Read what `to_bytes` wrote.

        Raises:
            FederationError: It is no message.
        """
        line, _, body = content.partition(b"\n")
        try:
            head = json.loads(line)
            arrays, start = dict[str, Array](), 0
            for name, kind, shape in head["arrays"]:
                if kind not in _TYPES or min([0, *shape]) < 0:
                    raise ValueError(f"array {name} of {kind} {shape}")
                size = math.prod(shape) * np.dtype(kind).itemsize
                if start + size > min(len(body), _LARGEST):
                    raise ValueError(f"array {name} is cut off")
                arrays[name] = np.frombuffer(body[start : start + size], kind).reshape(shape).copy()
                start += size
            return cls(str(head["kind"]), arrays, dict(head["facts"]), int(head["patients"]), bool(head["masked"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FederationError(f"not a message: {error}") from None

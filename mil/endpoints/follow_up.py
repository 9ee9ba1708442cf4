"""Duration and end of follow-up of each patient, read from the words and units of a clinical table."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.errors import CohortError, ConfigError

CENSORED = "censored"
"""state of a patient whose follow-up ended without an event, code 0"""
DAYS = {"days": 1.0, "months": 365.25 / 12, "years": 365.25}
"""length of each unit of time in days"""
ZERO_TIMES = ("error", "half_unit", "drop")
_ZERO_OPTION = "tool.endpoint.zero_time=half_unit or drop"

_CENSORED_WORDS = ("0", "no", "false", CENSORED, "alive", "living")
_EVENT_WORDS = ("1", "yes", "true", "event", "dead", "deceased")
_UNIT_SUFFIXES = {"d": "days", "m": "months", "mo": "months", "y": "years"}
_TOLERANCE = 0.02
"""how far a horizon may differ from its name: a year of 360 days is 1.4% short"""


class FollowUp:
    """Reads the two columns of every survival endpoint: time and event.

    The event column holds words. Unless `status` defines others, these are `1/0`, `yes/no`, `true/false`,
    `event/censored`, `dead/alive` and `deceased/living`, in upper or lower case, or a code before a colon as in
    cBioPortal (`1:Recurred/Progressed`). With competing causes, the words of a cause are its name and its number from
    1.
    """

    def __init__(
        self,
        time: str,
        event: str,
        causes: Sequence[str] = ("event",),
        status: Mapping[str, Sequence[object] | object] | None = None,
        unit: str = "months",
        shortest: float | None = None,
        zero_time: str = "error",
    ) -> None:
        """Create a reader.

        Args:
            time: Column of follow-up times, in `unit`.
            event: Column of how follow-up ended.
            causes: Events that can end it, coded from 1.
            status: Words for `censored` and for each cause, which replace the usual ones.
            unit: days, months or years.
            shortest: Times from zero up to this are raised to it.
            zero_time: What a time of zero is: an `error`, `half_unit` later, or a reason to `drop` the patient.

        Raises:
            ConfigError: an argument is invalid, or a word stands for two states.
        """
        self.time, self.event, self.columns = time, event, (time, event)
        self.causes, self.shortest = tuple(map(str, causes)), shortest
        if unit not in DAYS:
            raise ConfigError(f"endpoint {time}: unit {unit!r}, expected one of {', '.join(DAYS)}")
        if shortest is not None and not _positive(shortest):
            raise ConfigError(f"endpoint {time}: shortest {shortest!r}, expected a positive number")
        if zero_time not in ZERO_TIMES:
            raise ConfigError(f"endpoint {time}: zero_time {zero_time!r}, expected one of {', '.join(ZERO_TIMES)}")
        self.zero_time = zero_time
        self.words = self._default_words() if status is None else self._declared_words(status)
        self.prefixed = status is None
        self._refuse_ambiguous()

    def read(self, table: pd.DataFrame) -> Tensor:
        """Return time and code of `p` patients, `(p, 2)`: code 0 is censored, `k` the event `causes[k - 1]`.

        Raises:
            CohortError: a time is not positive, or a word stands for no state.
        """
        time = self._times(table)
        if self.zero_time == "half_unit":
            time = np.where(time == 0, 0.5, time)
        if self.shortest is not None:
            time = np.where(time >= 0, np.maximum(time, self.shortest), time)
        hint = f"; {int((time == 0).sum())} are 0, see {_ZERO_OPTION}" if (time == 0).any() else ""
        _refuse(table, self.time, ~(np.isfinite(time) & (time > 0)), f"a positive number{hint}")
        code = np.array([self._code(value) for value in table[self.event]], dtype=np.float64)
        _refuse(table, self.event, code < 0, self._expected())
        return torch.from_numpy(np.stack([time, code], 1))

    def is_kept(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which patients are not dropped for a time of zero, `(p,)`."""
        if self.zero_time != "drop":
            return np.ones(len(table), dtype=np.bool_)
        return np.asarray(self._times(table) != 0, dtype=np.bool_)

    def _times(self, table: pd.DataFrame) -> NDArray[np.float64]:
        return pd.to_numeric(table[self.time], errors="coerce").to_numpy(np.float64)

    def _code(self, value: object) -> int:
        word = _normalised(value)
        if self.prefixed and re.match(r"\d+:", word):
            word = word.partition(":")[0]
        return next((code for code, words in enumerate(self.words) if word in words), -1)

    def _default_words(self) -> list[tuple[str, ...]]:
        if len(self.causes) == 1:
            return [_CENSORED_WORDS, _EVENT_WORDS]
        return [_CENSORED_WORDS, *((str(code), _normalised(name)) for code, name in enumerate(self.causes, 1))]

    def _declared_words(self, status: Mapping[str, Sequence[object] | object]) -> list[tuple[str, ...]]:
        states = (CENSORED, *self.causes)
        if set(status) != set(states):
            names = ", ".join(map(str, status)) or "nothing"
            raise ConfigError(f"endpoint {self.event}: status of {names}, expected of {', '.join(states)}")
        by_state = (status[state] for state in states)
        return [tuple(map(_normalised, words if isinstance(words, list | tuple) else [words])) for words in by_state]

    def _refuse_ambiguous(self) -> None:
        if len(set(self.causes) | {CENSORED}) <= len(self.causes):
            raise ConfigError(f"endpoint {self.event}: causes {list(self.causes)}, expected different names of events")
        words = [word for state_words in self.words for word in state_words]
        if repeated := sorted({word for word in words if words.count(word) > 1}):
            raise ConfigError(f"endpoint {self.event}: status {repeated[0]!r} stands for two states, expected one")

    def _expected(self) -> str:
        states = zip(self.words, (CENSORED, *self.causes), strict=True)
        return " or ".join(f"{', '.join(words)} ({state})" for words, state in states)


def horizons_in(unit: str, horizons: Mapping[str, float] | None) -> dict[str, float]:
    """Check horizons and return their times by name; a name such as `5y` has to agree with time and unit.

    Raises:
        ConfigError: a time is negative or not a number, or does not agree with its name.
    """
    checked = {str(name): time for name, time in (horizons or {}).items()}
    for name, time in checked.items():
        if not (time == 0 or _positive(time)):
            raise ConfigError(f"horizon {name}: {time!r}, expected a number of {unit} from 0")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(d|mo|m|y)", name)
        named = float(match[1]) * DAYS[_UNIT_SUFFIXES[match[2]]] / DAYS[unit] if match else time
        if abs(time - named) > _TOLERANCE * named:
            raise ConfigError(f"horizon {name}: {time} {unit}, expected {named:.6g} {unit}")
    return {name: float(time) for name, time in checked.items()}


def _refuse(table: pd.DataFrame, column: str, wrong: NDArray[np.bool_], expected: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        more = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        value, patient = str(table[column].iloc[row]), table.index[row]
        raise CohortError(f"column {column}, row of {patient}{more}: found {value!r}, expected {expected}")


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _normalised(value: object) -> str:
    """Return a word in lower case, and one spelling for `1`, `1.0` and `01`."""
    text = str(value).strip().casefold()
    return str(int(float(text))) if re.fullmatch(r"\d+(\.0*)?", text) else text

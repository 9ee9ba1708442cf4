"""How long each patient was followed and how that ended, from the words and units of a clinical table."""

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
"""The state of a patient whose follow-up ended without any event, code 0."""
DAYS = {"days": 1.0, "months": 365.25 / 12, "years": 365.25}
"""What a unit of time is in days."""

_WITHOUT = ("0", "no", "false", CENSORED, "alive", "living")
_WITH = ("1", "yes", "true", "event", "dead", "deceased")
_NAMED = {"d": "days", "m": "months", "mo": "months", "y": "years"}
_SLACK = 0.02
"""How far a horizon may lie from its name: a year of 360 days is 1.4% short."""


class FollowUp:
    """The two columns of every survival endpoint.

    The column of the event holds words. Unless `status` says otherwise these are `1/0`, `yes/no`, `true/false`,
    `event/censored`, `dead/alive`, `deceased/living`, in any case, or a code before a colon as cBioPortal writes it
    (`1:Recurred/Progressed`). Where several causes compete, the words of a cause are its name and its number from 1.
    """

    def __init__(
        self,
        time: str,
        event: str,
        causes: Sequence[str] = ("event",),
        status: Mapping[str, Sequence[object] | object] | None = None,
        unit: str = "months",
        shortest: float | None = None,
    ) -> None:
        """Names the columns.

        Args:
            time: column of follow-up times, in `unit`.
            event: column of how follow-up ended.
            causes: the events that can end it, coded from 1.
            status: the words of `censored` and of each cause, which take the place of the usual ones.
            unit: days, months or years.
            shortest: a time from zero up to this counts as this; without it a time of zero is an error.
        """
        self.time, self.event, self.columns = time, event, (time, event)
        self.causes, self.shortest = tuple(map(str, causes)), shortest
        if unit not in DAYS:
            raise ConfigError(f"endpoint {time}: unit {unit!r}, expected one of {', '.join(DAYS)}")
        if shortest is not None and not _positive(shortest):
            raise ConfigError(f"endpoint {time}: shortest {shortest!r}, expected a positive number")
        self.words = self._usual() if status is None else self._declared(status)
        self.prefixed = status is None
        self._refuse_ambiguous()

    def read(self, table: pd.DataFrame) -> Tensor:
        """Time and code of `p` patients, `(p, 2)`: 0 is censored, `k` the event `causes[k - 1]`.

        Raises:
            CohortError: a time that is not positive, or a word that is none of the known ones; names the row.
        """
        time = pd.to_numeric(table[self.time], errors="coerce").to_numpy(np.float64)
        if self.shortest is not None:
            time = np.where(time >= 0, np.maximum(time, self.shortest), time)
        _refuse(table, self.time, ~(np.isfinite(time) & (time > 0)), "a positive number")
        code = np.array([self._code(value) for value in table[self.event]], dtype=np.float64)
        _refuse(table, self.event, code < 0, self._expected())
        return torch.from_numpy(np.stack([time, code], 1))

    def _code(self, value: object) -> int:
        word = _folded(value)
        if self.prefixed and re.match(r"\d+:", word):
            word = word.partition(":")[0]
        return next((code for code, words in enumerate(self.words) if word in words), -1)

    def _usual(self) -> list[tuple[str, ...]]:
        if len(self.causes) == 1:
            return [_WITHOUT, _WITH]
        return [_WITHOUT, *((str(code), _folded(name)) for code, name in enumerate(self.causes, 1))]

    def _declared(self, status: Mapping[str, Sequence[object] | object]) -> list[tuple[str, ...]]:
        states = (CENSORED, *self.causes)
        if set(status) != set(states):
            found = ", ".join(map(str, status)) or "nothing"
            raise ConfigError(f"endpoint {self.event}: status of {found}, expected of {', '.join(states)}")
        given = (status[state] for state in states)
        return [tuple(map(_folded, words if isinstance(words, list | tuple) else [words])) for words in given]

    def _refuse_ambiguous(self) -> None:
        if len(set(self.causes) | {CENSORED}) <= len(self.causes):
            raise ConfigError(f"endpoint {self.event}: causes {list(self.causes)}, expected different names of events")
        words = [word for own in self.words for word in own]
        if twice := sorted({word for word in words if words.count(word) > 1}):
            raise ConfigError(f"endpoint {self.event}: status {twice[0]!r} stands for two states, expected one")

    def _expected(self) -> str:
        states = zip(self.words, (CENSORED, *self.causes), strict=True)
        return " or ".join(f"{', '.join(words)} ({state})" for words, state in states)


def horizons_in(unit: str, horizons: Mapping[str, float] | None) -> dict[str, float]:
    """Times at which a risk is asked for, by name; a name such as `5y` has to agree with the unit.

    Raises:
        ConfigError: a time that is no number from zero on, or another time than the name says.
    """
    checked = {str(name): time for name, time in (horizons or {}).items()}
    for name, time in checked.items():
        if not (time == 0 or _positive(time)):
            raise ConfigError(f"horizon {name}: {time!r}, expected a number of {unit} from 0")
        said = re.fullmatch(r"(\d+(?:\.\d+)?)(d|mo|m|y)", name)
        meant = float(said[1]) * DAYS[_NAMED[said[2]]] / DAYS[unit] if said else time
        if abs(time - meant) > _SLACK * meant:
            raise ConfigError(f"horizon {name}: {time} {unit}, expected {meant:.6g} {unit}")
    return {name: float(time) for name, time in checked.items()}


def _refuse(table: pd.DataFrame, column: str, wrong: NDArray[np.bool_], expected: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        others = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        value, who = str(table[column].iloc[row]), table.index[row]
        raise CohortError(f"column {column}, row of {who}{others}: found {value!r}, expected {expected}")


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _folded(value: object) -> str:
    """Without regard to case; `1`, `1.0` and `01` are one word."""
    text = str(value).strip().casefold()
    return str(int(float(text))) if re.fullmatch(r"\d+(\.0*)?", text) else text

"""Read a table of any software's predictions into the columns of `predictions.csv`.

The columns that are named determine what was predicted; what is taken from the labels is told to the user.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mil.endpoints.classification import Binary, Multiclass, class_indices
from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.endpoint import Endpoint
from mil.endpoints.follow_up import CENSORED
from mil.endpoints.multilabel import Multilabel
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.regression import Regression
from mil.endpoints.survival import Cox
from mil.errors import ConfigError, PredictionsError
from mil.fitted.rules import AnyRule, ArgmaxRule, NoRule
from mil.report.prediction_columns import PredictionColumns
from mil.tables import listed, read_table, require

ROUNDED, EXACT = 1e-3, 1e-9
"""How far a patient's probabilities may sum from one, and how far they do by the machine's rounding alone."""
HEAD = ("patient", "fold", "role")


@dataclass(frozen=True)
class Foreign:
    """A table as ours would be."""

    table: pd.DataFrame
    """patient, fold, role, targets and scores as the endpoint calls them"""
    endpoint: Endpoint
    patients: pd.DataFrame
    """every column that is no score, by patient: each may be a subgroup"""
    decision: AnyRule | NoRule | None
    said: list[str]
    """what was understood, for whoever typed it"""
    ranks: str | None
    """the column of scores that are no probabilities, so that their order is all that counts"""


@dataclass(frozen=True)
class _Read:
    """What one kind of table holds."""

    endpoint: Endpoint
    targets: Mapping[str, str]
    """the table's column of each of the endpoint's"""
    scores: Mapping[str, "pd.Series[float]"]
    """by the endpoint's names; each has the name of the table's own"""
    said: list[str]
    decision: AnyRule | NoRule | None = None
    ranks: str | None = None


@dataclass(frozen=True)
class _Source:
    """A table as text, and the options that name its columns."""

    path: Path
    raw: pd.DataFrame
    columns: PredictionColumns

    @property
    def target(self) -> str:
        """The one column of labels."""
        return self.one("target", self.columns.target, "label")

    @property
    def score(self) -> str:
        """The one column of scores."""
        return self.one("score", self.columns.score, "score")

    def one(self, option: str, words: Sequence[str], usual: str) -> str:
        """The column of an option that is given once, or `usual`."""
        if len(words) > 1:
            raise ConfigError(f"--{option} {words[1]}: a second one, expected one COLUMN")
        column = words[0] if words else usual
        require(self.path, self.raw, [column], PredictionsError)
        return column

    def pairs(self, option: str, words: Sequence[str], form: str) -> dict[str, str]:
        """The right sides of `NAME=COLUMN` by the left ones; of several `=` the one counts that a column follows.

        Raises:
            ConfigError: a word of another form, or a name twice.
        """
        found = dict[str, str]()
        for word in words:
            parts = [(word[:at], word[at + 1 :]) for at, letter in enumerate(word) if letter == "=" and at > 0]
            name, column = next((one for one in parts if one[1] in self.raw), parts[0] if parts else ("", ""))
            if not column:
                raise ConfigError(f"--{option} {word}: expected {form}")
            if name in found:
                raise ConfigError(f"--{option} {word}: {name} was named before, expected each once")
            found[name] = column
        return found

    def numbers(self, column: str) -> "pd.Series[float]":
        """A column of scores, all finite."""
        require(self.path, self.raw, [column], PredictionsError)
        found = pd.to_numeric(self.raw[column], errors="coerce").astype(np.float64)
        if bad := int((~np.isfinite(found)).sum()):
            raise PredictionsError(f"{self.path}: {bad} of {len(found)} values of {column} are not finite numbers")
        return found

    def shares(self, column: str) -> "pd.Series[float]":
        """A column of probabilities."""
        found = self.numbers(column)
        if bad := int((~found.between(0, 1)).sum()):
            rows = f"{bad} of {len(found)} values of {column}"
            raise PredictionsError(f"{self.path}: {rows} are outside [0, 1], expected probabilities")
        return found

    def negative(self, column: str, positive: str) -> str:
        """The other one of two labels; an empty cell is none."""
        require(self.path, self.raw, [column], PredictionsError)
        labels = self.raw[column]
        others = sorted(set(labels[class_indices(labels, [positive]) < 0]) - {""})
        if not others or (class_indices(pd.Series(others), others[:1]) < 0).any():
            found = ", ".join(map(repr, others[:5])) or "nothing"
            raise PredictionsError(f"column {column}: beside {positive!r} found {found}, expected one label")
        return str(others[0])


def read(path: Path, columns: PredictionColumns) -> Foreign:
    """A table of predictions, checked as far as its columns go.

    Raises:
        ConfigError: options that do not go together.
        PredictionsError: the table lacks a column, or has values that cannot be scored.
    """
    decision, raw = columns.cut(), read_table(path, PredictionsError)
    kind = columns.kind([str(name) for name in raw.columns])
    source = _Source(path, raw, columns)
    patient = columns.patient or "patient"
    require(path, raw, [patient, *filter(None, (columns.group, columns.role))], PredictionsError)
    found = _READERS[kind](source)
    head = {
        "patient": raw[patient],
        "fold": raw[columns.group] if columns.group else 0,
        "role": raw[columns.role] if columns.role else "report",
    }
    names = [*HEAD, *found.targets, *found.scores]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: {twice[0]!r} is what a report calls a column of its own, expected another name")
    targets = {name: raw[column] for name, column in found.targets.items()}
    used = [score.name for score in found.scores.values()]
    patients = raw.drop_duplicates(patient).set_index(patient).drop(columns=used, errors="ignore")
    table = pd.DataFrame({**head, **targets, **found.scores})
    return Foreign(table, found.endpoint, patients, decision or found.decision, found.said, found.ranks)


def _binary(source: _Source) -> _Read:
    """Scores that are no probabilities are read as their ranks."""
    target, column, positive = source.target, source.score, source.columns.positive or "1"
    score = source.numbers(column)
    probable = bool(score.between(0, 1).all())
    endpoint = Binary(target, [source.negative(target, positive), positive])
    scores = {f"p_{positive}": score if probable else score.rank(pct=True)}
    said = [f"binary: {column} is of {target} being {positive}, not {endpoint.classes[0]}"]
    return _Read(endpoint, {target: target}, scores, said, ranks=None if probable else column)


def _classes(source: _Source) -> _Read:
    """Classes, or grades from the lowest to the highest."""
    form = "CLASS=COLUMN for each of two classes or more"
    named = source.pairs("score", source.columns.score, form)
    if len(named) < 2:
        raise ConfigError(f"--score of {listed(list(named)) or 'no class'}: expected {form}")
    scores, rescaled = _summing(source, {f"p_{name}": source.shares(column) for name, column in named.items()})
    targets, names = {source.target: source.target}, list(named)
    if source.columns.ordered:
        said = [f"{len(names)} grades from --score, lowest first: {', '.join(names)}", *rescaled]
        return _Read(Ordinal(source.target, names), targets, scores, said)
    said = [f"{len(names)} classes from --score: {', '.join(names)}; called is the likeliest", *rescaled]
    return _Read(Multiclass(source.target, names), targets, scores, said, ArgmaxRule(rule="argmax"))


def _summing(
    source: _Source, shares: Mapping[str, "pd.Series[float]"]
) -> tuple[dict[str, "pd.Series[float]"], list[str]]:
    """Probabilities that sum to one, and what is said of those that were rounded."""
    total = pd.DataFrame(shares).sum(axis=1)
    off = (total - 1).abs()
    if bad := int((off > ROUNDED + EXACT).sum()):
        found = (
            f"probabilities of {bad} of {len(off)} rows sum to {total.min():.4g} at least, {total.max():.4g} at most"
        )
        raise PredictionsError(f"{source.path}: {found}, expected one within {ROUNDED:g}")
    rounded = int((off > EXACT).sum())
    said = [f"probabilities of {rounded} of {len(off)} rows sum to one within {ROUNDED:g}: rescaled"] if rounded else []
    # who sums to one already keeps every digit, so that equal scores stay equal
    divisor = total.where(off > EXACT, 1.0).to_numpy()
    return {name: own / divisor for name, own in shares.items()}, said


def _labels(source: _Source) -> _Read:
    form = "NAME=COLUMN for each label"
    targets = source.pairs("target", source.columns.target, form)
    named = source.pairs("score", source.columns.score, form)
    if set(targets) != set(named):
        raise ConfigError(f"--score of {listed(list(named)) or 'nothing'}: expected of {listed(list(targets))}")
    yes = source.columns.positive or "1"
    words = {name: (source.negative(column, yes), yes) for name, column in targets.items()}
    each = ", ".join(f"{name} ({yes}, not {no})" for name, (no, yes) in words.items())
    scores = {f"p_{name}": source.shares(named[name]) for name in targets}
    endpoint = Multilabel(list(targets), list(words.values()))
    return _Read(endpoint, targets, scores, [f"{len(targets)} labels from --target: {each}"])


def _value(source: _Source) -> _Read:
    target, column = source.target, str(source.columns.value)
    said = [f"regression: {column} is of {target}"]
    return _Read(Regression(target), {target: target}, {"value": source.numbers(column)}, said)


def _survival(source: _Source) -> _Read:
    time, event, unit = _follow_up(source)
    risks = source.pairs("risk", source.columns.risk, "TIME=COLUMN, such as 60=risk_at_60")
    horizons = {name: _moment("risk", name) for name in risks}
    scores = {"log_hazard": source.numbers(source.score)}
    scores |= {f"risk_{name}": source.shares(column) for name, column in risks.items()}
    said = [f"survival: {source.score} rises with the risk; {time} in {unit}"]
    return _Read(Cox(time, event, unit, horizons), {time: time, event: event}, scores, said)


def _competing(source: _Source) -> _Read:
    """Scores are judged by the first cause."""
    time, event, unit = _follow_up(source)
    codes = source.pairs("cause", source.columns.cause, "NAME=CODE")
    if len(codes) < 2:
        raise ConfigError(f"--cause {source.columns.cause[0]}: one cause, expected two or more that compete")
    at = source.columns.horizon
    horizons = None if at is None else {f"{at:g}": _moment("horizon", str(at))}
    endpoint = CompetingRisks(time, event, list(codes), unit, horizons, status={CENSORED: "0", **codes})
    each = ", ".join(f"{name} ({code})" for name, code in codes.items())
    said = [
        f"{len(codes)} causes from --cause: {each}, 0 is censored; ranked is {endpoint.causes[0]}; {time} in {unit}"
    ]
    return _Read(endpoint, {time: time, event: event}, _incidences(source, endpoint), said)


def _incidences(source: _Source, endpoint: CompetingRisks) -> dict[str, "pd.Series[float]"]:
    """The column that ranks, and each cause's risk at the horizon; without a horizon scores are read as ranks."""
    first = endpoint.causes[0]
    named = source.pairs("score", source.columns.score, "NAME=COLUMN for each cause")
    if first not in named or set(named) - set(endpoint.causes):
        found = listed(list(named)) or "nothing"
        raise ConfigError(f"--score of {found}: expected of {first}, and of no other than {listed(endpoint.causes)}")
    if not endpoint.horizons:
        return {"risk": source.numbers(named[first]).rank(pct=True)}
    (horizon,) = endpoint.horizons
    risks = {f"risk_{name}_{horizon}": source.shares(column) for name, column in named.items()}
    total = pd.DataFrame(risks).sum(axis=1)
    if bad := int((total > 1 + ROUNDED).sum()):
        found = f"the causes' risks of {bad} of {len(total)} rows sum to {total.max():.4g} at most"
        raise PredictionsError(f"{source.path}: {found}, expected one at most")
    return {"risk": risks[f"risk_{first}_{horizon}"], **risks}


def _follow_up(source: _Source) -> tuple[str, str, str]:
    """Columns of time and event, and the unit."""
    columns = source.columns
    time, event = str(columns.time), columns.event or "event"
    require(source.path, source.raw, [time, event], PredictionsError)
    return time, event, columns.unit or "months"


def _moment(option: str, word: str) -> float:
    try:
        found = float(word)
    except ValueError:
        found = float("nan")
    if not 0 < found < float("inf"):
        raise ConfigError(f"--{option} {word}: expected a time above zero")
    return found


_READERS: Mapping[str, Callable[[_Source], _Read]] = {
    "binary": _binary,
    "classes": _classes,
    "labels": _labels,
    "regression": _value,
    "survival": _survival,
    "competing risks": _competing,
}

"""Read a table of any software's predictions into the columns of `predictions.csv`.

The columns that are named determine what was predicted; what was concluded from the labels is reported to the user.
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
from mil.report.plausibility import scale, scale_warning
from mil.report.prediction_columns import PredictionColumns
from mil.report.schema import PredictionWarning
from mil.tables import is_missing, listed, read_table, require

ROUNDED, EXACT = 1e-3, 1e-9
"""Largest distance of a sum of probabilities from one, and the distance that floating point alone causes."""
HEAD = ("patient", "fold", "role")


@dataclass(frozen=True)
class Foreign:
    """A table of predictions with the columns of `predictions.csv`."""

    table: pd.DataFrame
    """patient, fold, role, targets and scores under the names of the endpoint"""
    endpoint: Endpoint
    patients: pd.DataFrame
    """all columns but the scores, by patient: each may be a subgroup"""
    decision: AnyRule | NoRule | None
    notes: list[str]
    """how the columns were understood, for the user"""
    ranks: PredictionWarning | None
    """about scores that are not probabilities and are used as ranks"""


@dataclass(frozen=True)
class _Read:
    """What was read from one kind of table."""

    endpoint: Endpoint
    targets: Mapping[str, str]
    """the table's column by the endpoint's column"""
    scores: Mapping[str, "pd.Series[float]"]
    """by the endpoint's column; each has the name of the table's column"""
    notes: list[str]
    decision: AnyRule | NoRule | None = None
    ranks: PredictionWarning | None = None


@dataclass(frozen=True)
class _Source:
    """A table as text, and the options that name its columns."""

    path: Path
    raw: pd.DataFrame
    columns: PredictionColumns

    @property
    def target(self) -> str:
        """The only column of labels."""
        return self.single("target", self.columns.target, "label")

    @property
    def score(self) -> str:
        """The only column of scores."""
        return self.single("score", self.columns.score, "score")

    def single(self, option: str, words: Sequence[str], default: str) -> str:
        """Return the column of an option that may be given once, or the default."""
        if len(words) > 1:
            raise ConfigError(f"--{option} {words[1]}: a second one, expected one COLUMN")
        column = words[0] if words else default
        require(self.path, self.raw, [column], PredictionsError)
        return column

    def pairs(self, option: str, words: Sequence[str], form: str) -> dict[str, str]:
        """Return the right sides of `NAME=COLUMN` by the left ones; of several `=` the one before a column counts.

        Raises:
            ConfigError: a word of another form, or a name twice.
        """
        columns = dict[str, str]()
        for word in words:
            splits = [(word[:at], word[at + 1 :]) for at, letter in enumerate(word) if letter == "=" and at > 0]
            first = splits[0] if splits else ("", "")
            name, column = next((split for split in splits if split[1] in self.raw), first)
            if not column:
                raise ConfigError(f"--{option} {word}: expected {form}")
            if name in columns:
                raise ConfigError(f"--{option} {word}: {name} was named before, expected each once")
            columns[name] = column
        return columns

    def numbers(self, column: str) -> "pd.Series[float]":
        """Return a column of finite scores."""
        require(self.path, self.raw, [column], PredictionsError)
        values = pd.to_numeric(self.raw[column], errors="coerce").astype(np.float64)
        if bad := int((~np.isfinite(values)).sum()):
            raise PredictionsError(f"{self.path}: {bad} of {len(values)} values of {column} are not finite numbers")
        return values

    def shares(self, column: str) -> "pd.Series[float]":
        """Return a column of probabilities."""
        values = self.numbers(column)
        if bad := int((~values.between(0, 1)).sum()):
            rows = f"{bad} of {len(values)} values of {column}"
            raise PredictionsError(f"{self.path}: {rows} are outside [0, 1], expected probabilities{scale(values)}")
        return values

    def negative(self, column: str, positive: str) -> str:
        """Return the other of two labels; words for a missing value are not labels."""
        require(self.path, self.raw, [column], PredictionsError)
        labels = self.raw[column]
        others = sorted(set(labels[(class_indices(labels, [positive]) < 0) & ~is_missing(labels, [positive])]))
        if not others or (class_indices(pd.Series(others), others[:1]) < 0).any():
            rest = ", ".join(map(repr, others[:5])) or "nothing else"
            raise PredictionsError(f"column {column}: found {positive!r} and {rest}, expected one other label")
        return str(others[0])


def read(path: Path, columns: PredictionColumns) -> Foreign:
    """Return a table of predictions with checked columns.

    Raises:
        ConfigError: options that do not go together.
        PredictionsError: the table lacks a column, or has values that cannot be scored.
    """
    decision, raw = columns.cut(), read_table(path, PredictionsError)
    kind = columns.kind([str(name) for name in raw.columns])
    source = _Source(path, raw, columns)
    patient = columns.patient or "patient"
    require(path, raw, [patient, *filter(None, (columns.group, columns.role))], PredictionsError)
    content = _READERS[kind](source)
    head = {
        "patient": raw[patient],
        "fold": raw[columns.group] if columns.group else 0,
        "role": raw[columns.role] if columns.role else "report",
    }
    names = [*HEAD, *content.targets, *content.scores]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: {twice[0]!r} is the name of one of the report's own columns, expected another name")
    words = content.endpoint.declared_words
    targets = pd.DataFrame(
        {
            name: raw[column].mask(is_missing(raw[column], words.get(name, ())), "")
            for name, column in content.targets.items()
        }
    )
    used = [score.name for score in content.scores.values()]
    patients = raw.drop_duplicates(patient).set_index(patient).drop(columns=used, errors="ignore")
    table = pd.DataFrame({**head, **targets, **content.scores})
    labelled = content.endpoint.has_target(targets)
    if not labelled.any():
        raise PredictionsError(
            f"{path}: none of {len(table)} rows has a value in {listed(list(content.targets.values()))}"
        )
    unlabelled = int((~labelled).sum())
    notes = [
        *content.notes,
        *([f"{unlabelled} of {len(table)} rows lack a label and are left out"] if unlabelled else []),
    ]
    table = table[labelled].reset_index(drop=True)
    return Foreign(table, content.endpoint, patients, decision or content.decision, notes, content.ranks)


def _binary(source: _Source) -> _Read:
    """Read two labels and a score; scores that are not probabilities are replaced by their ranks."""
    target, column, positive = source.target, source.score, source.columns.positive or "1"
    score = source.numbers(column)
    probable = bool(score.between(0, 1).all())
    endpoint = Binary(target, [source.negative(target, positive), positive])
    scores = {f"p_{positive}": score if probable else score.rank(pct=True)}
    notes = [f"binary: {column} is of {target} being {positive}, not {endpoint.classes[0]}"]
    return _Read(endpoint, {target: target}, scores, notes, ranks=None if probable else scale_warning(column, score))


def _classes(source: _Source) -> _Read:
    """Read classes, or grades from the lowest to the highest."""
    form = "CLASS=COLUMN for each of two classes or more"
    named = source.pairs("score", source.columns.score, form)
    if len(named) < 2:
        raise ConfigError(f"--score of {listed(list(named)) or 'no class'}: expected {form}")
    scores, rescaled = _summing(source, {f"p_{name}": source.shares(column) for name, column in named.items()})
    targets, names = {source.target: source.target}, list(named)
    if source.columns.ordered:
        notes = [f"{len(names)} grades from --score, lowest first: {', '.join(names)}", *rescaled]
        return _Read(Ordinal(source.target, names), targets, scores, notes)
    notes = [f"{len(names)} classes from --score: {', '.join(names)}; called is the likeliest", *rescaled]
    return _Read(Multiclass(source.target, names), targets, scores, notes, ArgmaxRule(rule="argmax"))


def _summing(
    source: _Source, shares: Mapping[str, "pd.Series[float]"]
) -> tuple[dict[str, "pd.Series[float]"], list[str]]:
    """Return probabilities that sum to one, and a note about those that were rounded."""
    total = pd.DataFrame(shares).sum(axis=1)
    off = (total - 1).abs()
    if bad := int((off > ROUNDED + EXACT).sum()):
        rows = f"probabilities of {bad} of {len(off)} rows"
        sums = f"sum to {total.min():.4g} at least, {total.max():.4g} at most"
        raise PredictionsError(f"{source.path}: {rows} {sums}, expected one within {ROUNDED:g}")
    rounded = int((off > EXACT).sum())
    notes = (
        [f"probabilities of {rounded} of {len(off)} rows sum to one within {ROUNDED:g}: rescaled"] if rounded else []
    )
    # rows that sum to one already keep every digit, so that equal scores stay equal
    divisor = total.where(off > EXACT, 1.0).to_numpy()
    return {name: share / divisor for name, share in shares.items()}, notes


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
    notes = [f"regression: {column} is of {target}"]
    return _Read(Regression(target), {target: target}, {"value": source.numbers(column)}, notes)


def _survival(source: _Source) -> _Read:
    time, event, unit = _follow_up(source)
    risks = source.pairs("risk", source.columns.risk, "TIME=COLUMN, such as 60=risk_at_60")
    horizons = {name: _moment("risk", name) for name in risks}
    scores = {"log_hazard": source.numbers(source.score)}
    scores |= {f"risk_{name}": source.shares(column) for name, column in risks.items()}
    notes = [f"survival: {source.score} rises with the risk; {time} in {unit}"]
    return _Read(Cox(time, event, unit, horizons), {time: time, event: event}, scores, notes)


def _competing(source: _Source) -> _Read:
    """Read competing causes, the first of which is ranked."""
    time, event, unit = _follow_up(source)
    codes = source.pairs("cause", source.columns.cause, "NAME=CODE")
    if len(codes) < 2:
        raise ConfigError(f"--cause {source.columns.cause[0]}: one cause, expected two or more that compete")
    at = source.columns.horizon
    horizons = None if at is None else {f"{at:g}": _moment("horizon", str(at))}
    endpoint = CompetingRisks(time, event, list(codes), unit, horizons, status={CENSORED: "0", **codes})
    each = ", ".join(f"{name} ({code})" for name, code in codes.items())
    notes = [
        f"{len(codes)} causes from --cause: {each}, 0 is censored; ranked is {endpoint.causes[0]}; {time} in {unit}"
    ]
    return _Read(endpoint, {time: time, event: event}, _incidences(source, endpoint), notes)


def _incidences(source: _Source, endpoint: CompetingRisks) -> dict[str, "pd.Series[float]"]:
    """Return the column that ranks, and each cause's risk at the horizon; without a horizon scores are ranks."""
    first = endpoint.causes[0]
    named = source.pairs("score", source.columns.score, "NAME=COLUMN for each cause")
    if first not in named or set(named) - set(endpoint.causes):
        scored, causes = listed(list(named)) or "nothing", listed(endpoint.causes)
        raise ConfigError(f"--score of {scored}: expected of {first}, and of no other than {causes}")
    if not endpoint.horizons:
        return {"risk": source.numbers(named[first]).rank(pct=True)}
    (horizon,) = endpoint.horizons
    risks = {f"risk_{name}_{horizon}": source.shares(column) for name, column in named.items()}
    total = pd.DataFrame(risks).sum(axis=1)
    if bad := int((total > 1 + ROUNDED).sum()):
        rows = f"the causes' risks of {bad} of {len(total)} rows"
        raise PredictionsError(f"{source.path}: {rows} sum to {total.max():.4g} at most, expected one at most")
    return {"risk": risks[f"risk_{first}_{horizon}"], **risks}


def _follow_up(source: _Source) -> tuple[str, str, str]:
    """Return the columns of time and event, and the unit."""
    columns = source.columns
    time, event = str(columns.time), columns.event or "event"
    require(source.path, source.raw, [time, event], PredictionsError)
    return time, event, columns.unit or "months"


def _moment(option: str, word: str) -> float:
    try:
        time = float(word)
    except ValueError:
        time = float("nan")
    if not 0 < time < float("inf"):
        raise ConfigError(f"--{option} {word}: expected a time above zero")
    return time


_READERS: Mapping[str, Callable[[_Source], _Read]] = {
    "binary": _binary,
    "classes": _classes,
    "labels": _labels,
    "regression": _value,
    "survival": _survival,
    "competing risks": _competing,
}

"""What a check reports: a problem, how many items it concerns, and the first of them; and a value with its findings."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from mil.errors import MilError

_log = logging.getLogger(__name__)
_written: ContextVar[set[str] | None] = ContextVar("_written", default=None)

Severity = Literal["error", "warning"]
MOST_NAMED = 10
"""How many of the items a finding names."""

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        severity: An error stops `mil train`, a warning does not.
        code: The kind of problem, for programs.
        message: What is wrong, in one line.
        count: How many slides, patients or files it concerns.
        first: The first ten of them; empty where the message names them itself.
        raises: The class of exception that an error becomes.
    """

    severity: Severity
    code: str
    message: str
    count: int = 1
    first: tuple[str, ...] = ()
    raises: type[MilError] = MilError

    @property
    def line(self) -> str:
        """The message with the first items, in one line."""
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return f"{self.message}: {', '.join(map(repr, self.first))}{more}" if self.first else self.message

    @classmethod
    def of_items(
        cls, severity: Severity, code: str, message: str, items: Iterable[str], raises: type[MilError] = MilError
    ) -> "Finding":
        """Return a finding about these items, which the message may count but does not name."""
        names = list(items)
        return cls(severity, code, message, len(names), tuple(names[:MOST_NAMED]), raises)

    @classmethod
    def of_error(cls, code: str, error: MilError) -> "Finding":
        """Return a finding for an exception, which becomes the same exception again where it is raised."""
        return cls("error", code, str(error), raises=type(error))


@dataclass(frozen=True)
class Checked(Generic[T_co]):
    """A value and what was found while it was read or made.

    Attributes:
        value: None where errors left nothing to go on with, or where the step could not be tried.
        findings: Errors and warnings, in the order in which they were found.
    """

    value: T_co | None
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop a training."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def untried(self) -> bool:
        """Whether an earlier step left this one without what it needs."""
        return self.value is None and not self.errors

    def require(self) -> T_co:
        """Log the warnings and return the value.

        Raises:
            MilError: The first error, as the class that it names.
        """
        value = self.value_or_raise()
        log_warnings(self.findings)
        return value

    def value_or_raise(self, hint: str = "") -> T_co:
        """Return the value; its warnings are for the caller to show.

        Args:
            hint: As in `raise_first_error`.

        Raises:
            MilError: The first error, as the class that it names.
        """
        raise_first_error(self.findings, hint)
        if self.value is None:
            raise MilError("this could not be checked, as an earlier step failed")
        return self.value

    def then(self, step: Callable[[T_co], "Checked[U]"]) -> "Checked[U]":
        """Return the result of a further step on the value, with the findings of both."""
        if self.value is None:
            return Checked(None, self.findings)
        result = step(self.value)
        return Checked(result.value, (*self.findings, *result.findings))


def attempt(code: str, step: Callable[[], T]) -> Checked[T]:
    """Return what `step` returns, or its MilError as a finding."""
    try:
        return Checked(step())
    except MilError as error:
        return Checked(None, (Finding.of_error(code, error),))


def raise_first_error(findings: Iterable[Finding], hint: str = "") -> None:
    """Raise the first error among the findings, if there is one.

    Args:
        findings: Of one or several steps.
        hint: Words after the number of errors, where there are several.

    Raises:
        MilError: The error, as the class that its finding names.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        several = f" (the first of {len(errors)} errors{hint})" if len(errors) > 1 else ""
        raise errors[0].raises(errors[0].line + several)


def log_warnings(findings: Iterable[Finding]) -> None:
    """Write the warnings to the log of the package; within `warnings_once` those that were not written before."""
    written = _written.get()
    for finding in findings:
        if finding.severity == "warning" and (written is None or finding.line not in written):
            _log.warning("%s", finding.line)
            if written is not None:
                written.add(finding.line)


@contextmanager
def warnings_once() -> Iterator[None]:
    """Write each warning once within: several tools that read the same files have the same ones."""
    token = _written.set(set())
    try:
        yield
    finally:
        _written.reset(token)


def severity_where(option: str) -> Severity:
    """Return how severe a problem is under `data.on_missing` or `data.on_bad_bag`: a warning where that says skip."""
    return "warning" if option == "skip" else "error"

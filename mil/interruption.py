"""Signals that ask the process to end, as schedulers, containers and terminals send them, and the exit codes.

SIGTERM (docker, kubernetes, SLURM, systemd), SIGINT (Ctrl-C), SIGHUP (a closed terminal) and SIGUSR1 (SLURM's warning
before the time limit) raise `Interrupted`, so that temporary files are removed and one line is printed. Training may
defer it to the end of a batch, where its state can be saved. A signal that the parent process lets be ignored, as
`nohup` does with SIGHUP, stays ignored.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
RESUMABLE = 75
"""Exit code of a process that can be continued; `EX_TEMPFAIL` of sysexits.h."""
UNEXPECTED = 70
"""Exit code of an error that nobody foresaw; `EX_SOFTWARE` of sysexits.h."""
GRACE = 5.0
"""Seconds for which an interruption may be deferred; `docker stop` kills after 10."""
_CHILD_SECONDS = 10
_IMPATIENT = 3
"""Number of signals after which the process ends at once."""


class Interrupted(BaseException):
    """A signal asked the process to end; no `Exception`, so that nothing handles it as an error.

    Attributes:
        signal: The signal.
        resume: The command that continues the work; None where there is nothing to continue.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        self.resume: str | None = None
        super().__init__(self.signal.name)

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int], dict[str, object]]:
        """Let another process, such as one of a sweep's, pass it on: its message is not what it is made of."""
        return Interrupted, (int(self.signal),), self.__dict__

    @property
    def exit_code(self) -> int:
        """75 where the work can be continued, otherwise 128 and the number of the signal, as of a killed process."""
        return RESUMABLE if self.resume else 128 + self.signal

    @property
    def line(self) -> str:
        """What happened, and how to go on."""
        rest = f"the state is saved; continue with: {self.resume}" if self.resume else "nothing is left to continue"
        return f"stopped by {self.signal.name}; {rest}"


@dataclass
class _State:
    """What the handlers know; they belong to one process.

    Attributes:
        owner: The process that handles signals; its children ignore them for a while.
        deferring: Whether an interruption waits for `raise_deferred`.
        pending: The signal that waits.
        count: Signals so far.
    """

    owner: int = 0
    deferring: bool = False
    pending: int | None = None
    count: int = 0


_state = _State()


@contextmanager
def listening() -> Iterator[None]:
    """Raise `Interrupted` on a signal; outside of the main thread nothing changes.

    Within another `listening`, the handlers are those of the outer one.
    """
    if threading.current_thread() is not threading.main_thread() or _state.owner == os.getpid():
        yield
        return
    _state.owner, _state.deferring, _state.pending, _state.count = os.getpid(), False, None, 0
    earlier = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    install()
    try:
        yield
    finally:
        _state.owner = 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in earlier.items():
            if handler is not None:
                signal.signal(number, handler)


def install() -> None:
    """Install the handlers, anew where another library has replaced them; only within `listening`."""
    if _state.owner != os.getpid() or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    signal.signal(signal.SIGALRM, _raise_late)


@contextmanager
def deferred() -> Iterator[None]:
    """Let an interruption wait for `raise_deferred`, for the end of the block, or for `GRACE` seconds."""
    _state.deferring = _state.owner == os.getpid()
    try:
        yield
    finally:
        _state.deferring = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    raise_deferred()


def pending_signal() -> int:
    """Return the number of the signal that waits; 0 where none does."""
    return _state.pending or 0


def share(number: int) -> None:
    """Let a signal that another process of the same work has received wait here too, where signals are deferred."""
    if _state.deferring and _state.pending is None:
        _state.pending = number


def raise_deferred() -> None:
    """Raise the interruption that waits, if there is one.

    Raises:
        Interrupted: A signal has come since `deferred` began.
    """
    number, _state.pending = _state.pending, None
    if number is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Interrupted(number)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.owner:
        # A scheduler signals the reading processes too. They go on reading while the parent saves its state, and end
        # by themselves if it no longer stops them.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_CHILD_SECONDS)
        return
    _state.count += 1
    if _state.count >= _IMPATIENT:
        os._exit(128 + number)
    if _state.count > 1 and not _state.deferring:
        return  # what the first one began, such as removing temporary files, is being finished
    if _state.deferring and _state.pending is None:
        _state.pending = number
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        return
    _state.pending = None
    raise Interrupted(number)


def _raise_late(number: int, frame: FrameType | None) -> None:
    raise_deferred()

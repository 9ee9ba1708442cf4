"""Signals become one exception, at once or where the work allows; children and ignored signals are left alone."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mil import interruption
from mil.interruption import Interrupted


def _signal_and_wait(number: int, seconds: float) -> None:
    os.kill(os.getpid(), number)
    time.sleep(seconds)


def _is_pending_after_a_signal() -> bool:
    os.kill(os.getpid(), signal.SIGTERM)
    return interruption.pending_signal() != 0


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_raises_and_its_code_says_whether_to_resume(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as stopped, interruption.listening():
        _signal_and_wait(number, 1)
    assert stopped.value.exit_code == 128 + number
    assert stopped.value.line == f"stopped by {number.name}; nothing is left to continue"
    stopped.value.resume = "mil train --resume runs/a"
    assert stopped.value.exit_code == 75
    assert stopped.value.line.endswith("continue with: mil train --resume runs/a")


def test_the_handlers_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number in interruption.SIGNALS]
    with interruption.listening():
        assert [signal.getsignal(number) for number in interruption.SIGNALS] != before
    assert [signal.getsignal(number) for number in interruption.SIGNALS] == before


def test_a_deferred_signal_waits_for_the_work_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted), interruption.listening(), interruption.deferred():
        assert _is_pending_after_a_signal()
    monkeypatch.setattr(interruption, "GRACE", 0.05)
    start = time.monotonic()
    with pytest.raises(Interrupted), interruption.listening(), interruption.deferred():
        _signal_and_wait(signal.SIGTERM, 30)
    assert time.monotonic() - start < 10


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)


CHILD = """
import os, signal, sys, time
from mil import interruption
with interruption.listening():
    child = os.fork()
    if not child:
        for _ in range(20):
            time.sleep(0.01)
        os._exit(7)
    time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_reading_process_works_on_while_its_parent_saves_the_state() -> None:
    run = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert run.stdout == "7\n"

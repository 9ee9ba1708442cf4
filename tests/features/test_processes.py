"""Calls in worker processes that die, hang or raise."""

import os
import signal
import time

import pytest

from mil.errors import ConfigError
from mil.features.processes import map_in_processes

SLIDES = [f"s{number}" for number in range(12)]


def upper(slide: str) -> str:
    """Return the name in upper case; some names make the process die, hang or raise."""
    if slide.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    if slide.startswith("endless"):
        time.sleep(60)
    if slide.startswith("misconfigured"):
        raise ConfigError("no such layout")
    return slide.upper()


def failure_message(slide: str, reason: str) -> str:
    return f"{slide}: {reason}"


@pytest.mark.parametrize("workers", [1, 3])
def test_dying_process_costs_only_its_own_slide(workers: int) -> None:
    slides = ["deadly 0", *SLIDES, "deadly 1", "deadly 2"]
    results = map_in_processes(slides, upper, failure_message, workers)
    assert list(results) == slides
    for slide, result in results.items():
        assert result == (f"{slide}: the process that reads it dies" if "deadly" in slide else slide.upper())


@pytest.mark.parametrize("workers", [1, 3])
def test_hanging_process_costs_only_its_own_slide(workers: int) -> None:
    slides = [*SLIDES[:6], "endless", *SLIDES[6:]]
    start = time.monotonic()
    results = map_in_processes(slides, upper, failure_message, workers, seconds=0.5)
    assert time.monotonic() - start < 10
    assert results == {slide: slide.upper() for slide in slides} | {
        "endless": "endless: reading it takes longer than 0.5 s"
    }


def test_time_limit_applies_to_each_slide() -> None:
    results = map_in_processes(["a", "b", "c", "d"], nap, failure_message, workers=1, seconds=0.7)
    assert results == {"a": "a", "b": "b", "c": "c", "d": "d"}


def nap(slide: str) -> str:
    time.sleep(0.3)
    return slide


def test_configuration_errors_are_raised() -> None:
    with pytest.raises(ConfigError, match="no such layout"):
        map_in_processes([*SLIDES, "misconfigured"], upper, failure_message)


def test_progress_is_counted_to_the_last_slide() -> None:
    counts: list[tuple[int, int]] = []
    map_in_processes([*SLIDES, "deadly"], upper, failure_message, 2, lambda done, total: counts.append((done, total)))
    assert counts == [(done, 13) for done in range(1, 14)]

"""Memory that has run out is one error, whichever library says so, with what was needed."""

import errno
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mil.cli.error_lines import one_line
from mil.errors import ResourceError
from mil.memory import described, enough_for, is_out_of_memory

HUGE = 1 << 50


def of_torch() -> object:
    return torch.empty(HUGE, dtype=torch.uint8)


def of_numpy() -> object:
    return np.empty(HUGE, dtype=np.uint8)


@pytest.mark.parametrize("allocate", [of_torch, of_numpy])
def test_an_allocation_that_fails_says_how_many_gib_it_needs(allocate: Callable[[], object]) -> None:
    with pytest.raises(ResourceError) as raised, enough_for(lambda: "slide 'S1'", "give data.max_tiles"):
        allocate()
    assert (
        str(raised.value) == "slide 'S1': out of memory: 1e+06 GiB more are needed than are free; give data.max_tiles"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"), "out of memory: 20 GiB more"),
        (
            RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 512 bytes"),
            "out of memory: 4.8e-07",
        ),
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
    ],
)
def test_errors_of_every_library_are_recognised(error: Exception, expected: str) -> None:
    assert is_out_of_memory(error)
    assert described(error).startswith(expected)
    assert one_line(error).startswith(expected)
    assert "data.max_tiles" in one_line(error)


def test_other_errors_are_passed_on() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"), enough_for(lambda: "a bag"):
        raise RuntimeError("shape mismatch")

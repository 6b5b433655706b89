"""What the C library does with freed memory. Only GNU's has these settings; with another, nothing happens.

one_arena()       # early: threads share one pool of free memory
keep_freed()      # what one block of rows or one step of training has freed is kept for the next
give_back()       # return it to the system
"""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)


def one_arena() -> None:
    """Let all threads share one pool of free memory, so that `give_back` returns all of it. Call before any starts."""
    _set(_ARENA_MAX, 1)


def keep_freed(below: int = 1 << 30) -> None:
    """Keep up to a gibibyte of freed memory for what comes next, except arrays of more bytes than `below`."""
    _set(_TRIM_THRESHOLD, 1 << 30)
    _set(_MMAP_THRESHOLD, below)


def give_back() -> None:
    """Return what is free now to the system."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(parameter: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(parameter, value)

"""How the C library keeps memory that was freed; where it is not GNU's, nothing of this is done.

one_arena()       # early: no thread is to have free memory of its own
keep_freed()      # what a block of rows or a step of training leaves is kept for the next, not to be cleared again
give_back()       # ... until nothing like it comes any more
"""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)


def one_arena() -> None:
    """Let threads share one pool, of which `give_back` gives back all. Only before the first of them begins."""
    _set(_ARENA_MAX, 1)


def keep_freed(below: int = 1 << 30) -> None:
    """Keep freed memory, up to a gibibyte, for what comes next; but not arrays of more bytes than `below`."""
    _set(_TRIM_THRESHOLD, 1 << 30)
    _set(_MMAP_THRESHOLD, below)


def give_back() -> None:
    """Give back what is free now."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(parameter: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(parameter, value)

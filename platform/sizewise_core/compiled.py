"""Functions that Numba compiles; with `compiled`, itself imported when the first of them is called.

That takes over half a second, which a process that only has others work for it need not spend.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def jit(function: Callable[..., Any]) -> Any:
    """Compile for whatever types come, free Python's lock while running, and keep the code on disk if possible."""
    from numba import njit

    from sizewise_core.code_files import CodeCache

    dispatcher = njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # no folder can be written to: each process compiles for itself
        dispatcher._cache = CodeCache(function)
    return dispatcher


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jit` at the first call. What other compiled functions call has to be `jit`'s own."""

    @functools.cache
    def dispatcher() -> Any:
        return jit(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return dispatcher()(*arguments)

    return call

"""Functions that Numba compiles, itself imported when the first of them is called.

That takes over half a second, which a process that only has others work for it need not spend.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, in unsafe speed: indexes are not checked, and other threads run meanwhile."""

    @functools.cache
    def dispatcher() -> Callable[..., Any]:
        from numba import njit

        try:
            made: Callable[..., Any] = njit(nogil=True, error_model="numpy", cache=True)(function)
        except RuntimeError:  # no folder to cache in can be written to
            made = njit(nogil=True, error_model="numpy")(function)
        return made

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return dispatcher()(*arguments)

    return call

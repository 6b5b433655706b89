"""Functions that Numba compiles. `compiled` imports Numba only when such a function is first called.

That import takes over half a second, which a process that only coordinates others need not spend.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function for the types that it is called with; release Python's lock; keep the code on disk."""
    from numba import njit

    dispatcher = njit(nogil=True, error_model="numpy")(function)
    try:
        from sizewise_core.machine.code_files import keep_code

        keep_code(dispatcher, function)
    except RuntimeError:  # no folder can be written to: each process compiles for itself
        pass
    except (ImportError, AttributeError, TypeError) as error:
        _warn_once(str(error))
    return dispatcher


@functools.cache
def _warn_once(reason: str) -> None:
    log.warning("compiled code is not kept on disk, because Numba has changed inside: %s", reason)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `jit`, but at the first call. What compiled functions call must be compiled by `jit`."""

    @functools.cache
    def dispatcher() -> Any:
        return jit(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return dispatcher()(*arguments)

    return call

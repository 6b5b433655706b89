"""Functions that Numba compiles; with `compiled`, itself imported when the first of them is called.

That takes over half a second, which a process that only has others work for it need not spend.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


def jit(function: Callable[..., Any]) -> Any:
    """Compile for whatever types come, free Python's lock while running, and keep the code on disk if possible."""
    from numba import njit

    dispatcher = njit(nogil=True, error_model="numpy")(function)
    try:
        from sizewise_core.code_files import keep_code

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
    """`jit` at the first call. What other compiled functions call has to be `jit`'s own."""

    @functools.cache
    def dispatcher() -> Any:
        return jit(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return dispatcher()(*arguments)

    return call

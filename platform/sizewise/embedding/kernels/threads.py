"""Parts of a range worked on by the threads that PyTorch's own operations run on.

    share_out(rows, parts, lambda low, high: kernel(..., low, high))    # kernel must free Python's lock

PyTorch's OpenMP threads spin for milliseconds after each operation, waiting for the next. Threads of our own would
have to fight them for the cores: on two cores that took away all that the second one brings.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sizewise_core.machine import limits

_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Run = Callable[[int, int], None]


def share_out(count: int, parts: int, run: Run) -> None:
    """Call `run(low, high)` on `parts` adjacent parts of range(count), at the same time where threads allow.

    Args:
        count: of the range that is shared out.
        parts: 1 or more, one a thread.
        run: called in several threads, so it must free Python's lock to gain by them. What it raises is raised here.
    """
    bounds = [count * part // parts for part in range(parts + 1)]
    if parts == 1:
        run(0, count)
    elif openmp := _openmp():
        _on_team(openmp, bounds, run)
    else:
        others = [_own(os.getpid()).submit(run, bounds[part], bounds[part + 1]) for part in range(1, parts)]
        run(bounds[0], bounds[1])
        for other in others:
            other.result()


def _on_team(openmp: Any, bounds: list[int], run: Run) -> None:
    parts = len(bounds) - 1
    errors: list[BaseException] = []

    def body(_: object) -> None:
        try:  # an exception cannot pass through OpenMP
            for part in range(openmp.omp_get_thread_num(), parts, openmp.omp_get_num_threads()):
                run(bounds[part], bounds[part + 1])
        except BaseException as error:
            errors.append(error)

    openmp.GOMP_parallel(_Body(body), None, parts, 0)
    if errors:
        raise errors[0]


@lru_cache(maxsize=1)
def _openmp() -> Any:
    """PyTorch's OpenMP library where it is GNU's (on Linux); None elsewhere."""
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        return ctypes.CDLL(str(library))
    return None


@lru_cache(maxsize=2)
def _own(process: int) -> ThreadPoolExecutor:
    """Threads of this process: those of the process that it was forked from are not with it."""
    return ThreadPoolExecutor(limits.cpus(), thread_name_prefix="sizewise-kernel")

"""Narrow vectors repeated over a model's dim, and the gradients of the copies added up, on a CPU.

    spread(vectors, copies=8, strength=0.25)     # (..., width) -> (..., 8 * width)
    fold(gradient, copies=8, strength=0.25)      # and back

PyTorch's own operations take as long for copies of one or two numbers as for vectors of their own, ten times as long as
this.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sizewise.embedding.kernels.blocks.common import past_caches
from sizewise.embedding.kernels.blocks.copies import fills_lines, fold_floats, repeat_floats
from sizewise.embedding.kernels.threads import share_out
from sizewise.embedding.kernels.vectors import drained
from sizewise_core.machine.compiled import jit

NUMBERS_PER_THREAD = 2**20  # fewer do not repay a second thread

Array = npt.NDArray[Any]


class _Compiled(NamedTuple):
    """Functions for one width and number of copies; each works on vectors low to high."""

    spread: Callable[..., None]
    fold: Callable[..., None]


@lru_cache(maxsize=64)
def _compiled(width: int, copies: int) -> _Compiled:
    dim, lines = width * copies, int(fills_lines(width, copies))

    @jit
    def spread(vectors: Array, out: Array, low: int, high: int, strength: float, streamed: bool) -> None:
        for vector in range(low, high):
            if lines and streamed:
                repeat_floats(out, vector * dim, vectors, vector * width, strength, width, copies, lines)
            else:
                repeat_floats(out, vector * dim, vectors, vector * width, strength, width, copies, 0)
        if streamed:
            drained()

    @jit
    def fold(gradient: Array, out: Array, low: int, high: int, strength: float, streamed: bool) -> None:
        for vector in range(low, high):
            fold_floats(out, vector * width, gradient, vector * dim, strength, width, copies)

    return _Compiled(spread, fold)


def spread(vectors: Tensor, copies: int, strength: float) -> Tensor:
    """Each vector so many times, one after another, times the strength.

    Args:
        vectors: float32 (..., width), on the CPU.
        copies: of a vector.
        strength: factor of every number.

    Returns:
        float32 (..., copies * width).
    """
    width = vectors.shape[-1]
    out = torch.empty(*vectors.shape[:-1], copies * width)
    _run(_compiled(width, copies).spread, vectors, out, vectors.numel() // width, strength)
    return out


def fold(gradient: Tensor, copies: int, strength: float) -> Tensor:
    """The gradient of `spread`'s vectors, from that of its result.

    Args:
        gradient: float32 (..., copies * width), on the CPU.
        copies, strength: as `spread` had them.

    Returns:
        float32 (..., width): the sums over the copies, times the strength.
    """
    width = gradient.shape[-1] // copies
    out = torch.empty(*gradient.shape[:-1], width)
    _run(_compiled(width, copies).fold, gradient, out, out.numel() // width, strength)
    return out


def _run(kernel: Callable[..., None], source: Tensor, out: Tensor, vectors: int, strength: float) -> None:
    flat, to = source.detach().contiguous().view(-1).numpy(), out.view(-1).numpy()
    parts = max(1, min(torch.get_num_threads(), max(len(flat), len(to)) // NUMBERS_PER_THREAD))
    streamed = past_caches(out)
    share_out(vectors, parts, lambda low, high: kernel(flat, to, low, high, np.float32(strength), streamed))

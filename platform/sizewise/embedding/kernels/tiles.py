"""Narrow vectors repeated over a model's dim, and the gradients of the copies added up, on a CPU.

    spread(vectors, copies=8, strength=0.25)     # (..., width) -> (..., 8 * width)
    fold(gradient, copies=8, strength=0.25)      # and back

PyTorch's own operations take as long for copies of one or two numbers as for vectors of their own, ten times as long as
this.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from sizewise.embedding.kernels.blocks.common import past_caches
from sizewise.embedding.kernels.threads import share_out
from sizewise.embedding.kernels.vectors import WIDEST, address_of, drained, splat
from sizewise_core.machine.compiled import jit

NUMBERS_PER_THREAD = 2**20  # fewer do not repay a second thread

Array = npt.NDArray[Any]


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def repeat_floats(
    typing_context: Any,
    to: Any,
    at: Any,
    source: Any,
    place: Any,
    scale: Any,
    width: Any,
    copies: Any,
    streamed: Any,
) -> Any:
    """to[at + c * width + i] = source[place + i] * scale for i < width and c < copies, both constants.

    Args:
        to, at: float32 (n,) to write to, and the first element of it, int64.
        source, place: the same of what is read.
        scale: float32.
        width, copies: compiled in.
        streamed: a constant; 1: past the caches, as `stream_floats` does, where `fills_lines` and to[at] begins one.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        here, there = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2))
        read, total = width.literal_value, width.literal_value * copies.literal_value
        kind = ir.VectorType(ir.FloatType(), read)
        numbers = b.load(b.bitcast(there, kind.as_pointer()), align=4)
        scaled = b.fmul(numbers, splat(b, arguments[4], kind))
        for first in range(0, total, WIDEST):
            piece = _lanes(b, scaled, [n % read for n in range(first, min(first + WIDEST, total))])
            out = b.bitcast(b.gep(here, [ir.IntType(64)(first)]), piece.type.as_pointer())
            store = b.store(piece, out, align=4 * WIDEST if streamed.literal_value else 4)
            if streamed.literal_value:
                store.set_metadata("nontemporal", b.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(to, at, source, place, scale, width, copies, streamed), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def fold_floats(
    typing_context: Any, to: Any, at: Any, source: Any, place: Any, scale: Any, width: Any, copies: Any
) -> Any:
    """to[at + i] = scale * sum of source[place + c * width + i] over c < copies, for i < width, both constants.

    The second half of the copies is added to the first one as long as their number is even; then one after another.

    Args: as for `repeat_floats`.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        here, there = (address_of(context, b, signature, arguments, n, n + 1) for n in (0, 2))
        written, left = width.literal_value, copies.literal_value
        kind = ir.VectorType(ir.FloatType(), written * left)
        sums = b.load(b.bitcast(there, kind.as_pointer()), align=4)
        while left % 2 == 0:
            left //= 2
            half = written * left
            sums = b.fadd(_lanes(b, sums, range(half)), _lanes(b, sums, range(half, 2 * half)))
        total = _lanes(b, sums, range(written))
        for copy in range(1, left):
            total = b.fadd(total, _lanes(b, sums, range(copy * written, (copy + 1) * written)))
        scaled = b.fmul(total, splat(b, arguments[4], total.type))
        b.store(scaled, b.bitcast(here, scaled.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(to, at, source, place, scale, width, copies), generate


def fills_lines(width: int, copies: int) -> bool:
    """Whether copies of a vector fill complete cache lines."""
    return width * copies % WIDEST == 0


def _lanes(b: Any, vector: Any, numbers: Iterable[int]) -> Any:
    """Some lanes of a vector."""
    constant = [ir.IntType(32)(n) for n in numbers]
    kind = ir.VectorType(ir.IntType(32), len(constant))
    return b.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), ir.Constant(kind, constant))


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

"""Copies of a short vector, one after another, and the sum over such copies, as vector instructions.

Both lengths are compiled in, so that a copy needs no loop: `repeat_floats` writes registers that hold as many copies as
fit, `fold_floats` adds registers before it adds what is in them.
"""

from collections.abc import Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sizewise.embedding.kernels.vectors import WIDEST, address_of, splat


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

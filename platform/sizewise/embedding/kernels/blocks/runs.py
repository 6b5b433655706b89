"""Passes over those runs of a pool that a batch reads: rounding here, steps by sums of gradients in `blocks.steps`.

    runs = blocks.runs_of(pool.numel(), ids)        # uint64: a bit for every run of 16 numbers
    steps.step_sgd(pool, sums, runs, 0, len(runs), ...)
    round_int8(pool, runs, 0, len(runs), ...)

A batch reads most runs several times. Each is worked on once here, in the order in which they lie, without a hash.
Passes change runs completely, so they must leave numbers alone that no id reads: those have sums of zero, and are
rounded already.

All passes work on the words `low` to `high` of runs, so that threads have parts of their own.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types, uint64
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from sizewise.embedding.kernels.blocks.common import Array
from sizewise.embedding.kernels.vectors import WIDEST, address_of, inlined, splat
from sizewise_core.machine.compiled import jit

RUN = WIDEST  # numbers of a run: a cache line
WORD = 64  # runs of a word
NUMBERS_OF_WORD = RUN * WORD

LANES = ir.VectorType(ir.IntType(32), RUN)
FLOATS = ir.VectorType(ir.FloatType(), RUN)
_DOUBLES = ir.VectorType(ir.DoubleType(), RUN)


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """The number of the lowest bit that is set.

    Args:
        word: uint64, not zero.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), generate


@inlined
def mark(runs: Array, place: int, block_len: int, low: int, high: int) -> None:
    """Set the bits of the runs that a block lies in, as far as they are in the words low to high.

    Args:
        runs: uint64 (words,).
        place: the block's first number.
        block_len: a constant.
    """
    last = (place + block_len - 1) // RUN
    for n in range((block_len + RUN - 2) // RUN + 1):  # without a branch
        run = min(place // RUN + n, last)
        word = run // WORD
        inside = (word >= low) & (word < high)
        word = min(max(word, low), high - 1)
        runs[word] |= uint64(inside) << uint64(run % WORD)


@intrinsic  # type: ignore[untyped-decorator]
def _round_bits(typing_context: Any, bits: Any, place: Any, noise: Any) -> Any:
    """Round one run to bfloat16: the noise is added to the lower half, which is cut off.

    Args:
        bits, place: uint32 (n,) of floats, and the first of the run, int64.
        noise: what the first number's noise is drawn from, int64.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        pointer = b.bitcast(address_of(context, b, signature, arguments, 0, 1), LANES.as_pointer())
        b.store(rounded_bits(b, b.load(pointer, align=4), arguments[2]), pointer, align=4)
        return context.get_dummy_value()

    return types.void(bits, place, noise), generate


@intrinsic  # type: ignore[untyped-decorator]
def _round_to_scale(typing_context: Any, pool: Any, place: Any, noise: Any, scale: Any, inverse: Any) -> Any:
    """Round one run to multiples of the scale: down, after a random share of it was added.

    Args:
        pool, place: float32 (n,), and the first number of the run, int64.
        noise: what the first number's noise is drawn from, int64.
        scale, inverse: float32, a power of two from 2^-126 on, and one divided by it: so as exact as to divide by it.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        pointer = run_at(context, b, signature, arguments, 0, 1)
        value = b.load(pointer, align=4)
        steps = b.fmul(value, splat(b, arguments[4], FLOATS))
        moved = b.fcmp_unordered("!=", steps, _floor(b, steps))
        # In double precision, where the sum is exact enough never to reach the next number.
        share, drawn = ir.Constant(_DOUBLES, [2.0**-32] * RUN), b.uitofp(_noise(b, arguments[2]), _DOUBLES)
        down = _floor(b, call(b, "fma", drawn, share, b.fpext(steps, _DOUBLES)))
        rounded = b.fmul(b.fptrunc(down, FLOATS), splat(b, arguments[3], FLOATS))
        b.store(b.select(moved, rounded, value), pointer, align=4)
        return context.get_dummy_value()

    return types.void(pool, place, noise, scale, inverse), generate


@jit
def round_bfloat16(bits: Array, runs: Array, low: int, high: int, stream: int) -> None:
    """Round to bfloat16, up or down at random.

    Args:
        bits: of the numbers, uint32 (n,).
        runs: uint64, those to work on; an incomplete one at the end is left out.
        low, high: words of runs.
        stream: what the noise is drawn from.
    """
    for word in range(low, high):
        left = runs[word]
        while left:
            place = (word * WORD + lowest_bit(left)) * RUN
            left &= left - uint64(1)
            if place + RUN <= len(bits):
                _round_bits(bits, place, place + stream)


@jit
def round_int8(pool: Array, runs: Array, low: int, high: int, stream: int, scale: float) -> None:
    """Round to multiples of the scale, up or down at random.

    Args:
        pool: float32 (n,).
        runs, low, high, stream: as for `round_bfloat16`.
        scale: float32, a power of two from 2^-126 on.
    """
    inverse = np.float32(1) / scale
    for word in range(low, high):
        left = runs[word]
        while left:
            place = (word * WORD + lowest_bit(left)) * RUN
            left &= left - uint64(1)
            if place + RUN <= len(pool):
                _round_to_scale(pool, place, place + stream, scale, inverse)


def run_at(context: Any, b: Any, signature: Any, arguments: Any, array: int, index: int) -> Any:
    """The pointer to the run of floats that one argument's array has at another argument's index.

    Args: as for `address_of`.
    """
    return b.bitcast(address_of(context, b, signature, arguments, array, index), FLOATS.as_pointer())


def rounded_bits(b: Any, bits: Any, noise: Any) -> Any:
    """Bits of floats with noise added to their lower halves, which are cut off; as they are where those are zero.

    Args: a generator's builder, the bits of a run, and what the first number's noise is drawn from, an int64.
    """
    half = _lanes(0xFFFF)
    moved = b.icmp_unsigned("!=", b.and_(bits, half), _lanes(0))
    added = b.and_(b.add(bits, b.and_(_noise(b, noise), half)), _lanes(0xFFFF0000))
    return b.select(moved, added, bits)


def _lanes(value: int) -> Any:
    return ir.Constant(LANES, [value] * RUN)


def _noise(b: Any, first: Any) -> Any:
    """`mixed` of the numbers from `first`, an int64, on."""
    counted = ir.Constant(LANES, list(range(RUN)))
    x = b.add(splat(b, b.trunc(first, ir.IntType(32)), LANES), counted)
    x = b.xor(x, b.lshr(x, _lanes(16)))
    x = b.mul(x, _lanes(0x7FEB352D))
    x = b.xor(x, b.lshr(x, _lanes(15)))
    x = b.mul(x, _lanes(0x846CA68B))
    return b.xor(x, b.lshr(x, _lanes(16)))


def _floor(b: Any, x: Any) -> Any:
    return call(b, "floor", x)


def call(b: Any, name: str, *operands: Any) -> Any:
    """An operation of LLVM on vectors."""
    kind = operands[0].type
    letter = "f64" if isinstance(kind.element, ir.DoubleType) else "f32"
    function = ir.FunctionType(kind, [kind] * len(operands))
    return b.call(get_or_insert_function(b.module, function, f"llvm.{name}.v{kind.count}{letter}"), operands)

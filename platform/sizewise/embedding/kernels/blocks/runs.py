"""Passes over those runs of a pool that a batch reads: steps by sums of gradients, and rounding.

    runs = blocks.runs_of(pool.numel(), ids)        # uint64: a bit for every run of 16 numbers
    step_sgd(pool, sums, runs, 0, len(runs), ...)
    round_int8(pool, runs, 0, len(runs), ...)

A batch reads most runs several times. Each is worked on once here, in the order in which they lie, without a hash.
Passes change runs completely, so they must leave numbers alone that no id reads: those have sums of zero, and are
rounded already.

All passes work on the words `low` to `high` of runs, so that threads have parts of their own.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, types, uint64
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from sizewise.embedding.kernels.blocks.common import Array
from sizewise.embedding.kernels.vectors import WIDEST, adagrad_floats, address_of, inlined, splat
from sizewise_core.machine.compiled import jit

RUN = WIDEST  # numbers of a run: a cache line
WORD = 64  # runs of a word
NUMBERS_OF_WORD = RUN * WORD

_LANES = ir.VectorType(ir.IntType(32), RUN)
_FLOATS = ir.VectorType(ir.FloatType(), RUN)
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
        pointer = b.bitcast(address_of(context, b, signature, arguments, 0, 1), _LANES.as_pointer())
        value, half = b.load(pointer, align=4), _lanes(0xFFFF)
        moved = b.icmp_unsigned("!=", b.and_(value, half), _lanes(0))
        added = b.and_(b.add(value, b.and_(_noise(b, arguments[2]), half)), _lanes(0xFFFF0000))
        b.store(b.select(moved, added, value), pointer, align=4)
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
        pointer = _run_at(context, b, signature, arguments, 0, 1)
        value = b.load(pointer, align=4)
        steps = b.fmul(value, splat(b, arguments[4], _FLOATS))
        moved = b.fcmp_unordered("!=", steps, _floor(b, steps))
        # In double precision, where the sum is exact enough never to reach the next number.
        share, drawn = ir.Constant(_DOUBLES, [2.0**-32] * RUN), b.uitofp(_noise(b, arguments[2]), _DOUBLES)
        down = _floor(b, _call(b, "fma", drawn, share, b.fpext(steps, _DOUBLES)))
        rounded = b.fmul(b.fptrunc(down, _FLOATS), splat(b, arguments[3], _FLOATS))
        b.store(b.select(moved, rounded, value), pointer, align=4)
        return context.get_dummy_value()

    return types.void(pool, place, noise, scale, inverse), generate


@intrinsic  # type: ignore[untyped-decorator]
def _descend(typing_context: Any, pool: Any, sums: Any, place: Any, rate: Any, limit: Any) -> Any:
    """Step one run by its sums, which are zero afterwards.

    Args:
        pool, sums, place: float32 (n,), and the first number of the run in both, int64.
        rate: float32, by which a sum is multiplied before it is added, with one rounding.
        limit: float32.

    Returns:
        int64: not zero where a number is beyond the limit now, or none.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        numbers, sums = (_run_at(context, b, signature, arguments, n, 2) for n in (0, 1))
        rate, limit = (splat(b, arguments[n], _FLOATS) for n in (3, 4))
        stepped = _call(b, "fma", b.load(sums, align=4), rate, b.load(numbers, align=4))
        return _take_step(b, numbers, sums, stepped, limit)

    return types.int64(pool, sums, place, rate, limit), generate


@intrinsic  # type: ignore[untyped-decorator]
def _add_squares(typing_context: Any, squares: Any, sums: Any, place: Any, out: Any, at: Any) -> Any:
    """Add the squares of one run's sums, with one rounding, and write to `out` of what the roots are needed.

    Args:
        squares, sums, place: float32 (n,), and the first number of the run in both, int64.
        out, at: float32 (m,) and the first number in it, int64; 1 is written for sums of zero, whose step is zero
            anyway: PyTorch takes five times as long for roots of zero.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        squares, sums = (_run_at(context, b, signature, arguments, n, 2) for n in (0, 1))
        g = b.load(sums, align=4)
        total = _call(b, "fma", g, g, b.load(squares, align=4))
        b.store(total, squares, align=4)
        moved = b.fcmp_unordered("!=", g, ir.Constant(_FLOATS, None))
        needed = b.select(moved, total, ir.Constant(_FLOATS, [1.0] * RUN))
        b.store(needed, _run_at(context, b, signature, arguments, 3, 4), align=4)
        return context.get_dummy_value()

    return types.void(squares, sums, place, out, at), generate


@intrinsic  # type: ignore[untyped-decorator]
def _descend_by_roots(
    typing_context: Any,
    pool: Any,
    sums: Any,
    place: Any,
    roots: Any,
    at: Any,
    rate: Any,
    epsilon: Any,
    limit: Any,
) -> Any:
    """Step one run by its sums, which are zero afterwards, over roots of the sums of their squares.

    Args:
        pool, sums, place, rate, limit: as for `_descend`.
        roots, at: float32 (m,) and the first number in it, int64.
        epsilon: float32, added to roots.

    Returns:
        As `_descend`.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        numbers, sums = (_run_at(context, b, signature, arguments, n, 2) for n in (0, 1))
        roots = b.load(_run_at(context, b, signature, arguments, 3, 4), align=4)
        rate, epsilon, limit = (splat(b, arguments[n], _FLOATS) for n in (5, 6, 7))
        step = b.fdiv(b.fmul(rate, b.load(sums, align=4)), b.fadd(roots, epsilon))
        return _take_step(b, numbers, sums, b.fadd(b.load(numbers, align=4), step), limit)

    return types.int64(pool, sums, place, roots, at, rate, epsilon, limit), generate


@jit
def step_sgd(
    pool: Array, sums: Array, runs: Array, low: int, high: int, rate: float, limit: float, beyond: Array
) -> None:
    """A step of SGD.

    Args:
        pool, sums: float32 (n,): what is stepped, and its gradients, which are zero afterwards.
        runs: uint64, those to work on; an incomplete one at the end is left out.
        low, high: words of runs.
        rate, limit: float32, the learning rate, and what no number should exceed.
        beyond: int64 (1,), set where one does, or is none.
    """
    exceeds = int64(0)
    for word in range(low, high):
        left = runs[word]
        while left:
            place = (word * WORD + lowest_bit(left)) * RUN
            left &= left - uint64(1)
            if place + RUN <= len(pool):
                exceeds |= _descend(pool, sums, place, -rate, limit)
    if exceeds:
        beyond[0] = 1


@jit
def step_adagrad(
    pool: Array,
    sums: Array,
    squares: Array,
    runs: Array,
    low: int,
    high: int,
    rate: float,
    epsilon: float,
) -> None:
    """A step of Adagrad.

    Args:
        pool, sums, runs, low, high: as for `step_sgd`.
        squares: float32 (n,), the sums of squared gradients so far.
        rate, epsilon: float32.
    """
    for word in range(low, high):
        left = runs[word]
        while left:
            place = (word * WORD + lowest_bit(left)) * RUN
            left &= left - uint64(1)
            if place + RUN <= len(pool):
                adagrad_floats(pool, sums, squares, place, rate, epsilon, RUN)


@jit
def add_squares(
    sums: Array, squares: Array, runs: Array, low: int, high: int, begins: Array, out: Array
) -> None:
    """Add to Adagrad's state, and write run by run of what the roots are needed.

    Args:
        sums, squares, runs, low, high: as for `step_adagrad`.
        begins: int64, for each word the number of runs before it.
        out: float32 (16 * runs,).
    """
    for word in range(low, high):
        left, n = runs[word], begins[word]
        while left:
            place = (word * WORD + lowest_bit(left)) * RUN
            left &= left - uint64(1)
            if place + RUN <= len(sums):
                _add_squares(squares, sums, place, out, n * RUN)
            n += 1


@jit
def step_by_roots(
    pool: Array,
    sums: Array,
    runs: Array,
    low: int,
    high: int,
    begins: Array,
    roots: Array,
    rate: float,
    epsilon: float,
    limit: float,
    beyond: Array,
) -> None:
    """A step of Adagrad, with roots that others have taken.

    Args:
        pool, sums, runs, low, high, limit, beyond: as for `step_sgd`.
        begins, roots: what `add_squares` had and wrote, with roots taken.
        rate, epsilon: float32.
    """
    exceeds = int64(0)
    for word in range(low, high):
        left, n = runs[word], begins[word]
        while left:
            place = (word * WORD + lowest_bit(left)) * RUN
            left &= left - uint64(1)
            if place + RUN <= len(pool):
                exceeds |= _descend_by_roots(pool, sums, place, roots, n * RUN, -rate, epsilon, limit)
            n += 1
    if exceeds:
        beyond[0] = 1


@jit
def round_bfloat16(bits: Array, runs: Array, low: int, high: int, stream: int) -> None:
    """Round to bfloat16, up or down at random.

    Args:
        bits: of the numbers, uint32 (n,).
        runs, low, high: as for `step_sgd`.
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


def _run_at(context: Any, b: Any, signature: Any, arguments: Any, array: int, index: int) -> Any:
    """The pointer to the run of floats that one argument's array has at another argument's index."""
    return b.bitcast(address_of(context, b, signature, arguments, array, index), _FLOATS.as_pointer())


def _take_step(b: Any, numbers: Any, sums: Any, stepped: Any, limit: Any) -> Any:
    """Store a run's numbers, and zeros for its sums; returns what `_descend` does."""
    b.store(stepped, numbers, align=4)
    b.store(ir.Constant(_FLOATS, None), sums, align=4)
    beyond = b.fcmp_unordered(">", _call(b, "fabs", stepped), limit)
    return b.zext(b.bitcast(beyond, ir.IntType(RUN)), ir.IntType(64))


def _lanes(value: int) -> Any:
    return ir.Constant(_LANES, [value] * RUN)


def _noise(b: Any, first: Any) -> Any:
    """`mixed` of the numbers from `first`, an int64, on."""
    counted = ir.Constant(_LANES, list(range(RUN)))
    x = b.add(splat(b, b.trunc(first, ir.IntType(32)), _LANES), counted)
    x = b.xor(x, b.lshr(x, _lanes(16)))
    x = b.mul(x, _lanes(0x7FEB352D))
    x = b.xor(x, b.lshr(x, _lanes(15)))
    x = b.mul(x, _lanes(0x846CA68B))
    return b.xor(x, b.lshr(x, _lanes(16)))


def _floor(b: Any, x: Any) -> Any:
    return _call(b, "floor", x)


def _call(b: Any, name: str, *operands: Any) -> Any:
    """An operation of LLVM on vectors."""
    kind = operands[0].type
    letter = "f64" if isinstance(kind.element, ir.DoubleType) else "f32"
    function = ir.FunctionType(kind, [kind] * len(operands))
    return b.call(get_or_insert_function(b.module, function, f"llvm.{name}.v{kind.count}{letter}"), operands)

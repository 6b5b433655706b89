"""Steps by sums of gradients, of those runs of a pool that a batch reads (`blocks.runs`).

    step_sgd(pool, sums, runs, 0, len(runs), ...)

Two are of Adagrad. `step_adagrad` is one pass, whose roots are the nearest floats. PyTorch has others on some machines:
where its bits are needed, its own operation takes them between `add_squares` and `step_by_roots`.
"""

from typing import Any

from llvmlite import ir
from numba import int64, types, uint64
from numba.extending import intrinsic

from sizewise.embedding.kernels.blocks.common import Array
from sizewise.embedding.kernels.blocks.runs import (
    FLOATS,
    LANES,
    RUN,
    WORD,
    call,
    lowest_bit,
    rounded_bits,
    run_at,
)
from sizewise.embedding.kernels.vectors import splat
from sizewise_core.machine.compiled import jit


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
        numbers, sums = (run_at(context, b, signature, arguments, n, 2) for n in (0, 1))
        rate, limit = (splat(b, arguments[n], FLOATS) for n in (3, 4))
        stepped = call(b, "fma", b.load(sums, align=4), rate, b.load(numbers, align=4))
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
        squares, sums = (run_at(context, b, signature, arguments, n, 2) for n in (0, 1))
        g = b.load(sums, align=4)
        total = call(b, "fma", g, g, b.load(squares, align=4))
        b.store(total, squares, align=4)
        moved = b.fcmp_unordered("!=", g, ir.Constant(FLOATS, None))
        needed = b.select(moved, total, ir.Constant(FLOATS, [1.0] * RUN))
        b.store(needed, run_at(context, b, signature, arguments, 3, 4), align=4)
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
        numbers, sums = (run_at(context, b, signature, arguments, n, 2) for n in (0, 1))
        roots = b.load(run_at(context, b, signature, arguments, 3, 4), align=4)
        rate, epsilon, limit = (splat(b, arguments[n], FLOATS) for n in (5, 6, 7))
        step = b.fdiv(b.fmul(rate, b.load(sums, align=4)), b.fadd(roots, epsilon))
        return _take_step(b, numbers, sums, b.fadd(b.load(numbers, align=4), step), limit)

    return types.int64(pool, sums, place, roots, at, rate, epsilon, limit), generate


@intrinsic  # type: ignore[untyped-decorator]
def _adagrad(
    typing_context: Any, pool: Any, sums: Any, squares: Any, place: Any, rate: Any, epsilon: Any
) -> Any:
    """One run's step of Adagrad by its sums, which are zero afterwards.

    Args:
        pool, sums, squares: float32 (n,): what is stepped, its gradients, and the sums of their squares so far.
        place: the first number of the run in all three, int64.
        rate, epsilon: float32, as in `torch.optim.Adagrad`.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        numbers, stepped = _adagrad_step(context, b, signature, arguments)
        b.store(stepped, numbers, align=4)
        return context.get_dummy_value()

    return types.void(pool, sums, squares, place, rate, epsilon), generate


@intrinsic  # type: ignore[untyped-decorator]
def _adagrad_rounded(
    typing_context: Any, pool: Any, sums: Any, squares: Any, place: Any, rate: Any, epsilon: Any, noise: Any
) -> Any:
    """The same, rounded as by `_round_bits` of `blocks.runs`.

    Args: as for both.
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        numbers, stepped = _adagrad_step(context, b, signature, arguments)
        rounded = rounded_bits(b, b.bitcast(stepped, LANES), arguments[6])
        b.store(rounded, b.bitcast(numbers, LANES.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(pool, sums, squares, place, rate, epsilon, noise), generate


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
    rounds: bool,
    stream: int,
) -> None:
    """A step of Adagrad.

    Args:
        pool, sums, runs, low, high: as for `step_sgd`.
        squares: float32 (n,), the sums of squared gradients so far.
        rate, epsilon: float32.
        rounds: as `round_bfloat16`, too, whose `stream` follows.
    """
    for word in range(low, high):
        left = runs[word]
        while left:
            place = (word * WORD + lowest_bit(left)) * RUN
            left &= left - uint64(1)
            if place + RUN <= len(pool):
                if rounds:
                    _adagrad_rounded(pool, sums, squares, place, rate, epsilon, place + stream)
                else:
                    _adagrad(pool, sums, squares, place, rate, epsilon)


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
    limit: float,
    epsilon: float,
    beyond: Array,
) -> None:
    """A step of Adagrad, with square roots that PyTorch has taken.

    Args:
        pool, sums, runs, low, high, limit, beyond: as for `step_sgd`.
        begins, roots: what `add_squares` had and wrote, with roots taken.
        rate, epsilon: float32; see `step_adagrad`.
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


def _adagrad_step(context: Any, b: Any, signature: Any, arguments: Any) -> tuple[Any, Any]:
    """Where a run's numbers lie, and what they are after the step; sums and squares are stored."""
    numbers, sums, squares = (run_at(context, b, signature, arguments, n, 3) for n in range(3))
    g, zero = b.load(sums, align=4), ir.Constant(FLOATS, None)
    square = b.fadd(b.load(squares, align=4), b.fmul(g, g))
    rate, epsilon = (splat(b, arguments[n], FLOATS) for n in (4, 5))
    step = b.fdiv(b.fmul(rate, g), b.fadd(call(b, "sqrt", square), epsilon))
    step = b.select(b.fcmp_unordered("!=", g, zero), step, zero)  # with an epsilon of zero, too
    b.store(square, squares, align=4)
    b.store(zero, sums, align=4)
    return numbers, b.fsub(b.load(numbers, align=4), step)


def _take_step(b: Any, numbers: Any, sums: Any, stepped: Any, limit: Any) -> Any:
    """Store a run's numbers, and zeros for its sums; returns what `_descend` does."""
    b.store(stepped, numbers, align=4)
    b.store(ir.Constant(FLOATS, None), sums, align=4)
    beyond = b.fcmp_unordered(">", call(b, "fabs", stepped), limit)
    return b.zext(b.bitcast(beyond, ir.IntType(RUN)), ir.IntType(64))

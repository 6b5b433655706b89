"""Values rounded to the levels of a storage, and the gradients through that, in one pass over a table, on a CPU.

The twins in PyTorch are in `sizewise.embedding.storage.learned_step`, where the formulas stand.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core.cgutils import alloca_once_value, for_range
from numba.extending import intrinsic

from sizewise_core.machine.compiled import compiled, jit

Array = npt.NDArray[Any]

_SUMS = 8  # that a sum is made of: an addition waits for the one before it, but not for others
_PART = 1024  # numbers worked on at a time, which stay in the first cache
# Added and taken off again, it leaves a float32 below 2^22 rounded to nearest, ties to even.
_TO_WHOLE = 1.5 * 2.0**23


@compiled
def to_levels(
    values: Array, steps: Array, low: float, high: float, offset: float, center: float, out: Array
) -> None:
    """Write to `out` the level times the step nearest to each value.

    Args:
        values: float32 (groups, numbers of a group).
        steps: float32 (groups,).
        low, high, offset: of the `Grid`, float32.
        center: what the levels lie around, float32.
        out: float32, like values.
    """
    whole = np.float32(_TO_WHOLE)
    for g in range(values.shape[0]):
        step = steps[g]
        spacing = step if step > 0 else np.float32(1.0)
        for i in range(values.shape[1]):
            x = (values[g, i] - center) / spacing - offset
            x = low if x < low else x
            x = high if x > high else x
            out[g, i] = ((x + whole) - whole + offset) * step + center


@jit
def _through(
    values: Array,
    gradient: Array,
    spacing: float,
    low: float,
    high: float,
    offset: float,
    center: float,
    out: Array,
    part: Array,
) -> None:
    """Some numbers of a group: the gradients of the values, and to `part` what each adds to that of the step."""
    whole, zero = np.float32(_TO_WHOLE), np.float32(0.0)
    for i in range(len(values)):
        x = (values[i] - center) / spacing - offset
        inside = (x >= low) & (x <= high)
        x = low if x < low else x
        x = high if x > high else x
        level = (x + whole) - whole + offset
        passed = gradient[i]
        part[i] = passed * (level - (x + offset if inside else zero))
        out[i] = passed if inside else zero


@intrinsic  # type: ignore[untyped-decorator]
def _add(typing_context: Any, part: Any, count: Any, sums: Any) -> Any:
    """Every eighth number to one of the eight sums, which stay in a register meanwhile.

    Args:
        part: float32 (n,).
        count: numbers of it, a multiple of eight, int64.
        sums: float64 (8,).
    """

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        floats, doubles = (ir.VectorType(kind, _SUMS) for kind in (ir.FloatType(), ir.DoubleType()))
        data, out = (context.make_array(signature.args[n])(context, b, arguments[n]).data for n in (0, 2))
        out = b.bitcast(out, doubles.as_pointer())
        total = alloca_once_value(b, b.load(out, align=8))
        with for_range(b, b.sdiv(arguments[1], arguments[1].type(_SUMS))) as loop:
            start = b.gep(data, [b.mul(loop.index, arguments[1].type(_SUMS))])
            numbers = b.load(b.bitcast(start, floats.as_pointer()), align=4)
            b.store(b.fadd(b.load(total), b.fpext(numbers, doubles)), total)
        b.store(b.load(total), out, align=8)
        return context.get_dummy_value()

    return types.void(part, count, sums), generate


@compiled
def through_levels(
    values: Array,
    steps: Array,
    gradient: Array,
    low: float,
    high: float,
    offset: float,
    center: float,
    out: Array,
    of_steps: Array,
) -> None:
    """Write to `out` the gradient of the values, to `of_steps`, float64 (groups,), that of the steps' logarithms.

    Args:
        values, steps, low, high, offset, center: as for `to_levels`.
        gradient: of what that wrote.
        out: float32, like values; may be `gradient`.
        of_steps: float64 (groups,).
    """
    part, sums = np.empty(_PART, np.float32), np.empty(_SUMS, np.float64)
    numbers = values.shape[1]
    for g in range(values.shape[0]):
        step = steps[g]
        spacing = step if step > 0 else np.float32(1.0)
        sums[:] = 0.0
        for first in range(0, numbers, _PART):
            count = min(_PART, numbers - first)
            # Slices, because an index that is a sum of two may be negative for all that the compiler knows, and what
            # may wrap around is not made vector instructions of.
            here = slice(first, first + count)
            _through(
                values[g, here], gradient[g, here], spacing, low, high, offset, center, out[g, here], part
            )
            full = -(-count // _SUMS) * _SUMS
            part[count:full] = np.float32(0.0)
            _add(part, full, sums)
        of_steps[g] = sums.sum() * step

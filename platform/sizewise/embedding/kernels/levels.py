"""Values rounded to the levels of a storage, and the gradients through that, in one pass over a table, on a CPU.

The twins in PyTorch are in `sizewise.embedding.storage.learned_step`, where the formulas stand.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sizewise_core.compiled import compiled

Array = npt.NDArray[Any]

_SUMS = 8  # that a sum is made of: an addition waits for the one before it, but not for others
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
    whole = np.float32(_TO_WHOLE)
    sums = np.empty(_SUMS, np.float64)
    part = np.empty(1024, np.float32)
    for g in range(values.shape[0]):
        step = steps[g]
        spacing = step if step > 0 else np.float32(1.0)
        sums[:] = 0.0
        for first in range(0, values.shape[1], len(part)):
            count = min(len(part), values.shape[1] - first)
            for i in range(count):
                x = (values[g, first + i] - center) / spacing - offset
                inside = (x >= low) & (x <= high)
                x = low if x < low else x
                x = high if x > high else x
                level = (x + whole) - whole + offset
                passed = gradient[g, first + i]
                part[i] = passed * (level - (x + offset if inside else np.float32(0.0)))
                out[g, first + i] = passed if inside else np.float32(0.0)
            for i in range(count, -(-count // _SUMS) * _SUMS):
                part[i] = np.float32(0.0)
            for i in range(0, count, _SUMS):
                for k in range(_SUMS):
                    sums[k] += np.float64(part[i + k])
        of_steps[g] = sums.sum() * step

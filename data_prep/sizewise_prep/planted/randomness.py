"""Counter-based randomness: every number is a function of a key and a counter, so nothing is stored and
nothing has an order.

    rows = counters(np.arange(start, stop), key(seed, 1))
    uniforms(rows, key(seed, 2, column))      # the same for a row in whatever chunk it is computed

`mix` is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
OOPSLA 2014). Normals are sums of the hash's four 16-bit lanes (Irwin-Hall of order 4, scaled to variance 1:
kurtosis 2.70, at most 3.46 in absolute value): integer until the last multiplication, hence equal on every
machine.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class Stream(IntEnum):
    """Streams of randomness: the first part of a key."""

    ROW = 1
    UNIFORM = 2
    EFFECTS = 3
    FACTORS = 4
    TOKENS = 5
    DRIFT = 6
    RESIDUAL = 7
    LABEL = 8
    INTEGER_FACTORS = 9
    CROSSES = 10
    NUMBERS = 11
    LISTS = 12
    USERS = 13
    ITEMS = 14


def key(seed: int, *parts: int) -> np.uint64:
    """A 64-bit key for a stream of numbers, named by a seed and small integers."""
    state = 0
    for part in (seed, *parts):
        state = _mix_one((state ^ (part & _MASK)) * _GOLDEN + _GOLDEN & _MASK)
    return np.uint64(state)


def _mix_one(word: int) -> int:
    return int(mix(np.array([word], np.uint64))[0])


def mix(words: Words) -> Words:
    """SplitMix64's finaliser, a bijection of 64-bit words."""
    words = words ^ (words >> np.uint64(30))
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def counters(numbers: npt.NDArray[np.uint64] | npt.NDArray[np.int64], stream: np.uint64) -> Words:
    """Hash counters (row numbers, value ranks) into independent 64-bit words."""
    return mix(numbers.astype(np.uint64) * np.uint64(_GOLDEN) + stream)


def uniforms(words: Words, stream: np.uint64) -> Floats:
    """Uniform numbers in [0, 1), one per word, independent between streams."""
    return (mix(words ^ stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(words: Words) -> Floats:
    """Nearly normal numbers of mean 0 and variance 1, one per word (see the module's head)."""
    lane = np.uint64(0xFFFF)
    total = words & lane
    for shift in (16, 32, 48):
        total += (words >> np.uint64(shift)) & lane
    centred: Floats = total.astype(np.float64) - 131070.0
    centred *= 3.0**0.5 / 65536
    return centred


def lanes(words: Words) -> tuple[Floats, Floats, Floats, Floats]:
    """Four independent uniform numbers of mean 0 and variance 1 per word."""
    first, second, third, fourth = (
        (((words >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64) - 32767.5) * (12.0**0.5 / 65536)
        for shift in (0, 16, 32, 48)
    )
    return first, second, third, fourth

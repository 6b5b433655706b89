"""BLAKE2b of many texts, compiled: of each the first four bytes of a digest of that length (RFC 7693).

digests(data, starts, ends, rows) == [hashlib.blake2b(text.tobytes(), digest_size=4).digest() for text in texts]
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy import int64, uint32, uint64

from sizewise_core.machine.compiled import compiled

_FIRST = np.array(
    [
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    ],
    np.uint64,
)
_FOUR_BYTES = 0x01010004  # no key, a digest of four bytes
_BLOCK = 128
_LANES = 64  # texts that are digested together, so that the processor takes several words in one instruction
# In which order each of the twelve rounds takes the sixteen words of a block.
_ORDERS = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ]
)


# Which words of the state each of the eight steps of a round mixes.
_STEPS = np.array(
    [
        [0, 4, 8, 12],
        [1, 5, 9, 13],
        [2, 6, 10, 14],
        [3, 7, 11, 15],
        [0, 5, 10, 15],
        [1, 6, 11, 12],
        [2, 7, 8, 13],
        [3, 4, 9, 14],
    ]
)


def digests(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint32]:
    """The digests of some texts, as little-endian words.

    Args:
        data: all texts.
        starts, ends: (texts,), where each lies in `data`.
        rows: (digests,), the numbers of the texts whose digests are wanted.

    Returns:
        (digests,).
    """
    found = np.empty(len(rows), np.uint32)
    _digests(data, starts, ends, rows, found)
    for number in np.flatnonzero((ends - starts)[rows] > _BLOCK):  # few texts are so long
        text = data[starts[rows[number]] : ends[rows[number]]]
        found[number] = int.from_bytes(hashlib.blake2b(text.tobytes(), digest_size=4).digest(), "little")
    return found


@compiled
def _digests(data: Any, starts: Any, ends: Any, rows: Any, found: Any) -> None:
    """Fill `found`, but for texts of more than one block."""
    state, words = np.empty(16 * _LANES, np.uint64), np.zeros(16 * _LANES, np.uint64)
    used = np.zeros(_LANES, np.int64)  # words of each lane that may not be 0
    for low in range(0, len(rows), _LANES):
        count = min(_LANES, len(rows) - low)
        for lane in range(count):
            at = int64(starts[rows[low + lane]])
            size = int64(min(int64(ends[rows[low + lane]]) - at, int64(_BLOCK)))
            for word in range((size + 7) >> 3):
                value, left = uint64(0), size - 8 * word
                if left >= 8:
                    for i in range(8):  # a single load, once compiled
                        value |= uint64(data[uint64(at + 8 * word) + uint64(i)]) << uint64(8 * i)
                else:
                    for i in range(left):
                        value |= uint64(data[uint64(at + 8 * word) + uint64(i)]) << uint64(8 * i)
                words[word * _LANES + lane] = value
            for word in range((size + 7) >> 3, used[lane]):
                words[word * _LANES + lane] = uint64(0)
            used[lane] = (size + 7) >> 3
            for i in range(8):
                state[i * _LANES + lane] = state[(8 + i) * _LANES + lane] = _FIRST[i]
            state[lane] ^= uint64(_FOUR_BYTES)
            state[12 * _LANES + lane] ^= uint64(size)
            state[14 * _LANES + lane] ^= ~uint64(0)
        for turn in range(12):
            for step in range(8):
                x, y = _ORDERS[turn, 2 * step] * _LANES, _ORDERS[turn, 2 * step + 1] * _LANES
                p, q = _STEPS[step, 0] * _LANES, _STEPS[step, 1] * _LANES
                r, s = _STEPS[step, 2] * _LANES, _STEPS[step, 3] * _LANES
                first, second = words[x : x + _LANES], words[y : y + _LANES]
                of_a, of_b = state[p : p + _LANES], state[q : q + _LANES]
                of_c, of_d = state[r : r + _LANES], state[s : s + _LANES]
                for j in range(_LANES):
                    a, b, c, d = of_a[j], of_b[j], of_c[j], of_d[j]
                    a = a + b + first[j]
                    d ^= a
                    d = (d >> uint64(32)) | (d << uint64(32))
                    c = c + d
                    b ^= c
                    b = (b >> uint64(24)) | (b << uint64(40))
                    a = a + b + second[j]
                    d ^= a
                    d = (d >> uint64(16)) | (d << uint64(48))
                    c = c + d
                    b ^= c
                    b = (b >> uint64(63)) | (b << uint64(1))
                    of_a[j] = a
                    of_b[j] = b
                    of_c[j] = c
                    of_d[j] = d
        for lane in range(count):
            low_word = _FIRST[0] ^ uint64(_FOUR_BYTES) ^ state[lane] ^ state[8 * _LANES + lane]
            found[low + lane] = uint32(low_word & uint64(0xFFFFFFFF))

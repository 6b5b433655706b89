"""Rows of a memory-mapped shard in a shuffled order, gathered into a batch in one pass; and the order itself.

    order = permutation(np.random.Philox(1), 65_536)
    gatherer(dense=13, ids=26)(shard.labels, shard.dense, shard.ids, 0, order[:512], *arrays_of_the_batch)

A row is five or six cache lines somewhere in memory, so what takes time is waiting for them: they are prefetched some
rows ahead.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64, uint32, uint64

from sizewise.embedding.kernels.vectors import move_bits, move_numbers, prefetch
from sizewise_prep.compiled import jit

AHEAD = 8  # rows

Array = npt.NDArray[Any]


@lru_cache(maxsize=16)
def gatherer(dense: int, ids: int) -> Callable[..., None]:
    """A function that copies rows of so many dense values and ids; missing dense values (NaN) become 0.

    It takes labels uint8 (n,), dense float32 (n, dense) and ids uint32 (n, ids) of a shard, a row to count from, the
    numbers of the rows from there, and the same three of the batch to write, labels float32.
    """

    @jit
    def gather(
        labels: Array,
        values: Array,
        tokens: Array,
        first: int,
        rows: Array,
        to_labels: Array,
        to_values: Array,
        to_tokens: Array,
    ) -> None:
        flat, to = values.reshape(-1), to_values.reshape(-1)
        flat_ids, to_ids = tokens.reshape(-1), to_tokens.reshape(-1)
        for n in range(len(rows)):
            coming = first + rows[min(n + AHEAD, len(rows) - 1)]
            prefetch(labels, coming)
            for at in range(0, dense, 16):
                prefetch(flat, coming * dense + at)
            prefetch(flat, coming * dense + dense - 1)
            for at in range(0, ids, 16):
                prefetch(flat_ids, coming * ids + at)
            prefetch(flat_ids, coming * ids + ids - 1)
            row = first + rows[n]
            to_labels[n] = labels[row]
            move_numbers(to, n * dense, flat, row * dense, dense)
            move_bits(to_ids, n * ids, flat_ids, row * ids, ids)

    compiled: Callable[..., None] = gather
    return compiled


def permutation(bits: np.random.Philox, size: int) -> npt.NDArray[np.int64]:
    """What `np.random.Generator(bits).permutation(size)` is in NumPy 2.4, in half of the time.

    Written out also because NumPy may change its generators' streams, and a trial must resume in the order it began in.
    """
    words = bits.random_raw(size // 4 * 3 + 64)  # a little more than it takes on average
    while True:
        order = np.arange(size)
        if _shuffled(order, words):
            return order
        words = np.concatenate([words, bits.random_raw(size // 8 + 64)])


@jit
def _shuffled(order: Array, words: Array) -> bool:
    """Fisher and Yates' shuffle in place, with masked draws of 32 bits; False if the random words ran out."""
    drawn, halves, last = 0, 2 * len(words), len(order) - 1
    mask = uint32(0xFFFFFFFF)
    while last > 0:
        while (mask >> uint32(1)) >= last:
            mask >>= uint32(1)
        stop = int64(mask >> uint32(1))  # down to which the mask stays
        while last > stop:
            if drawn == halves:
                return False
            word = words[drawn >> 1] >> uint64(32 * (drawn & 1))
            drawn += 1
            chosen = int64(uint32(word) & mask)
            # One that is too large changes nothing; by no branch, which would be mispredicted a third of the time.
            fits = chosen <= last
            chosen = chosen if fits else last
            order[last], order[chosen] = order[chosen], order[last]
            last -= int64(fits)
    return True

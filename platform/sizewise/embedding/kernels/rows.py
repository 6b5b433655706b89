"""Rows of a memory-mapped shard, dealt out at random to batches.

    piles = piles_of(np.uint64(1), 65_536, first=0, batch_size=512)
    rows, piles, starts = share_of(piles, 0, 512, rank=0, world=1)
    dealer(dense=13, ids=26)(shard.labels, shard.dense, shard.ids, rows, piles, starts, *arrays_of_the_block)

To gather a batch's rows one by one, each five or six cache lines somewhere in memory, is to wait for them: a core has
some sixteen requests open at a time. So a block of rows is read from its first to its last, which the hardware sees
coming, and each is written to the end of its batch's pile: as many places as there are batches, each written in
sequence too.

That takes no order of the rows, only the batch of each, and to draw one takes a fifth of the time that a permutation
does, whose every step depends on the one before and goes anywhere in the block.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import int64, uint32, uint64

from sizewise.embedding.kernels.vectors import (
    inlined,
    move_bits,
    move_numbers,
    prefetch_far,
    prefetch_to_write,
)
from sizewise_core.compiled import jit

AHEAD = 8  # rows until a place is written that is prefetched now
FAR = 40  # rows until one is read that is prefetched now: further than the hardware looks, whose pages end at 4 kB

Array = npt.NDArray[Any]


@lru_cache(maxsize=16)
def dealer(dense: int, ids: int) -> Callable[..., None]:
    """A function that deals out rows of so many dense values and ids; missing dense values (NaN) become 0.

    It takes labels uint8 (n,), dense float32 (n, dense) and ids uint32 (n, ids); the numbers of the rows to deal, in
    rising order; for each of them the pile that it goes to; where the piles start; and flat arrays of 32-bit numbers
    to write the same three to, labels as floats.
    """

    @jit
    def deal(
        labels: Array,
        values: Array,
        tokens: Array,
        rows: Array,
        piles: Array,
        starts: Array,
        to_labels: Array,
        to: Array,
        to_ids: Array,
    ) -> None:
        flat, flat_ids = values.reshape(-1), tokens.reshape(-1)
        places, last = starts.copy(), len(rows) - 1
        for n in range(len(rows)):
            coming = rows[min(n + FAR, last)]
            for at in range(0, dense, 16):
                prefetch_far(flat, coming * dense + at)
            for at in range(0, ids, 16):
                prefetch_far(flat_ids, coming * ids + at)
            coming = places[piles[min(n + AHEAD, last)]]
            for at in range(0, dense, 16):
                prefetch_to_write(to, coming * dense + at)
            prefetch_to_write(to, coming * dense + dense - 1)
            for at in range(0, ids, 16):
                prefetch_to_write(to_ids, coming * ids + at)
            prefetch_to_write(to_ids, coming * ids + ids - 1)
            row, pile = int64(rows[n]), piles[n]
            place = places[pile]
            places[pile] = place + 1
            to_labels[place] = labels[row]
            move_numbers(to, place * dense, flat, row * dense, dense)
            move_bits(to_ids, place * ids, flat_ids, row * ids, ids)

    compiled: Callable[..., None] = deal
    return compiled


@jit
def piles_of(key: np.uint64, size: int, first: int, batch_size: int) -> Array:
    """The batch that each of a block's rows is in; of all ways to deal them out each is as likely as any other.

    The block begins `first` rows into a batch of `batch_size`, from which batches are counted.

    Each row draws a batch as if none could be full. Then rows drawn from all leave batches that have too many, for
    those that have too few. No row is treated otherwise than any other, so the rows of a batch might as well be any.
    """
    count = (first + size + batch_size - 1) // batch_size
    piles, room = np.empty(size, np.uint32), np.empty(count, np.int64)
    for pile in range(count):
        room[pile] = min(batch_size, first + size - pile * batch_size) - (first if pile == 0 else 0)
    share, most = 1.0 / batch_size, uint32(count - 1)
    for row in range(size):
        place = int64(_drawn(key, uint64(row), uint64(size)))
        piles[row] = min(uint32(int64(float(first + place) * share)), most)
    for row in range(size):
        room[piles[row]] -= 1
    draws, to = size, 0
    while True:
        while to < count and room[to] <= 0:
            to += 1
        if to == count:
            return piles
        row = int64(_drawn(key, uint64(draws), uint64(size)))
        draws += 1
        pile = piles[row]
        if room[pile] < 0:
            piles[row] = to
            room[pile] += 1
            room[to] -= 1


@inlined
def _drawn(key: Any, number: Any, limit: Any) -> Any:
    """Random number `number` of a key's, below a limit of 32 bits: SplitMix64, any of whose numbers comes at once."""
    bits = key + number * uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> uint64(27))) * uint64(0x94D049BB133111EB)
    bits ^= bits >> uint64(31)
    return ((bits >> uint64(32)) * limit) >> uint64(32)


@jit
def share_of(piles: Array, first: int, batch_size: int, rank: int, world: int) -> tuple[Array, Array, Array]:
    """The rows of a block that a worker has, rising; the piles that they go to; and where those start, and end.

    Of each batch it has rows rank, rank + world and on, in the file's order; `first` rows were in blocks before.
    """
    count = (first + len(piles) + batch_size - 1) // batch_size
    starts = np.zeros(count + 1, np.int64)
    for pile in range(count):
        begin, end = first if pile == 0 else 0, min(batch_size, first + len(piles) - pile * batch_size)
        starts[pile + 1] = starts[pile] + len(range(begin + (rank - begin) % world, end, world))
    rows = np.empty(len(piles), np.uint32)
    for row in range(len(piles)):
        rows[row] = row
    if world == 1:
        return rows, piles, starts
    mine, taken, turns = np.empty(len(piles), np.uint32), 0, np.zeros(count, np.int64)
    turns[0] = first % world
    for row in range(len(piles)):
        pile = piles[row]
        rows[taken], mine[taken] = row, pile
        taken += int64(turns[pile] == rank)
        turns[pile] = 0 if turns[pile] == world - 1 else turns[pile] + 1
    return rows[:taken], mine[:taken], starts

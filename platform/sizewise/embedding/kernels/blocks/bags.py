"""The compiled functions of `blocks.single` for rows that have lists of values beside single ones.

Bags are pooled where they are looked up, and their gradients spread where they are summed: nothing of the size of all
values' vectors is made. Each function is compiled for one shape of blocks.

All take `ids` uint32 (batch, columns), the `values` (uint32) and `offsets` of the bags of all other features (see
`embedding.bags`) and a `Layout`; `mean` is for means, otherwise bags are summed. A row's values come in the order of
its features, so that a list of one value is summed exactly where a single value would be.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import int64, uint32

from sizewise.embedding.kernels.blocks.common import (
    AHEAD,
    CHUNK_BLOCKS,
    Array,
    Layout,
    Shape,
    add_block,
    place_of,
    unpack_slowly,
)
from sizewise.embedding.kernels.blocks.runs import mark
from sizewise.embedding.kernels.vectors import add_floats, copy_floats, inlined, prefetch
from sizewise_core.machine.compiled import jit


@inlined
def _values_of(offsets: Array, columns: int, batch: int, row: int) -> int:
    """How many values a row has, those of its bags among them."""
    size = columns
    for bag in range(row, len(offsets) - 1, batch):
        size += offsets[bag + 1] - offsets[bag]
    return size


@inlined
def _size_of(offsets: Array, columns: int, batch: int, row: int, feature: int) -> int:
    """How many values a feature of a row has."""
    size = int64(1)
    if feature >= columns:
        bag = (feature - columns) * batch + row
        size = offsets[bag + 1] - offsets[bag]
    return size  # type: ignore[no-any-return]


@inlined
def _divide(vectors: Array, at: int, dim: int, size: int) -> None:
    """Make a mean of a sum of so many."""
    share = np.float32(size)
    for i in range(dim):
        vectors[at + i] /= share


@jit
def _room(ids: Array, offsets: Array, low: int, high: int, blocks: int) -> int:
    """Blocks that are found at a time: some thousands, or those of the longest row."""
    batch, columns = ids.shape
    most = 0
    for row in range(low, high):
        most = max(most, _values_of(offsets, columns, batch, row))
    return int64(max(CHUNK_BLOCKS, most * blocks))  # type: ignore[no-any-return]


@inlined
def _find(
    places: Array,
    ids: Array,
    values: Array,
    offsets: Array,
    rows: tuple[int, int],
    layout: Layout,
    blocks: int,
    hashed: bool,
) -> tuple[int, int]:
    """For each block of as many rows as there is room for: twice its first element's position, plus its sign's bit.

    Returns the first row that is left, and how many blocks were found.
    """
    a, b, slots, align = layout.multiplier, layout.increment, layout.slots, layout.align
    batch, columns = ids.shape
    lists, n, row = (len(offsets) - 1) // batch, 0, rows[0]
    while row < rows[1]:
        if n + _values_of(offsets, columns, batch, row) * blocks > len(places):
            break
        for f in range(columns + lists):
            start, stop = int64(0), int64(1)
            if f >= columns:
                start, stop = (
                    offsets[(f - columns) * batch + row],
                    offsets[(f - columns) * batch + row + 1],
                )
            for v in range(start, stop):
                x = ids[row, f] if f < columns else values[v]
                if not hashed:
                    places[n] = (int64(x) + int64(b[f])) * align * 2
                    n += 1
                else:
                    for c in range(blocks):
                        term = f * blocks + c
                        places[n + c] = place_of(uint32(x), a[term], b[term], slots, align)
                    n += blocks
        row += 1
    return row, n


@lru_cache(maxsize=64)
def bag_lookup_of(shape: Shape) -> Callable[..., None]:
    """Writes each row's single vectors to `out`, and after them the sums or means of its bags; zeros for empty ones."""
    dim, block_len, signed, hashed = shape
    blocks, last = shape.blocks, shape.last
    ragged = last != block_len

    @jit
    def lookup(
        pool: Array,
        ids: Array,
        values: Array,
        offsets: Array,
        low: int,
        high: int,
        layout: Layout,
        out: Array,
        mean: bool,
    ) -> None:
        batch, columns = ids.shape
        lists, first, one = (len(offsets) - 1) // batch, low, np.float32(1)
        at = low * (columns + lists) * dim
        places = np.empty(_room(ids, offsets, low, high, blocks), np.int64)
        while first < high:
            stop, count = _find(places, ids, values, offsets, (first, high), layout, blocks, hashed)
            n = 0
            for row in range(first, stop):
                for f in range(columns + lists):
                    size = _size_of(offsets, columns, batch, row, f)
                    if size == 0:
                        for i in range(dim):
                            out[at + i] = 0
                    for v in range(size):
                        to = at
                        for c in range(blocks):
                            coming = places[min(n + AHEAD, count - 1)] >> 1
                            prefetch(pool, coming)
                            prefetch(pool, coming + block_len - 1)
                            place = places[n] >> 1
                            scale = np.float32(1 - 2 * (places[n] & 1)) if signed else one
                            if ragged and c == blocks - 1:
                                if v == 0:
                                    copy_floats(out, to, pool, place, scale, last)
                                else:
                                    add_floats(out, to, pool, place, scale, last)
                            elif v == 0:
                                copy_floats(out, to, pool, place, scale, block_len)
                            else:
                                add_floats(out, to, pool, place, scale, block_len)
                            to += block_len
                            n += 1
                    if mean and size > 1:
                        _divide(out, at, dim, size)
                    at += dim
            first = stop

    return lookup  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def packed_bag_lookup_of(shape: Shape, bits: int) -> Callable[..., None]:
    """The same out of packed codes; `scales` are float32, one for so many (`group`) numbers."""
    dim, block_len, signed, hashed = shape
    blocks, last, each = shape.blocks, shape.last, 8 // bits

    @jit
    def lookup(
        codes: Array,
        scales: Array,
        group: int,
        ids: Array,
        values: Array,
        offsets: Array,
        low: int,
        high: int,
        layout: Layout,
        out: Array,
        mean: bool,
    ) -> None:
        batch, columns = ids.shape
        lists, first = (len(offsets) - 1) // batch, low
        at, vector = low * (columns + lists) * dim, np.empty(block_len, np.float32)
        places = np.empty(_room(ids, offsets, low, high, blocks), np.int64)
        while first < high:
            stop, count = _find(places, ids, values, offsets, (first, high), layout, blocks, hashed)
            n = 0
            for row in range(first, stop):
                for f in range(columns + lists):
                    size = _size_of(offsets, columns, batch, row, f)
                    for i in range(dim):
                        out[at + i] = 0
                    for _ in range(size):
                        for c in range(blocks):
                            prefetch(codes, (places[min(n + AHEAD, count - 1)] >> 1) // each)
                            length = last if c == blocks - 1 else block_len
                            sign = np.float32(1 - 2 * (places[n] & 1) if signed else 1)
                            unpack_slowly(vector, 0, codes, places[n] >> 1, length, bits, scales, group, sign)
                            for i in range(length):
                                out[at + c * block_len + i] += vector[i]
                            n += 1
                    if mean and size > 1:
                        _divide(out, at, dim, size)
                    at += dim
            first = stop

    return lookup  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def bag_scatter_of(shape: Shape) -> Callable[..., None]:
    """Adds a factor times the gradient of vectors to the elements that they, or the values of bags, were read from."""
    dim, block_len, signed, hashed = shape
    blocks, last = shape.blocks, shape.last
    ragged = last != block_len

    @jit
    def scatter(
        sums: Array,
        ids: Array,
        values: Array,
        offsets: Array,
        low: int,
        high: int,
        layout: Layout,
        gradient: Array,
        factor: float,
        mean: bool,
    ) -> None:
        batch, columns = ids.shape
        lists, first = (len(offsets) - 1) // batch, 0
        room = _room(ids, offsets, 0, batch, blocks)
        places, starts, factors = (
            np.empty(room, np.int64),
            np.empty(room, np.int64),
            np.empty(room, np.float32),
        )
        while first < batch:
            stop, _ = _find(places, ids, values, offsets, (first, batch), layout, blocks, hashed)
            n, kept, at = 0, 0, first * (columns + lists) * dim
            for row in range(first, stop):
                for f in range(columns + lists):
                    # Not `_size_of`: with it the loops here take a third longer.
                    bag = (f - columns) * batch + row
                    size = int64(1) if f < columns else offsets[bag + 1] - offsets[bag]
                    share = np.float32(factor / np.float32(size)) if mean and size > 1 else factor
                    for _ in range(size):
                        for c in range(blocks):  # without a branch, as in `single`
                            doubled = places[n]
                            places[kept], starts[kept], factors[kept] = doubled, at + c * block_len, share
                            kept += int64(((doubled >> 1) < high) & ((doubled >> 1) + block_len > low))
                            n += 1
                    at += dim
            for n in range(kept):
                coming = min(n + AHEAD, kept - 1)
                prefetch(sums, places[coming] >> 1)
                prefetch(sums, (places[coming] >> 1) + block_len - 1)
                prefetch(gradient, starts[coming])
                place, start = places[n] >> 1, starts[n]
                scale = factors[n] * np.float32(1 - 2 * (places[n] & 1)) if signed else factors[n]
                length = last if ragged and start % dim + block_len > dim else block_len
                add_block(sums, place, (low, high), gradient, start, scale, length, (block_len, last))
            first = stop

    return scatter  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def bag_mark_of(shape: Shape) -> Callable[..., None]:
    """As `single.mark_of`, for all that rows with bags read."""
    block_len, hashed, blocks = shape.block_len, shape.hashed, shape.blocks

    @jit
    def mark_runs(
        runs: Array, ids: Array, values: Array, offsets: Array, low: int, high: int, layout: Layout
    ) -> None:
        first, batch = 0, ids.shape[0]
        places = np.empty(_room(ids, offsets, 0, batch, blocks), np.int64)
        while first < batch:
            first, count = _find(places, ids, values, offsets, (first, batch), layout, blocks, hashed)
            for n in range(count):
                mark(runs, places[n] >> 1, block_len, low, high)

    return mark_runs  # type: ignore[no-any-return]

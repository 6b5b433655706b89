"""The compiled functions behind `kernels.cpu`: blocks of a flat pool, found by hashes, for one shape of blocks each.

Compiled code is specialised for the length of a block, or its copies would not be vector instructions, and
cached on disk (`NUMBA_CACHE_DIR`, by default beside this file): a length's first use on a machine takes some
seconds.

All take `ids` (batch, features) and a `Layout`. Those that look up work on the rows `low` to `high`; those that change
a pool work on its elements `low` to `high`, and read all rows.
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
from sizewise.embedding.kernels.blocks.copies import fills_lines, fold_floats, repeat_floats
from sizewise.embedding.kernels.blocks.runs import mark
from sizewise.embedding.kernels.vectors import (
    copy_floats,
    drained,
    inlined,
    prefetch,
    stream_floats,
    unpack_floats,
    unpack_stream,
)
from sizewise_core.machine.compiled import jit


@inlined
def _room(ids: Array, blocks: int) -> tuple[int, Array, Array]:
    """Rows in a chunk, and room for its blocks."""
    rows = max(1, CHUNK_BLOCKS // (ids.shape[1] * blocks))
    count = rows * ids.shape[1] * blocks
    return rows, np.empty(count, np.int64), np.empty(count, np.int64)


@inlined
def _find(places: Array, ids: Array, rows: tuple[int, int], layout: Layout, blocks: int, hashed: bool) -> int:
    """For each block of the rows: twice the position of its first element, plus its sign's bit."""
    a, b, slots, align = layout.multiplier, layout.increment, layout.slots, layout.align
    features, n = ids.shape[1], 0
    for row in range(rows[0], rows[1]):
        if not hashed:  # a table with a row for each value: b says where each feature's rows begin
            for f in range(features):
                places[n + f] = (int64(ids[row, f]) + int64(b[f])) * align * 2
            n += features
        elif blocks == 1:  # a loop over features is one of vector instructions, too
            for f in range(features):
                places[n + f] = place_of(uint32(ids[row, f]), a[f], b[f], slots, align)
            n += features
        else:
            for f in range(features):
                x = uint32(ids[row, f])
                for c in range(blocks):
                    places[n + c] = place_of(x, a[f * blocks + c], b[f * blocks + c], slots, align)
                n += blocks
    return n


@inlined
def _find_within(
    places: Array,
    numbers: Array,
    ids: Array,
    rows: tuple[int, int],
    bounds: tuple[int, int],
    layout: Layout,
    blocks: int,
    block_len: int,
    hashed: bool,
) -> int:
    """`_find`, but only those blocks that reach into the elements within the bounds, and their numbers."""
    count, kept = _find(places, ids, rows, layout, blocks, hashed), 0
    low, high = bounds
    for n in range(count):  # without a branch: it would be mispredicted half of the time
        doubled = places[n]
        places[kept], numbers[kept] = doubled, n
        kept += int64(((doubled >> 1) < high) & ((doubled >> 1) + block_len > low))
    return kept


@lru_cache(maxsize=64)
def lookup_of(shape: Shape) -> Callable[..., None]:
    """Copies blocks of a pool to `out`, all vectors one after the other."""
    dim, block_len, signed, hashed = shape
    blocks, last, of_lines = shape.blocks, shape.last, shape.of_lines
    ragged = last != block_len

    @jit
    def lookup(
        pool: Array, ids: Array, low: int, high: int, layout: Layout, out: Array, streamed: bool
    ) -> None:
        rows, places, _ = _room(ids, blocks)
        at, one = low * ids.shape[1] * dim, np.float32(1)
        for first in range(low, high, rows):
            count = _find(places, ids, (first, min(first + rows, high)), layout, blocks, hashed)
            for n in range(count):
                coming = places[min(n + AHEAD, count - 1)] >> 1
                prefetch(pool, coming)
                prefetch(pool, coming + block_len - 1)
                scale = np.float32(1 - 2 * (places[n] & 1)) if signed else one
                length = last if ragged and n % blocks == blocks - 1 else block_len
                if ragged and length == last:
                    copy_floats(out, at, pool, places[n] >> 1, scale, last)
                elif of_lines and streamed:
                    stream_floats(out, at, pool, places[n] >> 1, scale, block_len)
                else:
                    copy_floats(out, at, pool, places[n] >> 1, scale, block_len)
                at += length
        if of_lines and streamed:
            drained()

    return lookup  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def repeated_lookup_of(shape: Shape, copies: int, strength: float) -> Callable[..., None]:
    """The same for vectors of one block, each written so many times, one copy after another, times the strength.

    Args:
        shape: of the blocks.
        copies: of a vector.
        strength: factor of every number.
    """
    dim, _, signed, hashed = shape
    total, lines, factor = dim * copies, int(fills_lines(dim, copies)), np.float32(strength)

    @jit
    def lookup(
        pool: Array, ids: Array, low: int, high: int, layout: Layout, out: Array, streamed: bool
    ) -> None:
        rows, places, _ = _room(ids, 1)
        at = low * ids.shape[1] * total
        for first in range(low, high, rows):
            count = _find(places, ids, (first, min(first + rows, high)), layout, 1, hashed)
            for n in range(count):
                coming = places[min(n + AHEAD, count - 1)] >> 1
                prefetch(pool, coming)
                prefetch(pool, coming + dim - 1)
                scale = factor * np.float32(1 - 2 * (places[n] & 1)) if signed else factor
                if lines and streamed:
                    repeat_floats(out, at, pool, places[n] >> 1, scale, dim, copies, lines)
                else:
                    repeat_floats(out, at, pool, places[n] >> 1, scale, dim, copies, 0)
                at += total
        if lines and streamed:
            drained()

    return lookup  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def packed_lookup_of(shape: Shape, bits: int, on_bytes: bool, one_scale: bool) -> Callable[..., None]:
    """The same out of packed codes; `scales` are float32, one for so many (`group`) numbers.

    Args:
        shape: of the blocks.
        bits: of a code.
        on_bytes: every block begins on a byte.
        one_scale: `scales` is one number.
    """
    dim, block_len, signed, hashed = shape
    blocks, last, of_lines = shape.blocks, shape.last, shape.of_lines
    ragged, each = last != block_len, 8 // bits
    by_bytes = on_bytes and block_len % each == 0
    last_by_bytes = on_bytes and last % each == 0
    # A constant where it is not used, too: of none such would the intrinsic make instructions.
    taken, last_taken = (block_len if by_bytes else each), (last if last_by_bytes else each)

    @jit
    def lookup(
        codes: Array,
        scales: Array,
        group: int,
        ids: Array,
        low: int,
        high: int,
        layout: Layout,
        out: Array,
        streamed: bool,
    ) -> None:
        rows, places, _ = _room(ids, blocks)
        at = low * ids.shape[1] * dim
        wide = group >= block_len  # no block has numbers of more than two groups
        for first in range(low, high, rows):
            count = _find(places, ids, (first, min(first + rows, high)), layout, blocks, hashed)
            for n in range(count):
                prefetch(codes, (places[min(n + AHEAD, count - 1)] >> 1) // each)
                place, sign = places[n] >> 1, np.float32(1 - 2 * (places[n] & 1) if signed else 1)
                is_last = ragged and n % blocks == blocks - 1
                length = last if is_last else block_len
                scale = other = scales[0] * sign
                rest = int64(block_len)  # numbers from here on that the first scale is of
                if not one_scale:
                    number = place // group
                    scale, other = scales[number] * sign, scales[min(number + 1, len(scales) - 1)] * sign
                    rest = (number + 1) * group - place
                if is_last and last_by_bytes and wide:
                    unpack_floats(out, at, codes, place // each, scale, other, rest, bits, last_taken)
                elif not is_last and by_bytes and wide and of_lines and streamed:
                    unpack_stream(out, at, codes, place // each, scale, other, rest, bits, taken)
                elif not is_last and by_bytes and wide:
                    unpack_floats(out, at, codes, place // each, scale, other, rest, bits, taken)
                else:
                    unpack_slowly(out, at, codes, place, length, bits, scales, group, sign)
                at += length
        if of_lines and streamed:
            drained()

    return lookup  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def scatter_of(shape: Shape) -> Callable[..., None]:
    """Adds a factor times the gradient of vectors to the elements that they were looked up from."""
    dim, block_len, signed, hashed = shape
    blocks, last = shape.blocks, shape.last
    ragged = last != block_len

    @jit
    def scatter(
        sums: Array, ids: Array, low: int, high: int, layout: Layout, gradient: Array, factor: float
    ) -> None:
        rows, places, numbers = _room(ids, blocks)
        for first in range(0, ids.shape[0], rows):
            before = first * ids.shape[1] * blocks
            chunk = first, min(first + rows, ids.shape[0])
            kept = _find_within(places, numbers, ids, chunk, (low, high), layout, blocks, block_len, hashed)
            for n in range(kept):
                coming = min(n + AHEAD, kept - 1)
                prefetch(sums, places[coming] >> 1)
                prefetch(sums, (places[coming] >> 1) + block_len - 1)
                prefetch(gradient, (before + numbers[coming]) * dim // blocks)
                place, number = places[n] >> 1, before + numbers[n]
                scale = factor * np.float32(1 - 2 * (places[n] & 1)) if signed else factor
                at = number // blocks * dim + number % blocks * block_len
                length = last if ragged and number % blocks == blocks - 1 else block_len
                add_block(sums, place, (low, high), gradient, at, scale, length, (block_len, last))

    return scatter  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def repeated_scatter_of(shape: Shape, copies: int, strength: float) -> Callable[..., None]:
    """The same for what `repeated_lookup_of` has looked up: gradients of copies are added up, times the strength.

    Args: as for `repeated_lookup_of`.
    """
    dim, _, signed, hashed = shape
    total, one = dim * copies, np.float32(strength)

    @jit
    def scatter(
        sums: Array, ids: Array, low: int, high: int, layout: Layout, gradient: Array, factor: float
    ) -> None:
        rows, places, numbers = _room(ids, 1)
        folded = np.empty(dim, np.float32)
        for first in range(0, ids.shape[0], rows):
            before = first * ids.shape[1]
            chunk = first, min(first + rows, ids.shape[0])
            kept = _find_within(places, numbers, ids, chunk, (low, high), layout, 1, dim, hashed)
            for n in range(kept):
                coming = min(n + AHEAD, kept - 1)
                prefetch(sums, places[coming] >> 1)
                prefetch(sums, (places[coming] >> 1) + dim - 1)
                prefetch(gradient, (before + numbers[coming]) * total)
                scale = factor * np.float32(1 - 2 * (places[n] & 1)) if signed else factor
                fold_floats(folded, 0, gradient, (before + numbers[n]) * total, one, dim, copies)
                add_block(sums, places[n] >> 1, (low, high), folded, 0, scale, dim, (dim, dim))

    return scatter  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def mark_of(shape: Shape) -> Callable[..., None]:
    """Sets the bits of the runs (`blocks.runs`) that blocks of ids lie in, of the words `low` to `high`."""
    block_len, hashed, blocks = shape.block_len, shape.hashed, shape.blocks

    @jit
    def mark_runs(runs: Array, ids: Array, low: int, high: int, layout: Layout) -> None:
        rows, places, _ = _room(ids, blocks)
        for first in range(0, ids.shape[0], rows):
            chunk = first, min(first + rows, ids.shape[0])
            for n in range(_find(places, ids, chunk, layout, blocks, hashed)):
                mark(runs, places[n] >> 1, block_len, low, high)

    return mark_runs  # type: ignore[no-any-return]

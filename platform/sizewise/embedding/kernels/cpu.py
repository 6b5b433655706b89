"""Lookup, gradient and optimizer update of blocks of a flat pool on a CPU, compiled by numba.

    blocks = Blocks(features, dim=16, block_len=16, align=4, multiplier=..., increment=...)
    vectors = blocks.lookup(pool, ids)               # (batch, features, dim)
    blocks.scatter(pool, ids, gradient, factor=-0.1) # a step of SGD, without a gradient of the pool's size

Nothing of the size of the vectors is made on the way: a block's hash is computed again in the backward, which
costs a nanosecond, where reading it back would cost as much. What takes time is waiting for memory, so blocks
are prefetched some dozens ahead.

Every thread owns a range of the pool and adds up what falls into it, in the order of the rows. So no update is
lost, no atomic operation is needed, and results are the same bits for any number of threads.

Compiled code is specialised for the length of a block, or its copies would not be vector instructions, and
cached on disk (`NUMBA_CACHE_DIR`, by default beside this file): a length's first use on a machine takes some
seconds.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import int64, uint32, uint64
from torch import Tensor

from sizewise.embedding.kernels.threads import share_out
from sizewise.embedding.kernels.vectors import (
    WIDEST,
    adagrad_floats,
    add_floats,
    copy_floats,
    drained,
    inlined,
    prefetch,
    stream_floats,
)
from sizewise_core.compiled import jit

CHUNK_BLOCKS = 4096  # hashed at a time, into 32 KB
AHEAD = 32  # blocks prefetched ahead: enough loads in flight to hide the latency of the last-level cache
# Fewer are not worth a second thread: what it saves is lost again where one core reads what the other has written.
BLOCKS_PER_THREAD = 65_536
# So many vectors have left the caches before they are read. Written past them, they take half of the time, as what they
# overwrite is not fetched.
STREAMED_BYTES = 2**24

Array = npt.NDArray[Any]


@jit
def _mixed(x: Any) -> Any:  # lowbias32
    x ^= x >> uint32(16)
    x = uint32(x * uint32(0x7FEB352D))
    x ^= x >> uint32(15)
    x = uint32(x * uint32(0x846CA68B))
    return x ^ (x >> uint32(16))


@inlined
def _room(ids: Array, blocks: int) -> tuple[int, Array, Array]:
    """Rows in a chunk, and room for its blocks."""
    rows = max(1, CHUNK_BLOCKS // (ids.shape[1] * blocks))
    count = rows * ids.shape[1] * blocks
    return rows, np.empty(count, np.int64), np.empty(count, np.int64)


@inlined
def _find(
    places: Array,
    ids: Array,
    low: int,
    high: int,
    a: Array,
    b: Array,
    slots: int,
    align: int,
    blocks: int,
    hashed: bool,
) -> int:
    """For each block of rows low to high: twice the position of its first element, plus its sign's bit."""
    features, n = ids.shape[1], 0
    for row in range(low, high):
        if not hashed:  # a table with a row for each value: b says where each feature's rows begin
            for f in range(features):
                places[n + f] = (int64(ids[row, f]) + int64(b[f])) * align * 2
            n += features
        elif blocks == 1:  # a loop over features is one of vector instructions, too
            for f in range(features):
                h = _mixed(uint32(uint32(uint32(ids[row, f]) * a[f]) + b[f]))
                slot = (uint64(h) * uint64(slots)) >> uint64(32)
                places[n + f] = int64(slot) * align * 2 + int64(h & uint32(1))
            n += features
        else:
            for f in range(features):
                x = uint32(ids[row, f])
                for c in range(blocks):
                    h = _mixed(uint32(uint32(x * a[f * blocks + c]) + b[f * blocks + c]))
                    slot = (uint64(h) * uint64(slots)) >> uint64(32)
                    places[n + c] = int64(slot) * align * 2 + int64(h & uint32(1))
                n += blocks
    return n


@inlined
def _find_within(
    places: Array,
    numbers: Array,
    ids: Array,
    rows: tuple[int, int],
    low: int,
    high: int,
    a: Array,
    b: Array,
    slots: int,
    align: int,
    blocks: int,
    block_len: int,
    hashed: bool,
) -> int:
    """`_find`, but only those blocks that reach into the elements low to high, and their numbers."""
    count, kept = _find(places, ids, rows[0], rows[1], a, b, slots, align, blocks, hashed), 0
    for n in range(count):  # without a branch: it would be mispredicted half of the time
        doubled = places[n]
        places[kept], numbers[kept] = doubled, n
        kept += int64(((doubled >> 1) < high) & ((doubled >> 1) + block_len > low))
    return kept


class _Compiled(NamedTuple):
    """Functions for one shape of blocks; each works on rows, or on a range of the pool, given by its bounds."""

    lookup: Callable[..., None]
    scatter: Callable[..., None]
    adagrad: Callable[..., None]
    round_bfloat16: Callable[..., None]


@lru_cache(maxsize=64)
def _compiled(dim: int, block_len: int, signed: bool, hashed: bool) -> _Compiled:
    blocks = -(-dim // block_len)
    last = dim - (blocks - 1) * block_len  # elements of a vector's last block
    ragged = last != block_len
    of_lines = dim % WIDEST == block_len % WIDEST == 0  # every block fills whole cache lines of the vectors

    @jit
    def lookup(
        pool: Array,
        ids: Array,
        low: int,
        high: int,
        a: Array,
        b: Array,
        slots: int,
        align: int,
        out: Array,
        streamed: bool,
    ) -> None:
        rows, places, _ = _room(ids, blocks)
        at, one = low * ids.shape[1] * dim, np.float32(1)
        for first in range(low, high, rows):
            count = _find(places, ids, first, min(first + rows, high), a, b, slots, align, blocks, hashed)
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

    @jit
    def scatter(
        sums: Array,
        ids: Array,
        low: int,
        high: int,
        a: Array,
        b: Array,
        slots: int,
        align: int,
        gradient: Array,
        factor: float,
    ) -> None:
        """Add factor times the gradient to the elements low to high."""
        rows, places, numbers = _room(ids, blocks)
        for first in range(0, ids.shape[0], rows):
            before = first * ids.shape[1] * blocks
            chunk = first, min(first + rows, ids.shape[0])
            kept = _find_within(
                places, numbers, ids, chunk, low, high, a, b, slots, align, blocks, block_len, hashed
            )
            for n in range(kept):
                coming = min(n + AHEAD, kept - 1)
                prefetch(sums, places[coming] >> 1)
                prefetch(sums, (places[coming] >> 1) + block_len - 1)
                prefetch(gradient, (before + numbers[coming]) * dim // blocks)
                place, number = places[n] >> 1, before + numbers[n]
                scale = factor * np.float32(1 - 2 * (places[n] & 1)) if signed else factor
                at = number // blocks * dim + number % blocks * block_len
                length = last if ragged and number % blocks == blocks - 1 else block_len
                if low > place or place + length > high:
                    for i in range(max(0, low - place), min(length, high - place)):
                        sums[place + i] += scale * gradient[at + i]
                elif ragged and length == last:
                    add_floats(sums, place, gradient, at, scale, last)
                else:
                    add_floats(sums, place, gradient, at, scale, block_len)

    @jit
    def adagrad(
        pool: Array,
        sums: Array,
        squares: Array,
        ids: Array,
        low: int,
        high: int,
        a: Array,
        b: Array,
        slots: int,
        align: int,
        rate: float,
        epsilon: float,
    ) -> None:
        """Step the elements low to high that blocks of ids hold by their sums, and clear these.

        A sum that is zero changes nothing, so blocks may come again and overlap.
        """
        rows, places, numbers = _room(ids, blocks)
        for first in range(0, ids.shape[0], rows):
            chunk = first, min(first + rows, ids.shape[0])
            kept = _find_within(
                places, numbers, ids, chunk, low, high, a, b, slots, align, blocks, block_len, hashed
            )
            for n in range(kept):
                coming = places[min(n + AHEAD, kept - 1)] >> 1
                for end in (coming, coming + block_len - 1):
                    prefetch(pool, end)
                    prefetch(sums, end)
                    prefetch(squares, end)
                place = places[n] >> 1
                if low <= place and place + block_len <= high:
                    adagrad_floats(pool, sums, squares, place, rate, epsilon, block_len)
                else:
                    for i in range(max(0, low - place), min(block_len, high - place)):
                        g = sums[place + i]
                        square = squares[place + i] + g * g
                        squares[place + i] = square
                        pool[place + i] -= rate * g / (np.sqrt(square) + epsilon)
                        sums[place + i] = 0

    @jit
    def round_bfloat16(
        bits: Array, ids: Array, low: int, high: int, a: Array, b: Array, slots: int, align: int, stream: int
    ) -> None:
        """Round the elements that blocks of ids hold as `Table` does; what is rounded already stays."""
        rows, places, numbers = _room(ids, blocks)
        for first in range(0, ids.shape[0], rows):
            chunk = first, min(first + rows, ids.shape[0])
            kept = _find_within(
                places, numbers, ids, chunk, low, high, a, b, slots, align, blocks, block_len, hashed
            )
            for n in range(kept):
                prefetch(bits, places[min(n + AHEAD, kept - 1)] >> 1)
                place = places[n] >> 1
                for i in range(max(0, low - place), min(block_len, high - place)):
                    value = bits[place + i]
                    noise = _mixed(uint32(place + i + stream)) & uint32(0xFFFF)
                    if value & uint32(0xFFFF):
                        bits[place + i] = uint32(value + noise) & uint32(0xFFFF0000)

    return _Compiled(lookup, scatter, adagrad, round_bfloat16)


class Blocks:
    """Where the vectors of (feature, id) lie in a flat pool, and what can be done with them.

    Args:
        dim: length of a vector.
        block_len: elements that lie together; the last block of a vector may be cut short.
        align: elements between two places where a block may start.
        multiplier: int64 (features or 1, blocks) of `FastHash`; None where ids are not hashed.
        increment: int64, of the same shape; where ids are not hashed, (features,): the row where each
            feature's values begin, in rows of `align` = dim elements.
        signed: multiply a block by +1 or -1, by the lowest bit of its hash.

    All pools are float32 (size,), ids int64 or uint32 (batch, features), vectors and gradients float32
    (batch, features, dim), contiguous, on the CPU.
    """

    def __init__(
        self,
        features: int,
        dim: int,
        block_len: int,
        align: int,
        multiplier: Tensor | None,
        increment: Tensor,
        signed: bool = False,
    ) -> None:
        self.shape = (dim, block_len, signed, multiplier is not None)
        self.dim, self.block_len, self.align = dim, block_len, align
        blocks = -(-dim // block_len)
        kind = np.int64 if multiplier is None else np.uint32
        if multiplier is None:
            multiplier, increment = torch.zeros_like(increment).view(-1, 1), increment.view(-1, 1)
        self.multiplier, self.increment = (
            np.ascontiguousarray(term.cpu().expand(features, blocks).numpy().astype(kind)).reshape(-1)
            for term in (multiplier, increment)
        )

    def lookup(self, pool: Tensor, ids: Tensor) -> Tensor:
        """The vectors of ids: (batch, features, dim)."""
        vectors = torch.empty(*ids.shape, self.dim)
        run, out = _compiled(*self.shape).lookup, vectors.view(-1).numpy()
        pool_, ids_, place = _array(pool), ids.numpy(), self._place(pool)
        streamed = out.nbytes > STREAMED_BYTES and vectors.data_ptr() % (4 * WIDEST) == 0
        share_out(
            len(ids), self._parts(ids), lambda low, high: run(pool_, ids_, low, high, *place, out, streamed)
        )
        return vectors

    def scatter(self, sums: Tensor, ids: Tensor, gradient: Tensor, factor: float = 1.0) -> None:
        """Add `factor` times the gradient of the vectors of ids to the elements they were looked up from.

        With a factor of minus the learning rate and the pool itself for sums this is the step of SGD, but for
        the order of rounding: each row's part is taken off at once, not their sum.
        """
        run = _compiled(*self.shape).scatter
        sums_, ids_, place = _array(sums), ids.numpy(), self._place(sums)
        values = _array(gradient.contiguous())
        share_out(
            sums.numel(),
            self._parts(ids),
            lambda low, high: run(sums_, ids_, low, high, *place, values, np.float32(factor)),
        )

    def adagrad(
        self, pool: Tensor, sums: Tensor, squares: Tensor, ids: Tensor, rate: float, epsilon: float
    ) -> None:
        """Step the elements of ids by the sums of their gradients, which are zero afterwards.

        Args:
            pool: stepped in place.
            sums: what `scatter` has summed, (size,).
            squares: Adagrad's state, the sums of squared gradients so far, (size,).
            ids: those that were scattered.
            rate: learning rate.
            epsilon: added to the root of `squares`.
        """
        run, place = _compiled(*self.shape).adagrad, self._place(pool)
        pool_, sums_, squares_, ids_ = _array(pool), _array(sums), _array(squares), ids.numpy()
        settings = np.float32(rate), np.float32(epsilon)
        share_out(
            pool.numel(),
            self._parts(ids),
            lambda low, high: run(pool_, sums_, squares_, ids_, low, high, *place, *settings),
        )

    def round_bfloat16(self, pool: Tensor, ids: Tensor, stream: int) -> None:
        """Round the elements of ids stochastically to bfloat16, with the noise of `stream`."""
        run, place = _compiled(*self.shape).round_bfloat16, self._place(pool)
        bits, ids_ = _array(pool).view(np.uint32), ids.numpy()
        share_out(
            pool.numel(),
            self._parts(ids),
            lambda low, high: run(bits, ids_, low, high, *place, stream),
        )

    def _place(self, pool: Tensor) -> tuple[Array, Array, int, int]:
        slots = (pool.numel() - self.block_len) // self.align + 1
        return self.multiplier, self.increment, slots, self.align

    def _parts(self, ids: Tensor) -> int:
        """How many of PyTorch's threads the blocks of ids are worth."""
        blocks = len(self.multiplier) // ids.shape[1] * ids.numel()
        return max(1, min(torch.get_num_threads(), blocks // BLOCKS_PER_THREAD))


def _array(tensor: Tensor) -> Array:
    """A flat view of a tensor's memory."""
    flat: Array = tensor.detach().view(-1).numpy()
    return flat

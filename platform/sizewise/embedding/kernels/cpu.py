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

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import int64, njit, types, uint32, uint64
from numba.extending import intrinsic
from torch import Tensor

CHUNK_BLOCKS = 4096  # hashed at a time, into 32 KB
AHEAD = 48  # blocks prefetched ahead: enough loads in flight to hide the latency of the last-level cache
BLOCKS_PER_THREAD = 8192  # fewer are not worth waking a thread for

Array = npt.NDArray[Any]


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of array[index], which need not lie within the array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [address, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


def _jit(function: Callable[..., Any]) -> Any:
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no folder to cache in can be written to
        return njit(nogil=True, error_model="numpy")(function)


@_jit
def _mixed(x: Any) -> Any:  # lowbias32
    x ^= x >> uint32(16)
    x = uint32(x * uint32(0x7FEB352D))
    x ^= x >> uint32(15)
    x = uint32(x * uint32(0x846CA68B))
    return x ^ (x >> uint32(16))


@_jit
def _find(
    places: Array, ids: Array, low: int, high: int, a: Array, b: Array, slots: int, align: int, hashed: bool
) -> None:
    """For each block of rows low to high: twice the position of its first element, plus its sign's bit."""
    features, blocks, n = a.shape[0], a.shape[1], 0
    for row in range(low, high):
        for f in range(features):
            if hashed:
                x = uint32(ids[row, f])
                for c in range(blocks):
                    h = _mixed(uint32(uint32(x * uint32(a[f, c])) + uint32(b[f, c])))
                    slot = (uint64(h) * uint64(slots)) >> uint64(32)
                    places[n] = int64(slot) * align * 2 + int64(h & uint32(1))
                    n += 1
            else:  # a table with a row for each value: b says where each feature's rows begin
                places[n] = (int64(ids[row, f]) + int64(b[f, 0])) * align * 2
                n += 1


@_jit
def take_rows(
    labels: Array, dense: Array, ids: Array, rows: Array, to_labels: Array, to_dense: Array, to_ids: Array
) -> None:
    """Copy the given rows of a shard, widening ids and labels on the way; missing dense values become 0."""
    for n in range(len(rows)):
        if n + 8 < len(rows):
            coming = rows[n + 8]
            for line in range(0, ids.shape[1], 16):
                _prefetch(ids, coming * ids.shape[1] + line)
            _prefetch(dense, coming * dense.shape[1])
        row = rows[n]
        to_labels[n] = labels[row]
        for i in range(dense.shape[1]):
            value = dense[row, i]
            to_dense[n, i] = value if value == value else np.float32(0)  # NaN differs from itself
        for i in range(ids.shape[1]):
            to_ids[n, i] = ids[row, i]


class _Compiled(NamedTuple):
    """Functions for one shape of blocks; each works on rows, or on a range of the pool, given by its bounds."""

    lookup: Callable[..., None]
    scatter: Callable[..., None]
    adagrad: Callable[..., None]
    round_bfloat16: Callable[..., None]


@lru_cache(maxsize=64)
def _compiled(dim: int, block_len: int, signed: bool, hashed: bool) -> _Compiled:
    blocks = -(-dim // block_len)
    last = dim - (blocks - 1) * block_len

    @_jit
    def lookup(
        pool: Array, ids: Array, low: int, high: int, a: Array, b: Array, slots: int, align: int, out: Array
    ) -> None:
        features = ids.shape[1]
        rows = max(1, CHUNK_BLOCKS // (features * blocks))
        places = np.empty(rows * features * blocks, np.int64)
        for start in range(low, high, rows):
            stop = min(start + rows, high)
            _find(places, ids, start, stop, a, b, slots, align, hashed)
            count = (stop - start) * features * blocks
            n = 0
            for vector in range(start * features, stop * features):
                for c in range(blocks):
                    if n + AHEAD < count:
                        _prefetch(pool, places[n + AHEAD] >> 1)
                        _prefetch(pool, (places[n + AHEAD] >> 1) + block_len - 1)
                    place = places[n] >> 1
                    sign = np.float32(1 - 2 * (places[n] & 1)) if signed else np.float32(1)
                    n += 1
                    if c == blocks - 1 and last != block_len:
                        for i in range(last):
                            out[vector * dim + c * block_len + i] = pool[place + i] * sign
                    elif signed:
                        for i in range(block_len):
                            out[vector * dim + c * block_len + i] = pool[place + i] * sign
                    else:
                        for i in range(block_len):
                            out[vector * dim + c * block_len + i] = pool[place + i]

    @_jit
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
        features, batch = ids.shape[1], ids.shape[0]
        rows = max(1, CHUNK_BLOCKS // (features * blocks))
        places = np.empty(rows * features * blocks, np.int64)
        for start in range(0, batch, rows):
            stop = min(start + rows, batch)
            _find(places, ids, start, stop, a, b, slots, align, hashed)
            count = (stop - start) * features * blocks
            n = 0
            for vector in range(start * features, stop * features):
                for c in range(blocks):
                    if n + AHEAD < count:
                        coming = places[n + AHEAD] >> 1
                        if low <= coming < high:
                            _prefetch(sums, coming)
                            _prefetch(sums, coming + block_len - 1)
                    place = places[n] >> 1
                    scale = factor
                    if signed and places[n] & 1:
                        scale = -factor
                    n += 1
                    if place >= high or place + block_len <= low:
                        continue
                    whole = low <= place and place + block_len <= high
                    if whole and not (c == blocks - 1 and last != block_len):
                        for i in range(block_len):
                            sums[place + i] += scale * gradient[vector * dim + c * block_len + i]
                    else:
                        length = last if c == blocks - 1 else block_len
                        for i in range(max(0, low - place), min(length, high - place)):
                            sums[place + i] += scale * gradient[vector * dim + c * block_len + i]

    @_jit
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
        features, batch = ids.shape[1], ids.shape[0]
        rows = max(1, CHUNK_BLOCKS // (features * blocks))
        places = np.empty(rows * features * blocks, np.int64)
        for start in range(0, batch, rows):
            stop = min(start + rows, batch)
            _find(places, ids, start, stop, a, b, slots, align, hashed)
            count = (stop - start) * features * blocks
            for n in range(count):
                if n + AHEAD < count:
                    coming = places[n + AHEAD] >> 1
                    if low <= coming < high:
                        _prefetch(pool, coming)
                        _prefetch(sums, coming)
                        _prefetch(squares, coming)
                place = places[n] >> 1
                if place >= high or place + block_len <= low:
                    continue
                if low <= place and place + block_len <= high:
                    for i in range(block_len):
                        g = sums[place + i]
                        square = squares[place + i] + g * g
                        squares[place + i] = square
                        pool[place + i] -= rate * g / (np.sqrt(square) + epsilon)
                        sums[place + i] = 0
                else:
                    for i in range(max(0, low - place), min(block_len, high - place)):
                        g = sums[place + i]
                        square = squares[place + i] + g * g
                        squares[place + i] = square
                        pool[place + i] -= rate * g / (np.sqrt(square) + epsilon)
                        sums[place + i] = 0

    @_jit
    def round_bfloat16(
        bits: Array, ids: Array, low: int, high: int, a: Array, b: Array, slots: int, align: int, stream: int
    ) -> None:
        """Round the elements that blocks of ids hold as `Table` does; what is rounded already stays."""
        features, batch = ids.shape[1], ids.shape[0]
        rows = max(1, CHUNK_BLOCKS // (features * blocks))
        places = np.empty(rows * features * blocks, np.int64)
        for start in range(0, batch, rows):
            stop = min(start + rows, batch)
            _find(places, ids, start, stop, a, b, slots, align, hashed)
            for n in range((stop - start) * features * blocks):
                place = places[n] >> 1
                for i in range(max(0, low - place), min(block_len, high - place)):
                    value = bits[place + i]
                    if value & uint32(0xFFFF):
                        noise = _mixed(uint32(place + i + stream)) & uint32(0xFFFF)
                        bits[place + i] = uint32(value + noise) & uint32(0xFFFF0000)

    return _Compiled(lookup, scatter, adagrad, round_bfloat16)


@lru_cache(maxsize=2)
def _threads(process: int) -> ThreadPoolExecutor:
    """Threads of this process: those of the process that it was forked from are not with it."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="sizewise-kernel")


def _shared_out(count: int, work: int, run: Callable[[int, int], None]) -> None:
    """Call `run` on parts of range(count), on as many of PyTorch's threads as the work (in blocks) is worth."""
    parts = max(1, min(torch.get_num_threads(), work // BLOCKS_PER_THREAD, count))
    bounds = [count * part // parts for part in range(parts + 1)]
    others = [_threads(os.getpid()).submit(run, bounds[part], bounds[part + 1]) for part in range(1, parts)]
    run(bounds[0], bounds[1])
    for other in others:
        other.result()


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
            np.ascontiguousarray(term.cpu().expand(features, blocks).numpy().astype(kind))
            for term in (multiplier, increment)
        )

    def lookup(self, pool: Tensor, ids: Tensor) -> Tensor:
        """The vectors of ids: (batch, features, dim)."""
        vectors = torch.empty(*ids.shape, self.dim)
        run, out = _compiled(*self.shape).lookup, vectors.view(-1).numpy()
        pool_, ids_, place = _array(pool), ids.numpy(), self._place(pool)
        _shared_out(len(ids), self._work(ids), lambda low, high: run(pool_, ids_, low, high, *place, out))
        return vectors

    def scatter(self, sums: Tensor, ids: Tensor, gradient: Tensor, factor: float = 1.0) -> None:
        """Add `factor` times the gradient of the vectors of ids to the elements they were looked up from.

        With a factor of minus the learning rate and the pool itself for sums this is the step of SGD, but for
        the order of rounding: each row's part is taken off at once, not their sum.
        """
        run = _compiled(*self.shape).scatter
        sums_, ids_, place = _array(sums), ids.numpy(), self._place(sums)
        values = _array(gradient.contiguous())
        _shared_out(
            sums.numel(),
            self._work(ids),
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
        _shared_out(
            pool.numel(),
            self._work(ids),
            lambda low, high: run(pool_, sums_, squares_, ids_, low, high, *place, *settings),
        )

    def round_bfloat16(self, pool: Tensor, ids: Tensor, stream: int) -> None:
        """Round the elements of ids stochastically to bfloat16, with the noise of `stream`."""
        run, place = _compiled(*self.shape).round_bfloat16, self._place(pool)
        bits, ids_ = _array(pool).view(np.uint32), ids.numpy()
        _shared_out(
            pool.numel(),
            self._work(ids),
            lambda low, high: run(bits, ids_, low, high, *place, stream),
        )

    def _place(self, pool: Tensor) -> tuple[Array, Array, int, int]:
        slots = (pool.numel() - self.block_len) // self.align + 1
        return self.multiplier, self.increment, slots, self.align

    def _work(self, ids: Tensor) -> int:
        return math.prod(ids.shape) * int(self.multiplier.shape[1])


def _array(tensor: Tensor) -> Array:
    """A flat view of a tensor's memory."""
    flat: Array = tensor.detach().view(-1).numpy()
    return flat

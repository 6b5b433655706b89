"""Lookup, gradient and optimizer update of blocks of a flat pool on a CPU, compiled by numba.

    blocks = Blocks(features, dim=16, block_len=16, align=4, multiplier=..., increment=...)
    vectors = blocks.lookup(pool, ids)               # (batch, features, dim)
    blocks.scatter(pool, ids, gradient, factor=-0.1) # a step of SGD, without a gradient of the pool's size

Nothing of the size of the vectors is made on the way: a block's hash is computed again in the backward, which
costs a nanosecond, where reading it back would cost as much. What takes time is waiting for memory, so blocks
are prefetched some dozens ahead (`kernels.blocks` has the compiled functions).

Every thread owns a range of the pool and adds up what falls into it, in the order of the rows. So no update is
lost, no atomic operation is needed, and results are the same bits for any number of threads.
"""

from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sizewise.embedding.bags import Ragged
from sizewise.embedding.kernels.blocks.bags import (
    bag_lookup_of,
    bag_mark_of,
    bag_scatter_of,
    packed_bag_lookup_of,
)
from sizewise.embedding.kernels.blocks.common import Layout, Shape, past_caches
from sizewise.embedding.kernels.blocks.passes import Read, all_of, threads_for
from sizewise.embedding.kernels.blocks.runs import NUMBERS_OF_WORD
from sizewise.embedding.kernels.blocks.single import (
    lookup_of,
    mark_of,
    packed_lookup_of,
    repeated_lookup_of,
    repeated_scatter_of,
    scatter_of,
)
from sizewise.embedding.kernels.threads import share_out

# Fewer do not repay a second thread: what it saves is lost again where one core reads what the other has written.
BLOCKS_PER_THREAD = 65_536
# A pool of so many times the numbers that a batch reads, or fewer, is worked on completely: to say which runs of it are
# read takes longer than to pass over the others.
ALL_RUNS = 2

Array = npt.NDArray[Any]


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

    All pools are float32 (size,), ids int64 or uint32 (batch, features), or `Ragged` where features are lists, vectors
    and gradients float32 (batch, features, dim), contiguous, on the CPU.
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
        self.shape = Shape(dim, block_len, signed, multiplier is not None)
        self.dim, self.block_len, self.align = dim, block_len, align
        self.copies, self.strength = 1, 1.0
        self._parts_of: dict[tuple[int, int], Blocks] = {}
        self._repeated: Blocks | None = None
        blocks = -(-dim // block_len)
        kind = np.int64 if multiplier is None else np.uint32
        if multiplier is None:
            multiplier, increment = torch.zeros_like(increment).view(-1, 1), increment.view(-1, 1)
        self.multiplier, self.increment = (
            np.ascontiguousarray(term.cpu().expand(features, blocks).numpy().astype(kind)).reshape(-1)
            for term in (multiplier, increment)
        )

    def of(self, first: int, count: int) -> "Blocks":
        """The blocks of some consecutive features, for ids of these alone; made once."""
        if (first, count) not in self._parts_of:
            part = copy(self)
            part._parts_of = {}
            some = slice(first * self.shape.blocks, (first + count) * self.shape.blocks)
            part.multiplier, part.increment = (
                np.ascontiguousarray(term[some]) for term in (self.multiplier, self.increment)
            )
            self._parts_of[first, count] = part
        return self._parts_of[first, count]

    def repeated(self, copies: int, strength: float) -> "Blocks":
        """The same blocks, whose vectors are looked up as so many copies of themselves times a factor; made once.

        Gradients are those of the copies. For vectors of one block, and not for `Ragged`.
        """
        if self._repeated is None:
            self._repeated = copy(self)
            self._repeated.copies, self._repeated.strength = copies, strength
        return self._repeated

    def lookup(self, pool: Tensor, ids: Tensor | Ragged) -> Tensor:
        """The vectors of ids: (batch, features, dim), or the copies of `repeated` vectors."""
        if isinstance(ids, Ragged):
            return self._lookup_bags(pool, ids)
        vectors = torch.empty(*ids.shape, self.copies * self.dim)
        run, out, streamed = lookup_of(self.shape), _array(vectors), past_caches(vectors)
        if self.copies > 1:
            run = repeated_lookup_of(self.shape, self.copies, self.strength)
        pool_, ids_, layout = _array(pool), ids.numpy(), self._layout(pool.numel())
        share_out(
            len(ids), self._parts(ids), lambda low, high: run(pool_, ids_, low, high, layout, out, streamed)
        )
        return vectors

    def _lookup_bags(self, pool: Tensor, ids: Ragged) -> Tensor:
        vectors = torch.empty(ids.rows, ids.features, self.dim)
        run, read = bag_lookup_of(self.shape), _arrays(ids)
        pool_, out, layout = _array(pool), _array(vectors), self._layout(pool.numel())
        share_out(
            ids.rows, self._parts(ids), lambda low, high: run(pool_, *read, low, high, layout, out, ids.mean)
        )
        return vectors

    def lookup_packed(
        self, codes: Tensor, scales: Tensor, ids: Tensor | Ragged, bits: int, numbers: int
    ) -> Tensor:
        """The same from packed numbers; nothing is unpacked but what ids read.

        Args:
            codes: uint8 (numbers * bits / 8, rounded up,), as `quantization.pack` makes them.
            scales: (groups,), of any float type.
            ids: as elsewhere here.
            bits: 8, 4 or 2.
            numbers: of the pool.
        """
        layout, group, scales_ = self._layout(numbers), numbers // len(scales), _array(scales.float())
        if isinstance(ids, Ragged):
            vectors = torch.empty(ids.rows, ids.features, self.dim)
            of_bags, read = packed_bag_lookup_of(self.shape, bits), _arrays(ids)
            packed, out = (codes.numpy(), scales_, group), _array(vectors)
            share_out(
                ids.rows,
                self._parts(ids),
                lambda low, high: of_bags(*packed, *read, low, high, layout, out, ids.mean),
            )
            return vectors
        vectors = torch.empty(*ids.shape, self.dim)
        run = packed_lookup_of(self.shape, bits, self.align * bits % 8 == 0, len(scales) == 1)
        out, streamed = _array(vectors), past_caches(vectors)
        codes_, ids_ = codes.numpy(), ids.numpy()
        share_out(
            len(ids),
            self._parts(ids),
            lambda low, high: run(codes_, scales_, group, ids_, low, high, layout, out, streamed),
        )
        return vectors

    def scatter(self, sums: Tensor, ids: Tensor | Ragged, gradient: Tensor, factor: float = 1.0) -> None:
        """Add `factor` times the gradient of the vectors of ids to the elements they were looked up from.

        With a factor of minus the learning rate and the pool itself for sums this is the step of SGD, but for
        the order of rounding: each row's part is taken off at once, not their sum.

        Args:
            sums: float32 (size,), or a view of that, added to in place.
            ids: as they were looked up.
            gradient: float32, like what `lookup` returned.
            factor: of the gradient.
        """
        run = (bag_scatter_of if isinstance(ids, Ragged) else scatter_of)(self.shape)
        if self.copies > 1:
            run = repeated_scatter_of(self.shape, self.copies, self.strength)
        pooling = (ids.mean,) if isinstance(ids, Ragged) else ()
        sums_, read, layout = _array(sums), _arrays(ids), self._layout(sums.numel())
        values = _array(gradient.contiguous())
        share_out(
            sums.numel(),
            self._parts(ids),
            lambda low, high: run(sums_, *read, low, high, layout, values, np.float32(factor), *pooling),
        )

    def adagrad(
        self,
        pool: Tensor,
        sums: Tensor,
        squares: Tensor,
        ids: Tensor | Ragged,
        rate: float,
        epsilon: float,
        stream: int | None = None,
    ) -> None:
        """Step the elements of ids by the sums of their gradients, which are zero afterwards.

        Args:
            pool: stepped in place.
            sums: what `scatter` has summed, (size,).
            squares: Adagrad's state, the sums of squared gradients so far, (size,).
            ids: those that were scattered.
            rate: learning rate.
            epsilon: added to the root of `squares`.
            stream: round to bfloat16, too, as `round_bfloat16`; None leaves float32.
        """
        self.runs_of(pool.numel(), ids).step_adagrad(pool, sums, squares, rate, epsilon, stream)

    def round_bfloat16(self, pool: Tensor, ids: Tensor | Ragged, stream: int) -> None:
        """Round the elements of ids stochastically to bfloat16 (the method: see `sizewise.embedding.storage.table`).

        Args:
            pool: float32 (size,), or a view of that, rounded in place; what ids do not read is rounded already.
            ids: those that were scattered.
            stream: what the noise is drawn from, another number for each step (`Table.next_stream`).
        """
        self.runs_of(pool.numel(), ids).round_bfloat16(pool, stream)

    def runs_of(self, numbers: int, ids: Tensor | Ragged) -> Read:
        """The runs of a pool that ids read; all of them, where they read most.

        Args:
            numbers: of the pool.
            ids: as elsewhere here.
        """
        read = ids.numel() * self.dim
        if numbers <= ALL_RUNS * read:
            return all_of(numbers)
        words = np.zeros(-(-numbers // NUMBERS_OF_WORD), np.uint64)
        run = (bag_mark_of if isinstance(ids, Ragged) else mark_of)(self.shape)
        arrays, layout = _arrays(ids), self._layout(numbers)
        share_out(len(words), self._parts(ids), lambda low, high: run(words, *arrays, low, high, layout))
        return Read(words, threads_for(read))

    def _layout(self, numbers: int) -> Layout:
        slots = (numbers - self.block_len) // self.align + 1
        return Layout(self.multiplier, self.increment, slots, self.align)

    def _parts(self, ids: Tensor | Ragged) -> int:
        """How many of PyTorch's threads the blocks of ids keep busy."""
        blocks = self.shape.blocks * ids.numel()
        return max(1, min(torch.get_num_threads(), blocks // BLOCKS_PER_THREAD))


def _arrays(ids: Tensor | Ragged) -> tuple[Array, ...]:
    """What compiled functions take for ids."""
    return tuple(part.numpy() for part in ids[:3]) if isinstance(ids, Ragged) else (ids.numpy(),)


def _array(tensor: Tensor) -> Array:
    """A flat view of a tensor's memory."""
    flat: Array = tensor.detach().view(-1).numpy()
    return flat

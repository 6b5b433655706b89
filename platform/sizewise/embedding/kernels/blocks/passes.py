"""The passes of `blocks.runs` over tensors, shared out among threads.

read = blocks.runs_of(pool.numel(), ids)
if read.step_as_torch(pool, sums, rate, limit=127 * scale):
    read.round_int8(pool, stream, scale)
all_of(pool.numel()).round_bfloat16(pool, stream)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sizewise.embedding.kernels.blocks import runs, steps
from sizewise.embedding.kernels.blocks.common import Array
from sizewise.embedding.kernels.threads import share_out

NUMBERS_PER_THREAD = 2**20  # fewer do not repay a second thread


class Adagrad(NamedTuple):
    """What Adagrad keeps of a pool: sums of squared gradients so far, float32 (size,), and the epsilon of roots."""

    squares: Tensor
    epsilon: float


class Read(NamedTuple):
    """The runs of a pool that a batch reads.

    All pools are float32 (size,), or views of that, on the CPU, changed in place. What no id reads stays as it is if
    its sums are zero and its numbers are rounded.

    Attributes:
        words: uint64, a bit for every run of 16 numbers.
        parts: threads that work on them.
    """

    words: Array
    parts: int

    def step_as_torch(
        self, pool: Tensor, sums: Tensor, rate: float, limit: float, adagrad: Adagrad | None = None
    ) -> bool:
        """Step by sums of gradients, which are zero afterwards, to the bits of `torch.optim`.

        Args:
            pool: stepped.
            sums: float32 (size,).
            rate: learning rate.
            limit: what numbers should not exceed.
            adagrad: what that keeps; None for a step of SGD.

        Returns:
            Whether no number does, and all are numbers.
        """
        beyond, settings = np.zeros(1, np.int64), (np.float32(rate), np.float32(limit))
        arrays = _array(pool), _array(sums)
        if adagrad is None:
            self._share(steps.step_sgd, arrays, lambda _: (*settings, beyond))
            return not beyond[0]
        counts = np.bitwise_count(self.words).astype(np.int64)
        count = int(counts.sum())
        roots = torch.empty((count + 1) * runs.RUN)  # the last run is for numbers behind complete ones
        begins, behind = counts.cumsum() - counts, np.full(1, count)

        def here(first: int) -> tuple[Array, Array]:
            return behind if first else begins, _array(roots)

        self._share(steps.add_squares, (_array(sums), _array(adagrad.squares)), here)
        roots.sqrt_()  # PyTorch's own: its roots are not everywhere the nearest floats
        epsilon = np.float32(adagrad.epsilon)
        self._share(steps.step_by_roots, arrays, lambda first: (*here(first), *settings, epsilon, beyond))
        return not beyond[0]

    def step_adagrad(
        self,
        pool: Tensor,
        sums: Tensor,
        squares: Tensor,
        rate: float,
        epsilon: float,
        stream: int | None = None,
    ) -> None:
        """Step by sums of gradients, which are zero afterwards.

        Args:
            pool: stepped.
            sums, squares: float32 (size,): of gradients, and of the squares of these so far.
            rate, epsilon: as in `torch.optim.Adagrad`.
            stream: round what was stepped, as `round_bfloat16` does; None leaves it float32.
        """
        settings = np.float32(rate), np.float32(epsilon), stream is not None
        arrays = _array(pool), _array(sums), _array(squares)
        self._share(steps.step_adagrad, arrays, lambda first: (*settings, first + (stream or 0)))

    def round_bfloat16(self, pool: Tensor, stream: int) -> None:
        """Round to bfloat16 at random (the method: see `sizewise.embedding.storage.table`).

        Args:
            pool: rounded.
            stream: what the noise is drawn from.
        """
        bits = _array(pool).view(np.uint32)
        self._share(runs.round_bfloat16, (bits,), lambda first: (first + stream,))

    def round_int8(self, pool: Tensor, stream: int, scale: float) -> None:
        """Round to multiples of a scale at random.

        Args:
            pool, stream: as for `round_bfloat16`.
            scale: a power of two from 2^-126 on.
        """
        self._share(runs.round_int8, (_array(pool),), lambda first: (first + stream, np.float32(scale)))

    def _share(
        self, work: Callable[..., None], arrays: tuple[Array, ...], settings: Callable[[int], tuple[Any, ...]]
    ) -> None:
        """Have threads work on complete runs, and then on what follows the last one, filled up with zeros."""
        usual, size = settings(0), len(arrays[0])
        share_out(len(self.words), self.parts, lambda low, high: work(*arrays, self.words, low, high, *usual))
        if left := size % runs.RUN:
            filled = [
                np.concatenate([array[size - left :], np.zeros_like(array, shape=runs.RUN - left)])
                for array in arrays
            ]
            work(*filled, np.ones(1, np.uint64), 0, 1, *settings(size - left))
            for array, full in zip(arrays, filled, strict=True):
                array[size - left :] = full[:left]


def all_of(numbers: int) -> Read:
    """All runs of a pool of so many numbers."""
    words = np.full(-(-numbers // runs.NUMBERS_OF_WORD), ~np.uint64(0))
    return Read(words, threads_for(numbers))


def threads_for(numbers: int) -> int:
    """How many of PyTorch's threads so many numbers keep busy."""
    return max(1, min(torch.get_num_threads(), numbers // NUMBERS_PER_THREAD))


def _array(tensor: Tensor) -> Array:
    """A flat view of a tensor's memory."""
    flat: Array = tensor.detach().view(-1).numpy()
    return flat

"""DLRM's interaction on a CPU, compiled by numba: the dot products of every two vectors of a row.

    joined = interact(bottom, vectors)                      # (batch, dim + pairs)
    to_bottom, to_vectors = interact_backward(bottom, vectors, gradient)

In PyTorch these are four passes over memory: join the vectors, multiply them as matrices (each pair twice), pick pairs
below the diagonal, join them to the bottom MLP's output; and as many back. Here a row stays in the first cache from its
vectors to its results. Each row is worked on by itself, so any number of threads gives the same bits.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sizewise.embedding.kernels.threads import share_out
from sizewise.embedding.kernels.vectors import WIDEST, dot, weighted_sum
from sizewise_core.machine.compiled import jit

PRODUCTS_PER_THREAD = 2**22  # fewer are done before a second thread has begun

Array = npt.NDArray[Any]


class _Compiled(NamedTuple):
    """For one number of vectors and their length; each works on rows low to high of flat arrays."""

    forward: Callable[..., None]
    backward: Callable[..., None]


@lru_cache(maxsize=16)
def _compiled(count: int, dim: int) -> _Compiled:
    width = dim + count * (count - 1) // 2
    padded = -(-dim // WIDEST) * WIDEST

    @jit
    def forward(bottom: Array, vectors: Array, joined: Array, low: int, high: int) -> None:
        row = np.empty(count * dim, np.float32)
        for n in range(low, high):
            to, others = n * width, n * (count - 1) * dim
            for d in range(dim):
                joined[to + d] = row[d] = bottom[n * dim + d]
            for k in range((count - 1) * dim):
                row[dim + k] = vectors[others + k]
            to += dim
            for i in range(1, count):
                for j in range(i):
                    joined[to + j] = dot(row, i * dim, row, j * dim, dim)
                to += i

    @jit
    def backward(
        bottom: Array,
        vectors: Array,
        gradient: Array,
        to_bottom: Array,
        to_vectors: Array,
        low: int,
        high: int,
    ) -> None:
        row = np.zeros(count * padded, np.float32)
        weights = np.zeros(count * count, np.float32)  # of each vector in the gradient of each
        for n in range(low, high):
            at, others = n * width, n * (count - 1) * dim
            for d in range(dim):
                row[d] = bottom[n * dim + d]
            for k in range(1, count):
                for d in range(dim):
                    row[k * padded + d] = vectors[others + (k - 1) * dim + d]
            pair = at + dim
            for i in range(1, count):
                for j in range(i):
                    weights[i * count + j] = weights[j * count + i] = gradient[pair]
                    pair += 1
            for d in range(0, dim, WIDEST):
                length = min(dim - d, WIDEST)
                weighted_sum(to_bottom, n * dim + d, weights, 0, row, d, padded, count, length)
                for k in range(1, count):
                    to = others + (k - 1) * dim + d
                    weighted_sum(to_vectors, to, weights, k * count, row, d, padded, count, length)
            for d in range(dim):
                to_bottom[n * dim + d] += gradient[at + d]

    return _Compiled(forward, backward)


def interact(bottom: Tensor, vectors: Tensor) -> Tensor:
    """The bottom MLP's output, and the dot product of each vector with each before it.

    Args:
        bottom: float32 (batch, dim), contiguous, on the CPU; the first vector.
        vectors: float32 (batch, features, dim), likewise.

    Returns:
        float32 (batch, dim + pairs): the pairs (1, 0), (2, 0), (2, 1), (3, 0) and on.
    """
    batch, features, dim = vectors.shape
    joined = torch.empty(batch, dim + features * (features + 1) // 2)
    _run(_compiled(features + 1, dim).forward, bottom, vectors, joined)
    return joined


def interact_backward(bottom: Tensor, vectors: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `interact`'s arguments from that of its result.

    Args:
        bottom, vectors: as `interact` had them.
        gradient: float32 (batch, dim + pairs).

    Returns:
        float32 (batch, dim) and (batch, features, dim).
    """
    _, features, dim = vectors.shape
    passed = torch.empty_like(bottom), torch.empty_like(vectors)
    run = _compiled(features + 1, dim).backward
    _run(run, bottom, vectors, gradient.contiguous(), *passed)
    return passed


def _run(kernel: Callable[..., None], bottom: Tensor, vectors: Tensor, *others: Tensor) -> None:
    """Run a kernel over all rows, on as many of PyTorch's threads as they are worth."""
    arrays = [tensor.detach().view(-1).numpy() for tensor in (bottom, vectors, *others)]
    worth = vectors.numel() * vectors.shape[1] // PRODUCTS_PER_THREAD
    parts = max(1, min(torch.get_num_threads(), worth))
    share_out(len(vectors), parts, lambda low, high: kernel(*arrays, low, high))

"""Rooflines of the CPU kernels: what a lookup and its scatter must move, what that takes alone, and what they take.

A block lies in one or two cache lines anywhere in the pool, so the limit is not the bandwidth of a copy: it is how many
lines a core can wait for at a time. It is measured by reading (or writing) one number of each line, at the places that
the kernels use, prefetched as they do; and the vectors or gradients, one after another, by PyTorch. One thread.
"""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.timing import take_turns
from torch import Tensor

from sizewise.embedding.ids.hashing import FastHash
from sizewise.embedding.kernels.blocks.common import AHEAD
from sizewise.embedding.kernels.vectors import prefetch
from sizewise.embedding.methods.robe import Robe
from sizewise_core.machine.compiled import jit

LINE = 16  # floats
HASH = 12  # integer operations a block: lowbias32 and what makes a place of it

Array = npt.NDArray[Any]


@jit
def _read(pool: Array, places: Array, length: int) -> Any:
    total = np.float32(0)
    for n in range(len(places)):
        coming = places[min(n + AHEAD, len(places) - 1)]
        prefetch(pool, coming)
        prefetch(pool, coming + length - 1)
        total += pool[places[n]] + pool[places[n] + length - 1]
    return total


@jit
def _written(pool: Array, places: Array, length: int) -> None:
    for n in range(len(places)):
        coming = places[min(n + AHEAD, len(places) - 1)]
        prefetch(pool, coming)
        prefetch(pool, coming + length - 1)
        pool[places[n]] += np.float32(1e-9)
        pool[places[n] + length - 1] += np.float32(1e-9)


HEAD = """\
| kernel | cache lines of the pool | beside them | operations | lines alone + vectors alone, ms | kernel, ms | reached |
| --- | --- | --- | --- | --- | --- | --- |"""


def rooflines(embedding: Robe, batches: list[Tensor], rounds: int) -> list[str]:
    """Rows of a Markdown table under HEAD; over 100 % where a kernel does both at once.

    Args:
        embedding: fused; not trained on, but its pool is changed.
        batches: ids, int64 (rows, features), which take turns.
        rounds: of measuring.
    """
    blocks, pool = embedding.blocks, embedding.pool().detach()
    assert blocks is not None
    assert isinstance(embedding.hash, FastHash)
    starts = [
        (embedding.hash(ids, embedding.slots)[0] * embedding.align).flatten().numpy() for ids in batches
    ]
    lines = float(
        np.mean([((start % LINE + embedding.block_len + LINE - 1) // LINE).sum() for start in starts])
    )
    gradient = torch.randn(*batches[0].shape, embedding.dim)
    vectors, numbers, length = torch.empty_like(gradient), pool.numpy(), embedding.block_len
    ids, places = cycle(batches), cycle(starts)
    ways: dict[str, Callable[[], object]] = {
        "lookup": lambda: blocks.lookup(pool, next(ids)),
        "lines read": lambda: _read(numbers, next(places), length),
        "vectors written": lambda: vectors.zero_(),
        "scatter (SGD)": lambda: blocks.scatter(pool, next(ids), gradient, -1e-3),
        "lines written": lambda: _written(numbers, next(places), length),
        "gradient read": lambda: gradient.sum(),
    }
    times = {name: wall for name, (wall, _) in take_turns(ways, rounds, 5).items()}
    operations = HASH * len(starts[0])
    told = []
    for kernel, random, streamed, each in (
        ("lookup", "lines read", "vectors written", 1),
        ("scatter (SGD)", "lines written", "gradient read", 2),
    ):
        limit = times[random] + times[streamed]
        told.append(
            f"| dim {embedding.dim}, {kernel} | {lines:,.0f} lines | {gradient.nbytes / 1e6:.1f} MB | "
            f"{(operations + each * gradient.numel()) / 1e6:.1f} M | {times[random]:.2f} + {times[streamed]:.2f} | "
            f"{times[kernel]:.2f} | {limit / times[kernel]:.0%} |"
        )
    return told

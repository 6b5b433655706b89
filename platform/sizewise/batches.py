"""Shards -> batches, in an order that (seed, position) fully determines.

A split is one long row sequence cut into memory-mapped Arrow shards. Every epoch has an order of its own: the
shards are shuffled, blocks of 65,536 rows within each shard, and the rows within each block. Batch `k` of an epoch
is rows `k*batch_size` and on of that order, so a trial that was interrupted goes on at the exact batch without
reading what came before, and any number of data-parallel workers see the same global batches (worker `r` takes
every `world`-th row).

    split = Split.open(Path("data/planted"), "train")
    batch = split.batch(epoch=0, position=17, batch_size=512, seed=1)
    for batch in split.stream(start=17, stop=4000, batch_size=512, seed=1): ...     # over as many epochs as it takes
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sizewise.embedding.kernels.rows import gatherer, permutation
from sizewise_prep.errors import InputError
from sizewise_prep.manifest import Manifest
from sizewise_prep.rows import Rows
from sizewise_prep.shards import read_shard

BLOCK_ROWS = 65_536  # shuffled whole: 10 MB, so that reading them in any order stays within the cache


class Batch(NamedTuple):
    """`dense` (rows, 13) float32, transformed; `ids` (rows, 26) uint32, as in shards; `label` (rows,) float32."""

    dense: torch.Tensor
    ids: torch.Tensor
    label: torch.Tensor


@dataclass(frozen=True)
class Split:
    """One split (train, validation or test) of a folder of shards.

    Attributes:
        files, rows_per_file: the shards.
        dense_is_log: whether they hold dense values as models take them rather than as integers.
    """

    files: tuple[Path, ...]
    rows_per_file: tuple[int, ...]
    dense_is_log: bool = False
    _mapped: dict[int, Rows] = field(default_factory=dict, repr=False, compare=False)
    _orders: dict[tuple[int, int], tuple[npt.NDArray[np.int64], ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def open(cls, folder: Path, split: str) -> "Split":
        """The named split of `folder`.

        Raises:
            InputError: no such folder, split or shard.
        """
        manifest = Manifest.load(folder)
        shards = manifest.splits[split].shards
        files = tuple(folder / shard.file for shard in shards)
        for file in files:
            if not file.exists():
                raise InputError(f"{file}: this shard is missing: run `sizewise prep` again")
        return cls(files, tuple(shard.rows for shard in shards), manifest.settings.dense_is_log)

    @property
    def rows(self) -> int:
        """Rows in the split."""
        return sum(self.rows_per_file)

    def iterations(self, batch_size: int) -> int:
        """Batches in one epoch; the last one may be short."""
        return -(-self.rows // batch_size)

    def batch(
        self,
        epoch: int,
        position: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        pinned: bool = False,
    ) -> Batch:
        """Batch `position` (0-based) of `epoch`, shuffled; `batch_size` rows over all `world` workers.

        `pinned`: in page-locked memory, from which a GPU copies while it computes.
        """
        low, high = position * batch_size, min((position + 1) * batch_size, self.rows)
        if (epoch, seed) not in self._orders:
            self._orders.clear()
            self._orders[epoch, seed] = self._order(epoch, seed)
        starts, shards, blocks = self._orders[epoch, seed]
        parts = []
        for place in range(int(np.searchsorted(starts, low, side="right")) - 1, len(shards)):
            start, index, block = (int(column[place]) for column in (starts, shards, blocks))
            if start >= high:
                break
            first = block * BLOCK_ROWS
            size = min(BLOCK_ROWS, self.rows_per_file[index] - first)
            begin, end = max(low - start, 0), min(high - start, size)
            # Of the global batch's rows this worker takes numbers rank, rank + world and on.
            mine = begin + (rank - (start + begin - low)) % world
            within = _permutation(seed, epoch, index, block, size)[mine:end:world]
            parts.append((self._shard(index), first, within))
        return _gather(parts, self.dense_is_log, pinned)

    def stream(
        self,
        start: int,
        stop: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        *,
        ahead: bool = False,
    ) -> Iterator[Batch]:
        """Batches number `start` to `stop` of a training, which goes through one epoch after another.

        `ahead`: the next one is made, in page-locked memory where there is a GPU, while the caller works with this one.
        It does not help on a CPU, whose cores have the model to compute.
        """
        per_epoch, pinned = self.iterations(batch_size), ahead and torch.cuda.is_available()

        def batch(number: int) -> Batch:
            return self.batch(*divmod(number, per_epoch), batch_size, seed, rank, world, pinned)

        if not ahead:
            yield from map(batch, range(start, stop))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="sizewise-batches") as thread:
            coming = thread.submit(batch, start) if start < stop else None
            for number in range(start + 1, stop + 1):
                assert coming is not None
                ready = coming.result()
                coming = thread.submit(batch, number) if number < stop else None
                yield ready

    def _order(self, epoch: int, seed: int) -> tuple[npt.NDArray[np.int64], ...]:
        """Where each block of an epoch starts in its order of rows, its shard, and its number in the shard."""
        shards, blocks, sizes = [], [], []
        for index in _permutation(seed, epoch, -1, -1, len(self.files)):
            rows = self.rows_per_file[index]
            order = _permutation(seed, epoch, int(index), -1, -(-rows // BLOCK_ROWS))
            shards.append(np.full(len(order), index))
            blocks.append(order)
            sizes.append(np.minimum(BLOCK_ROWS, rows - order * BLOCK_ROWS))
        starts = np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))
        return starts[:-1], np.concatenate(shards), np.concatenate(blocks)

    def in_order(self, batch_size: int, rank: int = 0, world: int = 1) -> "InOrder":
        """All rows in time order, for scoring; worker `rank` of `world` gets every `world`-th row of a batch."""
        return InOrder(self, batch_size, rank, world)

    def _shard(self, index: int) -> Rows:
        if index not in self._mapped:
            self._mapped[index] = read_shard(self.files[index])
        return self._mapped[index]


@dataclass(frozen=True)
class InOrder:
    """An iterable of batches in time order; a batch never crosses shards."""

    split: Split
    batch_size: int
    rank: int
    world: int

    def __iter__(self) -> Iterator[Batch]:
        for index, size in enumerate(self.split.rows_per_file):
            shard = self.split._shard(index)
            for low in range(0, size, self.batch_size):
                rows = np.arange(self.rank, min(self.batch_size, size - low), self.world)
                yield _gather([(shard, low, rows)], self.split.dense_is_log)


def _gather(
    parts: list[tuple[Rows, int, npt.NDArray[np.int64]]], dense_is_log: bool, pinned: bool = False
) -> Batch:
    """The given rows of some shards, one after another: one pass from the mapped files to the batch."""
    count, columns = (
        sum(len(rows) for _, _, rows in parts),
        (parts[0][0].dense.shape[1], parts[0][0].ids.shape[1]),
    )
    dense = torch.empty(count, columns[0], pin_memory=pinned)
    ids = torch.empty(count, columns[1], dtype=torch.uint32, pin_memory=pinned)
    label = torch.empty(count, pin_memory=pinned)
    gather, (to_dense, to_ids, to_label) = gatherer(*columns), (dense.numpy(), ids.numpy(), label.numpy())
    at = 0
    for shard, first, rows in parts:
        gather(shard.labels, shard.dense, shard.ids, first, rows, to_label[at:], to_dense[at:], to_ids[at:])
        at += len(rows)
    if not dense_is_log:
        transform_dense(to_dense, out=to_dense)
    return Batch(dense, ids, label)


def transform_dense(
    dense: npt.NDArray[np.float32], out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """log(x + 1) of max(x, 0), missing as 0: what the reference DLRM does to Criteo's integers."""
    values = np.fmax(dense, np.float32(0), out=out)  # fmax takes the number where the other is none
    return np.log1p(values, out=values)


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, shard: int, block: int, size: int) -> npt.NDArray[np.int64]:
    """A permutation of range(size) that depends on nothing but its arguments; -1 orders shards, or blocks."""
    return permutation(np.random.Philox([seed, epoch, shard + 1, block + 1]), size)

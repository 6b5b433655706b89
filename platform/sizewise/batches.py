"""Shards -> batches, in an order that (seed, position) fully determines.

A split is one long row sequence cut into memory-mapped Arrow shards. Every epoch has an order of its own:
the shards are shuffled, and the rows within each shard. Batch `k` of an epoch is rows `k*batch_size` and on of
that order, so a trial that was interrupted goes on at the exact batch without reading what came before, and
any number of data-parallel workers see the same global batches (worker `r` takes every `world`-th row).

    split = Split.open(Path("data/planted"), "train")
    batch = split.batch(epoch=0, position=17, batch_size=512, seed=1)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sizewise_prep.errors import InputError
from sizewise_prep.manifest import Manifest
from sizewise_prep.rows import Rows
from sizewise_prep.shards import read_shard


class Batch(NamedTuple):
    """`dense` (rows, 13) float32, transformed; `ids` (rows, 26) int64 in [0, 2^32); `label` (rows,) float32."""

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
        self, epoch: int, position: int, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> Batch:
        """Batch `position` (0-based) of `epoch`, shuffled; `batch_size` rows over all `world` workers."""
        order = _permutation(seed, epoch, -1, len(self.files))
        starts = np.concatenate([[0], np.cumsum(np.asarray(self.rows_per_file)[order])])
        low, high = position * batch_size, min((position + 1) * batch_size, self.rows)
        parts = []
        for place in range(int(np.searchsorted(starts, low, side="right")) - 1, len(order)):
            if starts[place] >= high:
                break
            index = int(order[place])
            within = _permutation(seed, epoch, index, self.rows_per_file[index])
            parts.append((index, within[max(low - starts[place], 0) : max(high - starts[place], 0)]))
        taken = [(self._shard(index), rows) for index, rows in parts]
        return _batch(
            Rows(
                np.concatenate([shard.labels[rows] for shard, rows in taken]),
                np.concatenate([shard.dense[rows] for shard, rows in taken]),
                np.concatenate([shard.ids[rows] for shard, rows in taken]),
            ),
            self.dense_is_log,
            rank,
            world,
        )

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
                rows = shard[low : low + self.batch_size]
                yield _batch(rows, self.split.dense_is_log, self.rank, self.world)


def _batch(rows: Rows, dense_is_log: bool, rank: int, world: int) -> Batch:
    mine = slice(rank, None, world)
    dense = rows.dense[mine]
    return Batch(
        torch.from_numpy(np.nan_to_num(dense, nan=0.0) if dense_is_log else transform_dense(dense)),
        torch.from_numpy(rows.ids[mine].astype(np.int64)),
        torch.from_numpy(rows.labels[mine].astype(np.float32)),
    )


def transform_dense(dense: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """log(x + 1) of max(x, 0), missing as 0: what the reference DLRM does to Criteo's integers."""
    return np.log1p(np.maximum(np.nan_to_num(dense, nan=0.0), 0.0)).astype(np.float32)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, shard: int, size: int) -> npt.NDArray[np.int64]:
    """A permutation of range(size) that depends on nothing but its arguments; shard -1 orders the shards."""
    return np.random.Generator(np.random.Philox([seed, epoch, shard + 1])).permutation(size)

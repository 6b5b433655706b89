"""Shards -> batches, in an order that (seed, position) fully determines.

A split is one long row sequence cut into memory-mapped Arrow shards. Every epoch has an order of its own: the
shards are shuffled, blocks of 65,536 rows within each shard, and the rows of each block are drawn at random into the
batches that it fills. So an interrupted trial continues at the exact batch without reading more than the block
that it is in, and any number of data-parallel workers see the same global batches (worker `r` takes every `world`-th
row).

What rows a batch has is random; within it those of a block lie as in the file, because a block is read in sequence,
much faster than rows are read in any other order. A step sums over its batch's rows.

A split `with_teacher` has a number more in each row: the log-odds of a teacher (see `teacher`).

    split = Split.open(Path("data/planted"), "train")
    batch = split.batch(epoch=0, position=17, batch_size=512, seed=1)
    for batch in split.stream(start=17, stop=4000, batch_size=512, seed=1): ...     # over as many epochs as it takes
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sizewise.embedding.kernels.rows import Array, draw_groups, group_numbers, make_grouper, select_share
from sizewise.training.input.bag_batches import BlockBags, group_bags
from sizewise.training.input.batch import Batch, joined
from sizewise_core.errors import InputError
from sizewise_core.files.sealed import DamagedError
from sizewise_prep.raw.parsing.rows import Rows, log_dense
from sizewise_prep.shards.files import Shape, read_shard
from sizewise_prep.shards.manifest import NAME, Manifest

__all__ = ["Batch", "InOrder", "Split"]

BLOCK_ROWS = 65_536  # shuffled together: 10 MB of memory
SCORED_AHEAD = 4  # batches
Start = TypeVar("Start")


def _stamp(folder: Path) -> tuple[int, ...] | None:
    """What changes when the data in a folder is replaced: the manifest is written last. None where there is none."""
    try:
        found = (folder / NAME).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


@dataclass(frozen=True)
class Split:
    """One split (train, validation or test) of a folder of shards.

    Attributes:
        files, rows_per_file: the shards.
        dense, tokens: how many columns of each kind they have.
        lists: the names of their columns of lists.
        scored: whether they hold another model's scores.
        dense_is_log: whether they hold dense values as models take them rather than as integers.
        mean_weight: of the training rows, which batches' weights are divided by; None where rows have no weights.
        teacher: gives a teacher's log-odds of all rows of a shard, by its number, in the rows' order; None for none.
    """

    files: tuple[Path, ...]
    rows_per_file: tuple[int, ...]
    dense: int
    tokens: int
    dense_is_log: bool = False
    mean_weight: float | None = None
    _stamp: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    teacher: Callable[[int], npt.NDArray[np.float32]] | None = field(default=None, compare=False)
    lists: tuple[str, ...] = ()
    scored: bool = False
    _mapped: dict[int, Rows] = field(default_factory=dict, repr=False, compare=False)
    _orders: dict[tuple[int, int], tuple[list[int], ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _shuffled: dict[tuple[int, ...], "_Block"] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path, split: str) -> "Split":
        """The named split of `folder`.

        Raises:
            InputError: no such folder, split or shard. What a shard holds is checked when it is first read.
        """
        stamp = _stamp(folder)
        manifest = Manifest.load(folder)
        shards = manifest.splits[split].shards
        files = tuple(folder / shard.file for shard in shards)
        for file, shard in zip(files, shards, strict=True):
            if not file.exists():
                raise InputError(f"{file}: this shard is missing: run `sizewise prep` again")
            if (size := file.stat().st_size) != shard.bytes:
                raise InputError(
                    f"{file}: has {size:,} bytes instead of the manifest's {shard.bytes:,}: run `sizewise prep` again"
                )
        return cls(
            files,
            tuple(shard.rows for shard in shards),
            len(manifest.dense_missing),
            len(manifest.cardinalities) - len(manifest.lists),
            manifest.settings.dense_is_log,
            None if manifest.weights is None else manifest.weights["train"],
            stamp,
            lists=tuple(column.column for column in manifest.lists),
            scored=manifest.layout.score is not None,
        )

    def with_teacher(self, scores: Callable[[int], npt.NDArray[np.float32]]) -> "Split":
        """The split whose batches carry a teacher's log-odds, by shard; the order of rows is the same."""
        return replace(self, teacher=scores, _shuffled={})

    def shard(self, index: int) -> "Split":
        """The part of the split that is in one of its shards."""
        files, rows = (self.files[index],), (self.rows_per_file[index],)
        return replace(
            self, files=files, rows_per_file=rows, teacher=None, _mapped={}, _orders={}, _shuffled={}
        )

    def stored(self, index: int = 0) -> Rows:
        """A shard's rows as they are stored, mapped into memory."""
        return self._shard(index)

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
        """One worker's share of a shuffled batch.

        A view of its shuffled block where it lies within one: then nothing is copied.

        Args:
            epoch, seed: decide the order of the rows.
            position: of the batch in its epoch, from 0.
            batch_size: rows over all workers.
            rank, world: the worker's number, from 0, and how many there are.
            pinned: in page-locked memory, from which a GPU copies while it computes.
        """
        low, high = position * batch_size, min((position + 1) * batch_size, self.rows)
        if (epoch, seed) not in self._orders:
            self._orders.clear()
            self._orders[epoch, seed] = self._order(epoch, seed)
        starts = self._orders[epoch, seed][0]
        parts = []
        for index in range(bisect_right(starts, low) - 1, bisect_left(starts, high)):
            key = (epoch, seed, index, batch_size, rank, world, pinned)
            block = self._shuffled.get(key)
            if block is None:
                self._shuffled.clear()  # first, so that its memory is free for the next
                block = self._shuffled[key] = self._shuffle(*key)
            parts.append(block.batch(position))
        return parts[0] if len(parts) == 1 else joined(parts, pinned)

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

        Args:
            start, stop: batches from 0, without `stop` itself.
            batch_size, seed, rank, world: as for `batch`.
            ahead: the next ones are made, in page-locked memory where there is a GPU, while the caller works with
                this one: those of half a block, so that it has some while the next block is shuffled. It does not
                help on a CPU, whose cores have the model to compute.
        """
        per_epoch, pinned = self.iterations(batch_size), ahead and torch.cuda.is_available()

        def batch(number: int) -> Batch:
            return self.batch(*divmod(number, per_epoch), batch_size, seed, rank, world, pinned)

        numbers = range(start, stop)
        return _ahead(batch, numbers, BLOCK_ROWS // 2 // batch_size) if ahead else map(batch, numbers)

    def _order(self, epoch: int, seed: int) -> tuple[list[int], ...]:
        """Where each block of an epoch starts in its order, its shard, its number in the shard, and its random key."""
        starts: list[int] = []
        shards: list[int] = []
        blocks: list[int] = []
        start = 0
        for index in np.argsort(_random(len(self.files), seed, epoch, 1)).tolist():
            rows = self.rows_per_file[index]
            for block in np.argsort(_random(-(-rows // BLOCK_ROWS), seed, epoch, 2, index)).tolist():
                starts.append(start)
                shards.append(index)
                blocks.append(block)
                start += min(BLOCK_ROWS, rows - block * BLOCK_ROWS)
        return starts, shards, blocks, _random(len(starts), seed, epoch, 3).tolist()

    def _shuffle(
        self, epoch: int, seed: int, position: int, batch_size: int, rank: int, world: int, pinned: bool
    ) -> "_Block":
        """The block at a position of an epoch's order, its rows grouped by batch."""
        start, index, block, key = (column[position] for column in self._orders[epoch, seed])
        first = block * BLOCK_ROWS
        size = min(BLOCK_ROWS, self.rows_per_file[index] - first)
        before = start % batch_size
        groups = draw_groups(np.uint64(key), size, before, batch_size)
        rows, groups, starts = select_share(groups, before, batch_size, rank, world)
        part = slice(first, first + size)
        grouped: Batch = _grouped(self._shard(index), part, rows, groups, starts, self.dense_is_log, pinned)
        weights = self._shard(index).weights
        if weights is not None:
            grouped = replace(grouped, weight=self.weight_of(weights[part], rows, groups, starts, pinned))
        if self.teacher is not None:
            scores = torch.empty(len(grouped.label), pin_memory=pinned)
            group_numbers(self.teacher(index)[part], rows, groups, starts, scores.numpy())
            grouped = replace(grouped, teacher=scores)
        bags = _grouped_bags(self._shard(index), part, rows, groups, starts, pinned)
        return _Block(grouped, start // batch_size, starts.tolist(), bags)

    def weight_of(
        self, weights: Array, rows: Array, groups: Array, starts: Array, pinned: bool
    ) -> torch.Tensor:
        """How much rows count, group by group, so that the mean of the training rows is 1.

        Args:
            weights: (n,), as shards have them.
            rows, groups, starts, pinned: as for `_grouped`.
        """
        found = torch.empty(int(starts[-1]), pin_memory=pinned)
        group_numbers(weights, rows, groups, starts, found.numpy())
        return found.div_(self.mean_weight or 1)

    def in_order(self, batch_size: int, rank: int = 0, world: int = 1, *, ahead: bool = False) -> "InOrder":
        """All rows in time order, for scoring.

        Args:
            batch_size: rows over all workers.
            rank, world: worker `rank`, from 0, of `world` gets every `world`-th row of a batch.
            ahead: as for `stream`, but `SCORED_AHEAD` batches.
        """
        return InOrder(self, batch_size, rank, world, ahead)

    def _shard(self, index: int) -> Rows:
        if index not in self._mapped:
            weighted = self.mean_weight is not None
            shape = Shape(
                self.rows_per_file[index], self.dense, self.tokens, weighted, self.scored, self.lists
            )
            rows, folder = read_shard(self.files[index], shape), self.files[index].parent
            if self._stamp is not None and _stamp(folder) != self._stamp:
                raise DamagedError(f"{folder}: the data was replaced while it was read")
            self._mapped[index] = rows
        return self._mapped[index]


@dataclass(frozen=True)
class InOrder:
    """An iterable of batches in time order; a batch never crosses shards."""

    split: Split
    batch_size: int
    rank: int
    world: int

    ahead: bool = False

    def __iter__(self) -> Iterator[Batch]:
        starts = [
            (index, low)
            for index, size in enumerate(self.split.rows_per_file)
            for low in range(0, size, self.batch_size)
        ]
        return _ahead(self._batch, starts, SCORED_AHEAD) if self.ahead else map(self._batch, starts)

    def _batch(self, start: tuple[int, int]) -> Batch:
        """The batch that starts at a row of a shard."""
        index, low = start
        part = slice(low, min(low + self.batch_size, self.split.rows_per_file[index]))
        rows = np.arange(self.rank, part.stop - low, self.world, dtype=np.uint32)
        one_group, starts = np.zeros_like(rows), np.array([0, len(rows)])
        pinned = self.ahead and torch.cuda.is_available()
        shard, is_log = self.split._shard(index), self.split.dense_is_log
        batch = _grouped(shard, part, rows, one_group, starts, is_log, pinned)
        if shard.weights is not None:
            weight = self.split.weight_of(shard.weights[part], rows, one_group, starts, pinned)
            batch = replace(batch, weight=weight)
        bags = _grouped_bags(shard, part, rows, one_group, starts, pinned)
        return replace(batch, bags=bags.of(0)) if bags else batch


def _ahead(batch: Callable[[Start], Batch], starts: Iterable[Start], depth: int) -> Iterator[Batch]:
    """Batches, of which the next `depth` (at least one) are made by a thread while the caller works with one."""
    with ThreadPoolExecutor(1, thread_name_prefix="sizewise-batches") as thread:
        left = iter(starts)
        coming = deque(thread.submit(batch, start) for start in islice(left, max(1, depth)))
        while coming:
            ready = coming.popleft().result()
            coming.extend(thread.submit(batch, start) for start in islice(left, 1))
            yield ready


class _Block(NamedTuple):
    """A block's rows, batch by batch from batch number `first` on; `starts` says where each one's lie, and all end.

    `bags` has those of each batch, where there are any.
    """

    rows: Batch
    first: int
    starts: list[int]
    bags: BlockBags | None

    def batch(self, position: int) -> Batch:
        """What batch `position` has of them."""
        number = position - self.first
        low, high = self.starts[number : number + 2]
        batch = self.rows.changed(lambda column: column[low:high])
        return replace(batch, bags=self.bags.of(number)) if self.bags else batch


def _grouped(
    shard: Rows,
    part: slice,
    rows: Array,
    groups: Array,
    starts: Array,
    dense_is_log: bool,
    pinned: bool = False,
) -> Batch:
    """Rows of a part of a mapped shard, copied group by group; `starts`: of the groups, and the end of the last."""
    count, (dense, ids) = int(starts[-1]), (shard.dense.shape[1], shard.ids.shape[1])
    batch = Batch(
        torch.empty(count, dense, pin_memory=pinned),
        torch.empty(count, ids, dtype=torch.uint32, pin_memory=pinned),
        torch.empty(count, pin_memory=pinned),
    )
    to_dense, to_ids, to_label = (column.view(-1).numpy() for column in batch.tensors())
    make_grouper(dense, ids)(
        shard.labels[part],
        shard.dense[part],
        shard.ids[part],
        rows,
        groups,
        starts,
        to_label,
        to_dense,
        to_ids,
    )
    if not dense_is_log:
        log_dense(to_dense, fill=True, out=to_dense)
    return batch


def _grouped_bags(
    shard: Rows, part: slice, rows: Array, groups: Array, starts: Array, pinned: bool
) -> BlockBags | None:
    """The bags of the same rows, group by group."""
    lists = [column.part(part.start, part.stop) for column in shard.lists]
    return group_bags(lists, rows, groups, starts, pinned) if lists else None


def _random(count: int, *origin: int) -> npt.NDArray[np.uint64]:
    """Random numbers that depend on `origin` alone, in all versions of NumPy, which promises that of `SeedSequence`."""
    return np.random.SeedSequence(origin).generate_state(count, np.uint64).astype(np.uint64, copy=False)

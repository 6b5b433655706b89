"""The second step of a preparation: parts to shards of exactly so many rows.

A shard's rows are gathered from the parts that hold them, treated and written; its figures and the run of its distinct
tokens (see `distinct`) are made at the same time. With contiguous ids there are two passes: the first writes the runs,
and when all of them are merged, the second writes the shards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sizewise_core.files.atomic import write_atomic
from sizewise_core.machine import allocator
from sizewise_core.machine.compiled import compiled
from sizewise_core.names import PlainName
from sizewise_prep.pipeline.jobs.row_files import Part, Spilled, gather, gather_lists
from sizewise_prep.pipeline.jobs.sorting import Times
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.parsing.dense import transformed
from sizewise_prep.raw.parsing.features import all_tokens, dense_of, scores_of, weights_of
from sizewise_prep.raw.parsing.rows import ListColumn, Rows
from sizewise_prep.shards.files import list_names, write_shard
from sizewise_prep.shards.manifest import Settings, Shard, Tokens, problem_of
from sizewise_prep.shards.values.distinct import Run
from sizewise_prep.shards.values.vocabulary import renumber

MLPERF_IDS = 40_000_000
TRAINING = "train-"  # begins the names of shards whose values are counted
_BASE_MEMORY = 300 * 10**6  # interpreter and libraries
_COPIES = 2.5  # of a shard's rows in memory: as read, as treated, and half of them while columns are sorted


def memory(shard_rows: int, row_bytes: int, list_bytes: int = 0) -> int:
    """Bytes that a worker needs to make a shard, its interpreter and libraries included.

    Args:
        shard_rows: of the shard.
        row_bytes: of each row, without lists.
        list_bytes: of all rows' lists.
    """
    return int(_BASE_MEMORY + _COPIES * (shard_rows * row_bytes + list_bytes))


@dataclass(frozen=True)
class Cut:
    """Rows `start` to `stop` of a part's rows; `order`: the file of their times, by which a shard's rows are sorted."""

    part: Spilled
    start: int
    stop: int
    order: Times | None = None


@dataclass(frozen=True)
class ShardJob:
    """A shard to be made.

    Attributes:
        folder: the working folder.
        name: of the shard, without a suffix.
        cuts: the parts' rows that it is made of.
        tokens: what is done to tokens.
        layout: of the log, by which token columns are made of others; fitted.
        shuffle: the seed of its rows' order; None: in time order.
        counting: with contiguous ids, whether to write the run of its tokens rather than the shard.
        ids_begin: with contiguous ids, per column, where the ids of the run's words begin (see `vocabulary.renumber`).
    """

    folder: Path
    name: str
    cuts: tuple[Cut, ...]
    tokens: Tokens
    layout: Layout
    shuffle: tuple[int, ...] | None
    counting: bool = False
    ids_begin: tuple[int, ...] = ()

    @property
    def list_bytes(self) -> int:
        """Bytes of its lists, if those of a part are equally long."""
        rows = [(cut.stop - cut.start, cut.part) for cut in self.cuts]
        return sum(count * (8 * len(part.lists) + 4 * sum(part.lists) // part.rows) for count, part in rows)

    @property
    def record_path(self) -> Path:
        """The path of the record that says it is done."""
        return self.folder / "work" / ("counted" if self.counting else "made") / f"{self.name}.json"


def sorted_jobs(
    folder: Path, settings: Settings, rows: Iterable[Sequence[Cut]], sizes: dict[str, int]
) -> list[ShardJob]:
    """As `shard_jobs`, of rows that are sorted by their times.

    Args:
        folder: the working folder.
        settings: of the preparation.
        rows: of each shard in turn.
        sizes: rows of each split.
    """
    jobs, of_shard, layout = [], iter(rows), settings.layout or CRITEO
    for split, (name, size) in enumerate(sizes.items()):
        for number in range(-(-size // settings.shard_rows)):
            shuffle = None if settings.shuffle is None else (settings.shuffle, split, number)
            cuts = tuple(next(of_shard))
            jobs.append(ShardJob(folder, f"{name}-{number:05d}", cuts, settings.tokens, layout, shuffle))
    return jobs


def shard_jobs(
    folder: Path, settings: Settings, rows: Iterable[Cut], sizes: dict[str, int]
) -> list[ShardJob]:
    """The shards of all splits. A split begins with a new shard; all but its last have `shard_rows` rows.

    Args:
        folder: the working folder.
        settings: of the preparation.
        rows: of the log, one split behind the other.
        sizes: rows of each split, in time order.
    """
    jobs, log, layout = [], iter(rows), settings.layout or CRITEO
    part, at = None, 0
    for split, (name, size) in enumerate(sizes.items()):
        for number, first in enumerate(range(0, size, settings.shard_rows)):
            wanted, cuts = min(settings.shard_rows, size - first), []
            while wanted:
                if part is None or at == part.stop:
                    part = next(log)
                    at = part.start
                cuts.append(Cut(part.part, at, min(part.stop, at + wanted)))
                wanted -= cuts[-1].stop - at
                at = cuts[-1].stop
            shuffle = None if settings.shuffle is None else (settings.shuffle, split, number)
            jobs.append(
                ShardJob(folder, f"{name}-{number:05d}", tuple(cuts), settings.tokens, layout, shuffle)
            )
    return jobs


class Made(BaseModel):
    """The result of a job: files and figures.

    Attributes:
        name: of the shard.
        shard: the file (None after counting).
        run: the file with its distinct tokens (None when they were counted before), and where the columns
            begin in it.
        clicks: rows with label 1.
        weight: of all rows together, where they have any.
        dense_missing, token_missing: rows without a value, per column; of lists, with none.
        list_values, longest: of each column of lists, how many values they have, and the longest one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    shard: Shard | None
    run: Shard | None
    run_starts: list[int]
    clicks: int
    weight: float | None = None
    dense_missing: list[int]
    token_missing: list[int]
    list_values: list[int] = []
    longest: list[int] = []

    def run_in(self, folder: Path) -> Run:
        """The run, with its path in the working folder."""
        assert self.run is not None
        return Run(folder / self.run.file, self.run_starts, self.name.startswith(TRAINING))


def finished(job: ShardJob) -> Made | None:
    """The result of a job that is done and whose files are intact; else None."""
    if not job.record_path.exists():
        return None
    made = Made.model_validate_json(job.record_path.read_bytes())
    files = [file for file in (made.shard, made.run) if file]
    return None if any(problem_of(job.folder, file) for file in files) else made


def check(job: ShardJob) -> Iterator[Made | None]:
    """As `finished`, in the form that workers call."""
    yield finished(job)


def make(job: ShardJob) -> Iterator[Made]:
    """Make a shard, or count its tokens.

    A shard's rows take most of a worker's memory, so other large arrays exist only before all rows are gathered or
    after they are released.
    """
    numbering = job.tokens == "contiguous" and not job.counting
    order = _order(job)
    numbers = _gathered(job, "dense", order) if job.layout.bucketed else None
    ids = all_tokens(_gathered(job, "ids", order), numbers, job.layout)
    del numbers
    lists = tuple(_gathered_lists(job, column, order) for column in range(len(job.layout.token_lists)))
    if numbering:
        counted = Made.model_validate_json(_counting(job).record_path.read_bytes())
        renumber(
            job.folder, counted.run_in(job.folder), job.ids_begin, [*ids.T, *(one.values for one in lists)]
        )
    numbers = _gathered(job, "dense", order)
    weights, scores = weights_of(numbers, job.layout), scores_of(numbers, job.layout)
    dense = dense_of(numbers, job.layout)
    rows = Rows(_gathered(job, "labels", order), dense, ids, lists, weights, scores)
    del numbers, dense
    if numbering:
        dense_missing, token_missing = counted.dense_missing, counted.token_missing
    else:
        dense_missing, token_missing = (found.tolist() for found in missing(rows.dense, ids))
        token_missing += [int((column.lengths == 0).sum()) for column in lists]
    longest = [int(column.lengths.max(initial=0)) for column in lists]
    if job.tokens == "mlperf":
        ids = ids % np.uint32(MLPERF_IDS)
        lists = tuple(ListColumn(column.offsets, column.values % np.uint32(MLPERF_IDS)) for column in lists)
        rows = replace(rows, ids=ids, lists=lists)
    if job.tokens == "mlperf" or job.layout.transforms:
        rows = replace(rows, dense=transformed(rows.dense, job.layout))
    shard, run, starts = None, None, [0]
    if not job.counting:
        file = f"{job.name}.arrow"
        size, sha256 = write_shard(job.folder / file, rows, list_names(job.layout.token_lists))
        shard = Shard(file=file, rows=len(rows), bytes=size, sha256=sha256)
    clicks, labels = int(rows.labels.sum()), rows.labels if job.name.startswith(TRAINING) else None
    del rows
    if not numbering:
        run_path = job.folder / "work" / "runs" / f"{job.name}.u32"
        written, size, sha256 = Run.written(run_path, ids, labels, lists)
        starts = written.starts
        run = Shard(file=str(run_path.relative_to(job.folder)), rows=starts[-1], bytes=size, sha256=sha256)
    made = Made(
        name=job.name,
        shard=shard,
        run=run,
        run_starts=starts,
        clicks=clicks,
        weight=None if weights is None else math.fsum(weights),
        dense_missing=dense_missing,
        token_missing=token_missing,
        list_values=[len(column.values) for column in lists],
        longest=longest,
    )
    write_atomic(job.record_path, made.model_dump_json().encode())
    yield made


def _order(job: ShardJob) -> npt.NDArray[np.int64] | None:
    """The order of a shard's rows: for each its position among those of the cuts; None where it is the same."""
    by_time = any(cut.order for cut in job.cuts)
    if job.counting or not (by_time or job.shuffle is not None):
        return None
    allocator.give_back()  # copies of rows leave gaps of many sizes: those of earlier shards would add to this one's
    times = [cut.order.between(job.folder, cut.start, cut.stop)[:] for cut in job.cuts if cut.order]
    in_time = np.argsort(np.concatenate(times), kind="stable") if times else None
    if job.shuffle is None:
        return in_time
    rows = sum(cut.stop - cut.start for cut in job.cuts)
    order = np.random.Generator(np.random.Philox(list(job.shuffle))).permutation(rows)
    return order if in_time is None else in_time[order]


def _gathered(job: ShardJob, part: Part, order: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
    """One array of a shard's rows, in that order."""
    array = gather(job.folder, [(cut.part, cut.start, cut.stop) for cut in job.cuts], part)
    return array if order is None else array[order]


def _gathered_lists(job: ShardJob, column: int, order: npt.NDArray[np.int64] | None) -> ListColumn:
    """One column of lists of a shard's rows, in that order."""
    lists = gather_lists(job.folder, [(cut.part, cut.start, cut.stop) for cut in job.cuts], column)
    return lists if order is None else lists.taken(order)


@compiled
def missing(dense: npt.NDArray[np.float32], ids: npt.NDArray[np.uint32]) -> Any:
    """How many rows of each column are without a value."""
    found = np.zeros(dense.shape[1], np.int64), np.zeros(ids.shape[1], np.int64)
    for row in range(len(ids)):
        for column in range(dense.shape[1]):
            found[0][column] += np.isnan(dense[row, column])
        for column in range(ids.shape[1]):
            found[1][column] += ids[row, column] == 0
    return found


def _counting(job: ShardJob) -> ShardJob:
    return replace(job, counting=True)

"""The first step of a preparation: raw logs to parts, each the good rows of one piece of a raw file.

A piece is a range of a plain file, or as much of another one as comes to about such a range. Its rows go
to `work/parts/FILE-PIECE.rows` (see `row_files`), its bad lines to `.bad`, and then a record of both to `.json`: a
piece that has a record is done. How a file is cut into pieces does not depend on the workers, so any number of them
leave the same parts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import HashingWriter, hashed_file, write_atomic
from sizewise_prep.pipeline.jobs import row_files
from sizewise_prep.pipeline.jobs.row_files import Spilled
from sizewise_prep.pipeline.jobs.sorting import Times
from sizewise_prep.raw.blocks import Block, RowReader, Stretch
from sizewise_prep.raw.files.reader import Reader
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import Layout
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.raw.row_readers import open_rows
from sizewise_prep.raw.values import time_order
from sizewise_prep.raw.values.row_splits import RowSplit
from sizewise_prep.shards.manifest import Shard, problem_of

if TYPE_CHECKING:
    from sizewise_prep.raw.parsing.parser import BadRow

PIECE_BYTES = 64 << 20
FOLDER = "work/parts"
_QUARANTINE_BYTES = 1 << 20  # copied at a time
_FIRST_BYTES = 64 << 10  # of a log's first file that are searched for a time column
MEMORY = 600 * 10**6
"""Bytes that a worker needs to parse, its interpreter and libraries included."""


class Part(BaseModel):
    """The result of parsing one piece of a raw file.

    Attributes:
        file, piece: which raw file, and which piece of it, from 0.
        lines: good rows and bad ones; `header` lines come on top, and line breaks `within` rows.
        reasons: how many bad ones, by reason; the first of them: its line in the piece, from 1, and what is
            wrong.
        inexact: of each column of numbers, how many values float32 does not hold exactly.
        times: of the rows; None where no column has any.
        by_split: how many of the rows are in each split, one split behind the other; None where the rows' place in the
            log decides.
        raw_bytes, sha256: of the raw file's bytes. Of pieces that are read one after another, the digest of all their
            bytes is with the last one.
        last: whether it is the file's last piece.
        data, bad: the files written, None where there is nothing.
        order: the file of the rows' times, where they are to be sorted.
        cut: of each column of lists, how many values of too long ones are not among `data`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: int
    piece: int
    rows: int
    lines: int
    header: int
    within: int = 0
    reasons: dict[str, int]
    first_bad: tuple[int, str] | None
    inexact: list[int] = []
    times: time_order.Stretch | None = None
    by_split: list[int] | None = None
    raw_bytes: int
    sha256: str
    last: bool
    data: Spilled | None
    bad: Shard | None
    order: Times | None = None
    cut: list[int] = []

    @property
    def key(self) -> tuple[int, int]:
        """Its position in the log: which file, and which piece of it."""
        return self.file, self.piece

    @property
    def all_lines(self) -> int:
        """Lines of the raw file that it takes."""
        return self.lines + self.header + self.within

    def is_intact(self, folder: Path) -> bool:
        """Whether its files are unchanged since they were written."""
        data = self.data is None or row_files.is_intact(folder, self.data)
        return data and self.has_times(folder) and (self.bad is None or problem_of(folder, self.bad) is None)

    def has_times(self, folder: Path) -> bool:
        """Whether the times by which its rows are sorted are there, and unchanged, if there are any."""
        return self.order is None or self.order.is_intact(folder)


@dataclass(frozen=True)
class ParseJob:
    """A stretch of a raw file to be parsed.

    Attributes:
        folder: the working folder.
        file: which raw file of the log, from 0.
        stretch: of the file.
        done: pieces of it that need not be parsed again.
        piece_bytes, block_bytes: bytes of text in a piece of a compressed file, and parsed at a time.
        strict: whether the first bad row is an error.
        time: the column that holds the time, if any.
        split: the column that says in which split a row is, if one does.
        sort: whether to sort the rows by the time, which each then has.
        max_list: of longer lists only so many values are kept, the last ones.
    """

    folder: Path
    file: int
    raw: RawFile
    layout: Layout
    stretch: Stretch
    done: frozenset[int]
    piece_bytes: int
    block_bytes: int
    strict: bool
    time: str | None = None
    split: RowSplit | None = None
    sort: bool = False
    max_list: int | None = None


def record_path(folder: Path, file: int, piece: int) -> Path:
    """The path of the record of a piece.

    Args:
        folder: the working folder.
        file: which raw file of the log, from 0.
        piece: which piece of the file, from 0.
    """
    return folder / FOLDER / f"{file:05d}-{piece:06d}.json"


def recorded(folder: Path, known: Collection[tuple[int, int]] = ()) -> dict[tuple[int, int], Part]:
    """The parts that are done, except those in `known`."""
    names = [name for name in os.listdir(folder / FOLDER) if name.endswith(".json") and name[0] != "."]
    keys = {(int(file), int(piece)) for file, piece in (name[:-5].split("-") for name in names)}
    paths = (record_path(folder, *key) for key in keys.difference(known))
    return {part.key: part for part in (Part.model_validate_json(path.read_bytes()) for path in paths)}


def time_column(raw: RawFile, layout: Layout) -> str | None:
    """The column that holds the time, if the first lines of a log's first file have one (see `time_order`).

    Raises InputError when it cannot be read.
    """
    from sizewise_prep.raw.values.time_order import find_time

    if layout.time or raw.format != "text" or not layout.is_plain:
        return layout.time
    lines = next(iter(Reader(raw, block_bytes=_FIRST_BYTES)), b"").split(b"\n")[:-1]
    return find_time(layout, lines[1:] if layout.header else lines)


def parse(job: ParseJob) -> Iterator[Part]:
    """Write the parts of a job, and their records.

    Raises:
        InputError: the file is damaged, has vanished or changed, or has a bad row where none is allowed.
    """
    reader = open_rows(job.raw, job.layout, job.stretch, job.block_bytes, job.time, split=job.split)
    piece, before = job.stretch.piece, 0  # lines of this job before the piece
    blocks_in_piece = None if job.stretch.pieces == 1 else max(1, job.piece_bytes // job.block_bytes)
    collected = _Collected(job, reader, piece)
    try:
        for block in reader:
            if blocks_in_piece and collected.blocks == blocks_in_piece:
                if piece not in job.done:
                    yield collected.written(ended=False)
                before += collected.all_lines
                piece += 1
                collected = _Collected(job, reader, piece)
            collected.add(block, before)
        if piece not in job.done:
            yield collected.written(ended=True)
    except BaseException as error:
        collected.bad.discard(error)
        raise


class _BadRows:
    """The bad rows of a piece, written as they come: memory does not depend on how many there are."""

    def __init__(self, folder: Path, file: str) -> None:
        self._folder, self._file = folder, file
        self._open = ExitStack()
        self._writer: HashingWriter | None = None
        self.reasons = Counter[str]()

    def add(self, rows: list[BadRow]) -> None:
        """Write a few rows."""
        if self._writer is None:
            self._writer = self._open.enter_context(hashed_file(self._folder / self._file))
        self._writer.write(
            b"".join(b"%d\t%s\t%s\n" % (row.line, row.fault.reason.encode(), row.raw) for row in rows)
        )
        self.reasons.update(row.fault.reason for row in rows)

    def written(self) -> Shard | None:
        """The finished file; None without any rows."""
        if self._writer is None:
            return None
        self._open.close()
        rows = self.reasons.total()
        return Shard(file=self._file, rows=rows, bytes=self._writer.bytes, sha256=self._writer.sha256)

    def discard(self, error: BaseException) -> None:
        """Leave nothing behind."""
        self._open.__exit__(type(error), error, error.__traceback__)


class _Collected:
    """The rows of a piece so far."""

    def __init__(self, job: ParseJob, reader: RowReader, piece: int) -> None:
        self._job, self._reader, self._piece = job, reader, piece
        self._stem = f"{FOLDER}/{job.file:05d}-{piece:06d}"
        self._bytes_before = reader.bytes_read
        self._rows: list[Rows] = []
        self._first_bad: tuple[int, str] | None = None
        self._inexact = np.zeros(len(job.layout.numbers), np.int64)
        self._times: list[npt.NDArray[np.int64]] = []
        self._splits: list[npt.NDArray[np.uint8]] = []
        self._cut = np.zeros(len(job.layout.token_lists), np.int64)
        self.bad = _BadRows(job.folder, f"{self._stem}.bad")
        self.blocks = self._lines = self._header = self._within = 0

    @property
    def all_lines(self) -> int:
        """Lines of the file that the piece takes."""
        return self._lines + self._header + self._within

    def add(self, block: Block, before: int) -> None:
        """Parse a block.

        Args:
            block: complete lines.
            parser: of the log's layout.
            before: lines of the job that come before this piece.
        """
        if self._piece == 0 and not self.blocks:
            self._header = self._reader.header_lines
        self.blocks += 1
        if self._piece in self._job.done:
            self._lines += block.lines
            return
        rows_before = self._lines
        for found in block.parsed(first=1 + self.all_lines):
            if found.bad:
                self._set_aside(found.bad, before)
            self._lines += len(found.rows) + len(found.bad)
            self._inexact += found.inexact
            self._times.append(found.times)
            if found.splits is not None:
                self._splits.append(found.splits)
            if len(found.rows):
                rows = found.rows.shortened(self._job.max_list)
                for column, kept in enumerate(rows.lists):
                    self._cut[column] += len(found.rows.lists[column].used) - len(kept.used)
                self._rows.append(rows)
        self._within += block.lines - (self._lines - rows_before)

    def _set_aside(self, bad: list[BadRow], before: int) -> None:
        """Write bad rows to the quarantine; where none is allowed, the first is an error."""
        first, job, reader = bad[0], self._job, self._reader
        if job.strict:
            row = first._replace(line=first.line + before + reader.lines_before())
            raise InputError(f"{job.raw.path}, {reader.position(row.line)}: {reader.explained(row)}")
        if self._first_bad is None:
            begins = first.line == 1 and self._piece == 0
            self._first_bad = first.line, reader.explained(first._replace(line=1 if begins else 2))
        self.bad.add(bad)

    def _sorted(self) -> npt.NDArray[np.int64]:
        """Put the rows of each split one behind the other, in their order or in that of their times.

        Returns:
            The times of the rows in the new order, where they are sorted by it.
        """
        job, times = self._job, np.concatenate([np.empty(0, np.int64), *self._times])
        keys = [times] if job.sort else []
        if job.split:
            keys.append(np.concatenate([np.empty(0, np.uint8), *self._splits]))
        if self._rows and keys:
            order = np.lexsort(keys)  # which is stable, and sorts by the last key first
            if (order[1:] < order[:-1]).any():
                self._rows = [Rows.concatenated(self._rows).taken(order)]
                times = times[order] if job.sort else times
        return times

    def written(self, ended: bool) -> Part:
        """Write the rows, the bad lines and the record; `ended`: the piece is the last of the job."""
        folder, stretch = self._job.folder, self._job.stretch
        times = time_order.Stretch.of(np.concatenate(self._times)) if self._times else None
        splits = np.concatenate([np.empty(0, np.uint8), *self._splits])
        by_time = self._sorted()
        data = row_files.write(folder, f"{self._stem}.rows", self._rows) if self._rows else None
        part = Part(
            file=self._job.file,
            piece=self._piece,
            rows=data.rows if data else 0,
            lines=self._lines,
            header=self._header,
            within=self._within,
            reasons=dict(sorted(self.bad.reasons.items())),
            first_bad=self._first_bad,
            inexact=self._inexact.tolist(),
            times=times,
            by_split=np.bincount(splits, minlength=3).tolist() if self._job.split else None,
            raw_bytes=self._reader.bytes_read - self._bytes_before,
            sha256=self._reader.sha256 if ended else "",
            last=ended and stretch.stop == self._job.raw.bytes,
            data=data,
            bad=self.bad.written(),
            order=Times.written(folder, f"{self._stem}.times", by_time) if data and self._job.sort else None,
            cut=self._cut.tolist(),
        )
        write_atomic(record_path(folder, self._job.file, self._piece), part.model_dump_json().encode())
        return part


def write_quarantine(folder: Path, name: str, raw: list[RawFile], parts: list[Part]) -> Shard | None:
    """Write all bad lines of a log to one file, in their order: raw file, line number, reason, the line itself.

    Args:
        folder: the working folder.
        name: path of the file within it.
        raw: the raw files of the log.
        parts: all of the log, in its order.

    Returns:
        The file; None where no line is bad.
    """
    if not any(part.bad for part in parts):
        return None
    (folder / name).parent.mkdir(exist_ok=True)
    rows, before = 0, dict.fromkeys(range(len(raw)), 0)
    with hashed_file(folder / name) as writer:
        for part in parts:
            if part.bad:
                with (folder / part.bad.file).open("rb") as stream:
                    source = raw[part.file].path.encode()
                    while entries := stream.readlines(_QUARANTINE_BYTES):
                        for at, entry in enumerate(entries):
                            line, rest = entry.split(b"\t", 1)
                            entries[at] = b"%s\t%d\t%s" % (source, int(line) + before[part.file], rest)
                        writer.write(b"".join(entries))
                        rows += len(entries)
            before[part.file] += part.all_lines
    return Shard(file=name, rows=rows, bytes=writer.bytes, sha256=writer.sha256)

"""The first step of a preparation: raw text to parts, each the good rows of one piece of a raw file.

A piece is a range of a plain file, or as much of a compressed one as decompresses to such a range. Its rows go
to `work/parts/FILE-PIECE.rows` (see `spill`), its bad lines to `.bad`, and then a record of both to `.json`: a piece
that has a record is done. Pieces are the same whoever works on them, so any number of workers leave the same parts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from sizewise_prep import spill
from sizewise_prep.atomic import hashed_file, write_atomic
from sizewise_prep.errors import InputError
from sizewise_prep.layout import Layout
from sizewise_prep.manifest import Shard, problem_of
from sizewise_prep.reader import Reader
from sizewise_prep.rows import Rows
from sizewise_prep.sources import RawFile
from sizewise_prep.spill import Spilled

if TYPE_CHECKING:
    from sizewise_prep.parser import BadRow, Parser

PIECE_BYTES = 64 << 20
FOLDER = "work/parts"
MEMORY = 600 * 10**6
"""Bytes that a worker needs to parse, its interpreter and libraries included."""


class Part(BaseModel):
    """What became of one piece of a raw file.

    Attributes:
        file, piece: which raw file, and which piece of it, from 0.
        lines: good rows and bad ones; `header` lines come on top.
        reasons: how many bad ones, by reason; the first of them: its line in the piece, from 1, and what is
            wrong.
        raw_bytes, sha256: of the raw file's bytes. The digest of a compressed file is with its last piece.
        last: whether it is the file's last piece.
        data, bad: the files written, None where there is nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: int
    piece: int
    rows: int
    lines: int
    header: int
    reasons: dict[str, int]
    first_bad: tuple[int, str] | None
    raw_bytes: int
    sha256: str
    last: bool
    data: Spilled | None
    bad: Shard | None

    @property
    def key(self) -> tuple[int, int]:
        """Where it comes in the log."""
        return self.file, self.piece

    def is_whole(self, folder: Path) -> bool:
        """Whether the files that hold it are as they were written."""
        data = self.data is None or spill.is_whole(folder, self.data)
        return data and (self.bad is None or problem_of(folder, self.bad) is None)


@dataclass(frozen=True)
class ParseJob:
    """A range of a plain file, or a whole compressed file, to be parsed.

    Attributes:
        folder: where the work lies.
        file: the raw file's place in the log.
        piece: number of its first piece.
        start, stop: of a plain file, the piece's bytes.
        done: pieces of a compressed file that need not be parsed again.
        piece_bytes, block_bytes: text in a piece of a compressed file, and text that is parsed at a time.
        strict: whether the first bad row is an error.
    """

    folder: Path
    file: int
    raw: RawFile
    layout: Layout
    piece: int
    start: int
    stop: int
    done: frozenset[int]
    piece_bytes: int
    block_bytes: int
    strict: bool


def pieces(raw: RawFile) -> list[tuple[int, int]]:
    """The pieces that a file's own bytes are read in."""
    if raw.compressed:
        return [(0, raw.bytes)]
    return [(start, min(start + PIECE_BYTES, raw.bytes)) for start in range(0, raw.bytes, PIECE_BYTES)]


def record_path(folder: Path, file: int, piece: int) -> Path:
    """Where the record of a piece lies."""
    return folder / FOLDER / f"{file:05d}-{piece:06d}.json"


def recorded(folder: Path, known: Collection[tuple[int, int]] = ()) -> dict[tuple[int, int], Part]:
    """The parts that are done, those aside that are known."""
    names = [name for name in os.listdir(folder / FOLDER) if name.endswith(".json") and name[0] != "."]
    keys = {(int(file), int(piece)) for file, piece in (name[:-5].split("-") for name in names)}
    paths = (record_path(folder, *key) for key in keys.difference(known))
    return {part.key: part for part in (Part.model_validate_json(path.read_bytes()) for path in paths)}


def parse(job: ParseJob) -> Iterator[Part]:
    """Write the parts of a job, and their records.

    Raises:
        InputError: the file is damaged, has vanished or changed, or has a bad row where none is allowed.
    """
    # Here, because it imports Polars, which a process that only has others parse need not.
    from sizewise_prep.parser import Parser

    reader = Reader(job.raw, job.start, job.stop, job.block_bytes)
    parser = Parser(job.layout)
    piece, before = job.piece, 0  # lines of this job before the piece
    blocks_in_piece = max(1, job.piece_bytes // job.block_bytes) if job.raw.compressed else None
    collected = _Collected(job, reader, piece)
    for block in reader:
        if blocks_in_piece and collected.blocks == blocks_in_piece:
            if piece not in job.done:
                yield collected.written(last=False)
            before += collected.lines + collected.header
            piece += 1
            collected = _Collected(job, reader, piece)
        collected.add(block, parser, before)
    if piece not in job.done:
        yield collected.written(last=job.raw.compressed or job.stop == job.raw.bytes)


class _Collected:
    """The rows of a piece so far."""

    def __init__(self, job: ParseJob, reader: Reader, piece: int) -> None:
        self._job, self._reader, self._piece = job, reader, piece
        self._bytes_before = reader.bytes_read
        self._rows: list[Rows] = []
        self._bad: list[BadRow] = []
        self.blocks = self.lines = self.header = 0

    def add(self, block: bytes, parser: Parser, before: int) -> None:
        """Parse a block; `before` lines of the job come before this piece."""
        if self._piece == 0 and not self.blocks and parser.layout.header:
            block, self.header = parser.layout.without_header(block, self._job.raw.path), 1
        self.blocks += 1
        if self._piece in self._job.done:
            self.lines += block.count(b"\n")
            return
        rows, bad = parser.parse(block, first_line=1 + self.header + self.lines)
        if bad and self._job.strict:
            line = bad[0].line + before + self._reader.lines_before()
            raise InputError(
                f"{self._job.raw.path}, line {line}: {bad[0].fault.detail}. "
                "Mend the row, or set bad rows aside with --max-bad-fraction"
            )
        self.lines += len(rows) + len(bad)
        self._bad += bad
        if len(rows):
            self._rows.append(rows)

    def written(self, last: bool) -> Part:
        """Write the rows, the bad lines and the record."""
        folder, stem = self._job.folder, f"{FOLDER}/{self._job.file:05d}-{self._piece:06d}"
        data = bad = None
        if self._rows:
            data = spill.write(folder, f"{stem}.rows", self._rows)
        if self._bad:
            with hashed_file(folder / f"{stem}.bad") as writer:
                for row in self._bad:
                    writer.write(b"%d\t%s\t%s\n" % (row.line, row.fault.reason.encode(), row.raw))
            bad = Shard(file=f"{stem}.bad", rows=len(self._bad), bytes=writer.bytes, sha256=writer.sha256)
        part = Part(
            file=self._job.file,
            piece=self._piece,
            rows=data.rows if data else 0,
            lines=self.lines,
            header=self.header,
            reasons=dict(sorted(Counter(row.fault.reason for row in self._bad).items())),
            first_bad=(self._bad[0].line, self._bad[0].fault.detail) if self._bad else None,
            raw_bytes=self._reader.bytes_read - self._bytes_before,
            sha256=self._reader.sha256 if last or not self._job.raw.compressed else "",
            last=last,
            data=data,
            bad=bad,
        )
        write_atomic(record_path(folder, self._job.file, self._piece), part.model_dump_json().encode())
        return part


def write_quarantine(folder: Path, name: str, raw: list[RawFile], parts: list[Part]) -> Shard | None:
    """All bad lines, in the order of the log: file, line number, reason, and the line as it was."""
    if not any(part.bad for part in parts):
        return None
    (folder / name).parent.mkdir(exist_ok=True)
    rows, before = 0, dict.fromkeys(range(len(raw)), 0)
    with hashed_file(folder / name) as writer:
        for part in parts:
            if part.bad:
                with (folder / part.bad.file).open("rb") as stream:
                    for entry in stream:
                        line, rest = entry.split(b"\t", 1)
                        number = int(line) + before[part.file]
                        writer.write(b"%s\t%d\t%s" % (raw[part.file].path.encode(), number, rest))
                        rows += 1
            before[part.file] += part.lines + part.header
    return Shard(file=name, rows=rows, bytes=writer.bytes, sha256=writer.sha256)

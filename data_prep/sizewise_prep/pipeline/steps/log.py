"""The raw log and what has been read of it: the first step of a preparation, and what is known after it.

log = Log(folder, settings, found, workers, time_column)
yield from log.read()                  # parse what earlier runs have not
log.rows_by_file(), log.quarantine(), log.sources()
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import accumulate
from pathlib import Path

from sizewise_core.errors import InputError
from sizewise_prep.pipeline.jobs import parts
from sizewise_prep.pipeline.jobs.assembly import Cut
from sizewise_prep.pipeline.jobs.parts import ParseJob, Part
from sizewise_prep.pipeline.jobs.sorting import Segment, ranges
from sizewise_prep.pipeline.steps.progress import FileProgress, Progress, Step
from sizewise_prep.pipeline.workers import Workers
from sizewise_prep.raw.blocks import Stretch
from sizewise_prep.raw.files import reader
from sizewise_prep.raw.files.sources import RawFile
from sizewise_prep.raw.layout import CRITEO, Layout
from sizewise_prep.raw.row_readers import stretches
from sizewise_prep.raw.values.time_order import out_of_order
from sizewise_prep.shards.manifest import Quarantine, Settings, Source, TimeOrder
from sizewise_prep.shards.splits import SPLITS, Rule

_QUARANTINE = "quarantine/rows.tsv"


class Log:
    """The raw files of a preparation and their parts; `time_column` is the one that holds the time, if any."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        found: list[RawFile],
        workers: Workers,
        time_column: str | None = None,
    ) -> None:
        self._time_column = time_column
        self._folder, self._settings, self._found, self._workers = folder, settings, found, workers
        self._layout = settings.layout or CRITEO
        self._split = Rule.parse(settings.split).by_row(self._layout)
        self._began = time.monotonic()
        self._parts = parts.recorded(folder)
        self._before = self._amount()
        self._fresh: set[tuple[int, int]] = set()

    @property
    def parts(self) -> list[Part]:
        """The parts that have been read, in the order of the log."""
        return [self._parts[key] for key in sorted(self._parts)]

    def read(self) -> Generator[Progress, None, None]:
        """Parse what is not parsed yet."""
        yield self._reading()
        for part in self._workers.run(parts.parse, self._jobs(), parts.MEMORY):
            if part is None:  # only finished jobs yield parts, so look for records of those that are not
                self._parts |= parts.recorded(self._folder, known=self._parts)
            else:
                self._parts[part.key] = part
                self._fresh.add(part.key)
            yield self._reading()

    def restore(self, needed: set[str]) -> Generator[Progress, None, None]:
        """Parse again what an earlier run had parsed and has been damaged since."""
        old = [
            part
            for part in self.parts
            if part.data and part.data.file in needed and part.key not in self._fresh
        ]
        damaged = 0
        for key in self._workers.run(_damaged, [(self._folder, part) for part in old], parts.MEMORY):
            if key is not None:
                damaged += 1
                parts.record_path(self._folder, *key).unlink()
                del self._parts[key]
        if damaged:
            yield from self.read()

    def restore_times(self) -> Generator[Progress, None, None]:
        """Parse again where the times by which rows are sorted have been damaged since an earlier run."""
        old = [(self._folder, part) for part in self.parts if part.key not in self._fresh]
        damaged = [key for key in self._workers.run(_without_times, old, parts.MEMORY) if key is not None]
        for key in damaged:
            parts.record_path(self._folder, *key).unlink()
            del self._parts[key]
        if damaged:
            yield from self.read()

    def sorted_cuts(self, sizes: dict[str, int], shard_rows: int) -> Iterator[list[Cut]]:
        """The rows of each shard in turn, where rows are sorted by their times; cuts are in the order of the log.

        Args:
            sizes: rows of each split.
            shard_rows: of every shard but the last of a split.
        """
        ends = [
            [min(end, size) for end in range(shard_rows, size + shard_rows, shard_rows)]
            for size in sizes.values()
        ]
        if self._split is None:
            begins = accumulate(sizes.values(), initial=0)
            ends = [[begin + end for begin, of_split in zip(begins, ends, strict=False) for end in of_split]]
        for place, of_group in enumerate(ends):
            if of_group:
                segments = self._segments(None if self._split is None else place)
                for group in ranges(segments, of_group):
                    yield [
                        Cut(part.data, start, stop, part.order) for part, start, stop in group if part.data
                    ]

    def _segments(self, split: int | None) -> list[Segment[Part]]:
        """The rows of each part, or those of one split, in the order of their times."""
        found = []
        for part in self.parts:
            counts = part.by_split or []
            start, stop = (0, part.rows) if split is None else (sum(counts[:split]), sum(counts[: split + 1]))
            if part.order and start < stop:
                found.append(Segment(part, start, part.order.between(self._folder, start, stop)))
        return found

    def rows_by_file(self) -> list[int]:
        """Good rows of each raw file."""
        rows = Counter[int]()
        for part in self._parts.values():
            rows[part.file] += part.rows
        return [rows[file] for file in range(len(self._found))]

    def rows_by_split(self) -> list[int] | None:
        """Good rows of each split, where a column says in which a row is; else None."""
        if self._split is None:
            return None
        return [
            sum(counts) for counts in zip(*(part.by_split or (0, 0, 0) for part in self.parts), strict=True)
        ]

    def cuts(self) -> Iterator[Cut]:
        """The rows of the log, split after split, each in its order."""
        parts_ = [part for part in self.parts if part.data]
        if self._split is None:
            yield from (Cut(part.data, 0, part.rows) for part in parts_ if part.data)
            return
        for place in range(len(SPLITS)):
            for part in parts_:
                counts = part.by_split or []
                start, stop = sum(counts[:place]), sum(counts[: place + 1])
                if part.data and start < stop:
                    yield Cut(part.data, start, stop)

    def quarantine(self) -> Quarantine:
        """Write the bad rows into one file.

        Raises InputError when they are too many, or a file has no rows at all.
        """
        log = self.parts
        reasons = sum((Counter(part.reasons) for part in log), Counter[str]())
        lines = Counter[int]()
        for part in log:
            lines[part.file] += part.lines
        for file, raw in enumerate(self._found):
            # Programs that write a table in parts leave empty ones among them.
            if not lines[file] and not (raw.format == "parquet" and lines.total()):
                raise InputError(f"{raw.path}: holds no rows; leave it out or add its rows")
        rows, bad = lines.total(), reasons.total()
        allowed = self._settings.max_bad_fraction
        if bad > allowed * rows:
            raise InputError(
                f"{bad:,} of {rows:,} rows are bad, more than --max-bad-fraction {allowed} allows; "
                f"the first: {self._first_bad(log)}"
            )
        if bad == rows:
            raise InputError(
                f"{self._found[0].path}: none of the {rows:,} rows is good; the first: {self._first_bad(log)}"
            )
        file_ = parts.write_quarantine(self._folder, _QUARANTINE, self._found, log)
        return Quarantine(reasons=dict(sorted(reasons.items())), file=file_)

    def _first_bad(self, log: list[Part]) -> str:
        first = next(part for part in log if part.first_bad)
        line, detail = first.first_bad or (0, "")
        line += sum(part.all_lines for part in log if part.file == first.file and part.piece < first.piece)
        raw = self._found[first.file]
        return f"{raw.path}, {raw.counted_by} {line}: {detail}"

    def sources(self) -> list[Source]:
        """What the manifest says of the raw files."""
        by_file: dict[int, list[Part]] = {}
        for part in self.parts:
            by_file.setdefault(part.file, []).append(part)
        return [_source(raw, by_file[file]) for file, raw in enumerate(self._found)]

    def inexact(self) -> list[int]:
        """Of each dense column, how many integers float32 does not hold exactly."""
        lost = [sum(column) for column in zip(*(part.inexact for part in self.parts), strict=True)]
        return lost[: len(self._layout.dense)]

    def cut_values(self) -> list[int]:
        """Of each column of lists, how many values of too long ones were left out."""
        return [sum(column) for column in zip(*(part.cut for part in self.parts), strict=True)]

    def time_order(self) -> TimeOrder | None:
        """How many rows are earlier than a row before them; None where no column holds the time."""
        stretches = [part.times for part in self.parts if part.times]
        if self._time_column is None or not stretches:
            return None
        rows = sum(stretch.rows for stretch in stretches)
        return TimeOrder(column=self._time_column, rows=rows, out_of_order=out_of_order(stretches))

    def progress(self, step: Step, done: int, total: int) -> Progress:
        """How far a step after reading is.

        Args:
            step: which step.
            done, total: its jobs.
        """
        return self._progress(step, done, total, self._amount()[1], ())

    def _jobs(self) -> list[ParseJob]:
        """What is not parsed yet: stretches of raw files, of those that are read from their start as far as they go."""
        jobs = []
        for file, raw in enumerate(self._found):
            parsed = {piece for at, piece in self._parts if at == file}
            ended = any(part.last for part in self._parts.values() if part.file == file)
            for stretch in self._stretches(raw):
                if stretch.pieces is None:
                    done = frozenset(parsed)
                    left = not ended or done != frozenset(range(len(done)))
                else:
                    pieces = range(stretch.piece, stretch.piece + stretch.pieces)
                    done = frozenset(parsed.intersection(pieces))
                    left = len(done) < stretch.pieces
                if left:
                    jobs.append(
                        ParseJob(
                            folder=self._folder,
                            file=file,
                            raw=raw,
                            layout=self._layout.sorted_by_time() if self._settings.sort else self._layout,
                            stretch=stretch,
                            done=done,
                            piece_bytes=parts.PIECE_BYTES,
                            block_bytes=_block_bytes(),
                            strict=not self._settings.max_bad_fraction,
                            time=self._time_column,
                            split=self._split,
                            sort=self._settings.sort,
                            max_list=self._settings.max_list,
                        )
                    )
        return jobs

    def _stretches(self, raw: RawFile) -> list[Stretch]:
        return stretches(raw, self._layout, parts.PIECE_BYTES, _block_bytes())

    def _amount(self) -> tuple[int, int]:
        """Bytes and rows read so far."""
        known = self._parts.values()
        return sum(part.raw_bytes for part in known), sum(part.lines for part in known)

    def _reading(self) -> Progress:
        by_file = Counter[int]()
        for part in self._parts.values():
            by_file[part.file] += part.raw_bytes
        files = tuple(FileProgress(raw.name, by_file[i], raw.bytes) for i, raw in enumerate(self._found))
        done, rows = self._amount()
        return self._progress("read", done, sum(raw.bytes for raw in self._found), rows, files)

    def _progress(
        self, step: Step, done: int, total: int, rows: int, files: tuple[FileProgress, ...]
    ) -> Progress:
        return Progress(step, done, total, rows, time.monotonic() - self._began, *self._before, files)


def digests(found: list[RawFile], layout: Layout, workers: Workers) -> list[str]:
    """The SHA-256 digests of raw files, as in `Source`.

    Args:
        found: the raw files.
        layout: of them, on which depends how they are cut into pieces.
        workers: they read the files.
    """
    cut = [stretches(raw, layout, parts.PIECE_BYTES, _block_bytes()) for raw in found]
    jobs = [(file, raw, at.start, at.stop) for file, raw in enumerate(found) for at in cut[file]]
    known: dict[tuple[int, int], str] = {}
    for result in workers.run(_digest, jobs, parts.MEMORY):
        if result is not None:
            file, start, digest = result
            known[file, start] = digest
    return [_combined([known[file, at.start] for at in of_file]) for file, of_file in enumerate(cut)]


def _block_bytes() -> int:
    return min(reader.BLOCK_BYTES, parts.PIECE_BYTES)


def _source(raw: RawFile, log: list[Part]) -> Source:
    found = [part.sha256 for part in log if part.sha256]
    rows = sum(part.lines for part in log)
    return Source(path=raw.path, bytes=raw.bytes, sha256=_combined(found), rows=rows, pieces=len(found))


def _combined(found: list[str]) -> str:
    if len(found) == 1:
        return found[0]
    return hashlib.sha256(b"".join(map(bytes.fromhex, found))).hexdigest()


def _digest(job: tuple[int, RawFile, int, int]) -> Iterator[tuple[int, int, str]]:
    file, raw, start, stop = job
    digest, left = hashlib.sha256(), stop - start
    with raw.open() as stream:
        stream.seek(start)
        while left and (piece := stream.read(min(reader.BLOCK_BYTES, left))):
            digest.update(piece)
            left -= len(piece)
    yield file, start, digest.hexdigest()


def _damaged(job: tuple[Path, Part]) -> Iterator[tuple[int, int] | None]:
    folder, part = job
    yield None if part.is_intact(folder) else part.key


def _without_times(job: tuple[Path, Part]) -> Iterator[tuple[int, int] | None]:
    folder, part = job
    yield None if part.has_times(folder) else part.key

"""The rows of a log in the order of their times: exact, stable, and in bounded memory.

Each part is sorted when it is read, and its times are kept beside it. Which rows of each part belong to a shard follows
from its place in the order of all rows, which a pass over the times of all parts gives, some at a time; rows of equal
times keep the order of the log. A shard gathers its rows from the parts, and sorts them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sizewise_core.files.atomic import CACHED, atomic_file
from sizewise_core.names import PlainPath
from sizewise_prep.shards.values.stored import Numbers, Stored, every_nth

Longs = npt.NDArray[np.int64]
Part = TypeVar("Part")

_STEP = 512  # every so many times, one is remembered to find others by
_WINDOW = 1 << 21  # rows that are looked at together, and up to a step of each part


class Times(BaseModel):
    """A file of the times of a part's rows, in their order: its path in the working folder, and its CRC-32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: PlainPath
    rows: int
    crc32: int

    @staticmethod
    def written(folder: Path, file: str, times: Longs) -> Times:
        """Write times.

        Args:
            folder: the working folder.
            file: path of the file within it.
            times: (rows,), int64.

        Raises:
            OSError: they cannot be written.
        """
        data = times.astype("<i8", copy=False).view(np.uint8).data
        with atomic_file(folder / file, durable=False) as stream:
            for start in range(0, len(data), CACHED):
                stream.write(data[start : start + CACHED])
        return Times(file=file, rows=len(times), crc32=zlib.crc32(data))

    def between(self, folder: Path, start: int, stop: int) -> Stored:
        """The times of some rows, to be read.

        Args:
            folder: the working folder.
            start, stop: which rows, `stop` exclusive.
        """
        return Stored(folder / self.file, np.dtype("<i8"), start, stop)

    def is_intact(self, folder: Path) -> bool:
        """Whether the file is there and unchanged."""
        try:
            times = self.between(folder, 0, self.rows)
            return times.path.stat().st_size == 8 * self.rows and zlib.crc32(times[:].data) == self.crc32
        except (OSError, ValueError):
            return False


@dataclass(frozen=True)
class Segment(Generic[Part]):
    """Rows of a part in ascending order: rows `start` and on, one for each of `times`."""

    part: Part
    start: int
    times: Numbers[np.int64]


def ranges(segments: Sequence[Segment[Part]], ends: Sequence[int]) -> Iterator[list[tuple[Part, int, int]]]:
    """Cut the rows of all segments, in the order of their times, into consecutive groups.

    All times are passed once, a window of some million rows at a time, of which each segment with rows in it is read
    once: so the cost grows with rows and segments, and not with segments times groups.

    Args:
        segments: in the order of the log.
        ends: of each group, its last row's rank plus one; ascending.

    Yields:
        For each group, part by part, the part and its rows `start` to `stop` (exclusive).
    """
    merge = _Merge([segment.times for segment in segments])
    before = np.zeros(len(segments), np.int64)
    for end in ends:
        while end > merge.taken + merge.rows:
            merge.advance()
        after = merge.first(end)
        yield [
            (segments[at].part, segments[at].start + int(before[at]), segments[at].start + int(after[at]))
            for at in np.flatnonzero(after > before).tolist()
        ]
        before = after


class _Merge:
    """The rows of all segments in the order of their times, a window of them at a time.

    A window has the rows that are not in those before it, up to a time T. Of rows earlier than T the order is looked
    up; those of T itself, of which there may be any number, follow in the order of the log.

    Attributes:
        taken: how many rows are before the window.
        rows: how many are in it.
    """

    def __init__(self, times: Sequence[Numbers[np.int64]]) -> None:
        self.taken = self.rows = 0
        self._times = times
        self._samples = [every_nth(of_segment, _STEP) for of_segment in times]
        self._every = np.sort(np.concatenate(self._samples))
        self._sizes = np.array([len(of_segment) for of_segment in times], np.int64)
        self._first = np.array([of_segment[:1][0] for of_segment in times], np.int64)
        self._last = np.array([of_segment[len(of_segment) - 1 :][0] for of_segment in times], np.int64)
        self._before = np.zeros(len(times), np.int64)  # of each segment, rows before the window
        self._equal = np.zeros(len(times), np.int64)  # and in it, of its last time
        self._earlier = np.empty(0, np.int32)  # the segments of its rows of earlier times, in order

    def advance(self) -> None:
        """Go to the next window."""
        self._before = self.first(self.taken + self.rows)
        self.taken += self.rows
        wanted = -(-(self.taken + _WINDOW) // _STEP) - 1
        # Before a sample there are all rows of its step and of those before it.
        last = int(self._every[wanted]) if wanted < len(self._every) else int(self._last.max())
        times, lengths = [np.empty(0, np.int64)], []
        here = np.flatnonzero((self._first <= last) & (self._before < self._sizes)).tolist()
        self._equal = np.zeros_like(self._before)
        for at in here:
            earlier, self._equal[at] = self._until(at, last)
            times.append(earlier)
            lengths.append(len(earlier))
        order = np.argsort(np.concatenate(times), kind="stable")
        self._earlier = np.repeat(np.array(here, np.int32), lengths)[order]
        self.rows = len(self._earlier) + int(self._equal.sum())

    def first(self, rows: int) -> npt.NDArray[np.int64]:
        """How many rows of each segment are among the first so many of all, the last of which is in the window."""
        wanted = rows - self.taken
        found = self._before + np.bincount(self._earlier[:wanted], minlength=len(self._before))
        left = max(0, wanted - len(self._earlier))
        given = np.cumsum(self._equal) - self._equal  # to the segments before
        found += np.clip(left - given, 0, self._equal)
        return found

    def _until(self, at: int, last: int) -> tuple[npt.NDArray[np.int64], int]:
        """The times of a segment that are in the window and before its last one, and how many are of that one."""
        times, sample, begin = self._times[at], self._samples[at], int(self._before[at])
        time = np.int64(last)
        steps, until = (int(np.searchsorted(sample, time, side)) for side in ("left", "right"))
        read = times[begin : (steps + 1) * _STEP]
        earlier = int(np.searchsorted(read, time, "left"))
        if until == steps:
            after = begin + int(np.searchsorted(read, time, "right"))
        else:
            after = until * _STEP + int(
                np.searchsorted(times[until * _STEP : (until + 1) * _STEP], time, "right")
            )
        return read[:earlier], after - begin - earlier

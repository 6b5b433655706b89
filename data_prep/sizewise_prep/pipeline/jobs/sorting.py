"""The rows of a log in the order of their times: exact, stable, and in bounded memory.

Each part is sorted when it is read, and its times are kept beside it. Which rows of each part belong to a shard follows
from its place in the order of all rows, by bisection over the times, which stay on the disk; rows of equal times keep
the order of the log. A shard gathers its rows from the parts, and sorts them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sizewise_core.files.atomic import CACHED, atomic_file
from sizewise_core.names import PlainPath
from sizewise_prep.shards.values.stored import Numbers, Stored, every_nth

Longs = npt.NDArray[np.int64]
Part = TypeVar("Part")
Side = Literal["left", "right"]

_STEP = 512  # every so many times, one is remembered to find others by


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

    Args:
        segments: in the order of the log.
        ends: of each group, its last row's rank plus one; ascending.

    Yields:
        For each group, part by part, the part and its rows `start` to `stop` (exclusive).
    """
    before = [0] * len(segments)
    searched = [_Searched(segment.times) for segment in segments]
    every = np.sort(np.concatenate([one.sample for one in searched]))
    for end in ends:
        after = _first(searched, _around(searched, every, end), end)
        yield [
            (segment.part, segment.start + low, segment.start + high)
            for segment, low, high in zip(segments, before, after, strict=True)
            if low < high
        ]
        before = after


class _Searched:
    """Times of a segment to be searched: a sample of them says which few to read, and those read last are kept."""

    def __init__(self, times: Numbers[np.int64]) -> None:
        self.sample = every_nth(times, _STEP)
        self.least, self.most = int(times[:1][0]), int(times[len(times) - 1 :][0])
        self._times = times
        self._begin, self._step = 0, times[:_STEP]

    def until(self, time: np.int64, side: Side) -> int:
        """How many times are before one, or until it (side "right")."""
        begin = _STEP * int(np.searchsorted(self.sample, time, side))
        if begin != self._begin:
            self._begin, self._step = begin, self._times[begin : begin + _STEP]
        return begin + int(np.searchsorted(self._step, time, side))


def _first(searched: Sequence[_Searched], around: tuple[int, int], rows: int) -> list[int]:
    """How many rows of each segment are among the first so many of all, the last of which is of a time `around`."""
    low, high = around
    while low < high:  # to the time of the last of these rows
        middle = (low + high) // 2
        if sum(one.until(np.int64(middle), "right") for one in searched) >= rows:
            high = middle
        else:
            low = middle + 1
    time = np.int64(low)
    earlier = [one.until(time, "left") for one in searched]
    until = [one.until(time, "right") for one in searched]
    left, found = rows - sum(earlier), []
    for first, last in zip(earlier, until, strict=True):
        found.append(first + min(left, last - first))
        left -= found[-1] - first
    return found


def _around(searched: Sequence[_Searched], every: Longs, rows: int) -> tuple[int, int]:
    """Two times between which that of the last of the first so many rows lies.

    Before a sample there are all rows of its step and of those before it, and in each segment less than a step more.
    """
    after, before = -(-rows // _STEP) - 1, rows // _STEP - len(searched) - 1
    return (
        int(every[before]) if 0 <= before < len(every) else min(one.least for one in searched),
        int(every[after]) if after < len(every) else max(one.most for one in searched),
    )

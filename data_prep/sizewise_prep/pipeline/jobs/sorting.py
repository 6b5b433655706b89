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
from sizewise_prep.shards.values.distinct import release

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

    def mapped(self, folder: Path) -> Longs:
        """The times, mapped into memory. Raises OSError."""
        if not self.rows:
            return np.empty(0, np.int64)
        return np.memmap(folder / self.file, "<i8", "r", shape=(self.rows,))

    def is_intact(self, folder: Path) -> bool:
        """Whether the file is there and unchanged."""
        try:
            path = folder / self.file
            return path.stat().st_size == 8 * self.rows and zlib.crc32(self.mapped(folder).data) == self.crc32
        except (OSError, ValueError):
            return False


@dataclass(frozen=True)
class Segment(Generic[Part]):
    """Rows of a part in ascending order: rows `start` and on, one for each of `times`."""

    part: Part
    start: int
    times: Longs


def ranges(segments: Sequence[Segment[Part]], ends: Sequence[int]) -> Iterator[list[tuple[Part, int, int]]]:
    """Cut the rows of all segments, in the order of their times, into consecutive groups.

    Args:
        segments: in the order of the log.
        ends: of each group, its last row's rank plus one; ascending.

    Yields:
        For each group, part by part, the part and its rows `start` to `stop` (exclusive).
    """
    before = [0] * len(segments)
    samples = [_sample(segment.times) for segment in segments]
    every = np.sort(np.concatenate(samples))
    for end in ends:
        after = _first(segments, samples, _around(segments, every, end), end)
        for segment in segments:
            release(segment.times)
        yield [
            (segment.part, segment.start + low, segment.start + high)
            for segment, low, high in zip(segments, before, after, strict=True)
            if low < high
        ]
        before = after


def _sample(times: Longs) -> Longs:
    """Every so many times, by which others are found: searching all times would read from all over their file."""
    sample = np.array(times[_STEP - 1 :: _STEP])
    release(times)
    return sample


def _first(
    segments: Sequence[Segment[Part]], samples: Sequence[Longs], around: tuple[int, int], rows: int
) -> list[int]:
    """How many rows of each segment are among the first so many of all, the last of which is of a time `around`."""
    low, high = around
    while low < high:  # to the time of the last of these rows
        middle = (low + high) // 2
        if sum(_until(segments, samples, middle, "right")) >= rows:
            high = middle
        else:
            low = middle + 1
    earlier, until = (_until(segments, samples, low, side) for side in ("left", "right"))
    left, found = rows - sum(earlier), []
    for first, last in zip(earlier, until, strict=True):
        found.append(first + min(left, last - first))
        left -= found[-1] - first
    return found


def _around(segments: Sequence[Segment[Part]], every: Longs, rows: int) -> tuple[int, int]:
    """Two times between which that of the last of the first so many rows lies.

    Before a sample there are all rows of its step and of those before it, and in each segment less than a step more.
    """
    low = min(int(segment.times[0]) for segment in segments)
    high = max(int(segment.times[-1]) for segment in segments)
    after, before = -(-rows // _STEP) - 1, rows // _STEP - len(segments) - 1
    return (
        int(every[before]) if 0 <= before < len(every) else low,
        int(every[after]) if after < len(every) else high,
    )


def _until(segments: Sequence[Segment[Part]], samples: Sequence[Longs], time: int, side: Side) -> list[int]:
    """How many rows of each segment are before a time, or until it (side "right")."""
    found = []
    for segment, sample in zip(segments, samples, strict=True):
        begin = _STEP * int(np.searchsorted(sample, np.int64(time), side))
        step = segment.times[begin : begin + _STEP]
        found.append(begin + int(np.searchsorted(step, np.int64(time), side)))
    return found

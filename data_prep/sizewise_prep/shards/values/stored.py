"""Numbers in files, of which slices are read: nothing of them stays in memory or open, however many files there are.

    times = Stored(path, np.dtype("<i8"), 0, 1_000_000)
    times[512:1024]                  # read from the file
    every_nth(times, 512)            # a few of them, by which others are found

A mapped file would be as easy to use. But the system maps 64 KB for every number that is touched, so many mapped files
take memory that grows with the log, and each of them counts as an open file, of which 1,024 are usual.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Kind = TypeVar("Kind", bound=np.generic, covariant=True)

_BLOCK = 1 << 17  # numbers that are read at a time where few of them are kept


class Numbers(Protocol[Kind]):
    """An array of one dimension, or what can be read like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> npt.NDArray[Kind]: ...


@dataclass(frozen=True)
class Stored:
    """Numbers in a file.

    Attributes:
        path: the file.
        kind: of its numbers.
        start, stop: which of them, counted from the file's beginning; `stop` exclusive.
    """

    path: Path
    kind: np.dtype[Any]
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> npt.NDArray[Any]:
        """Read consecutive ones. Raises OSError where the file cannot be read, or ends too early."""
        low, high, step = part.indices(len(self))
        assert step == 1
        found = np.empty(max(0, high - low), self.kind)
        if len(found):
            read_into(self.path, (self.start + low) * self.kind.itemsize, found.view(np.uint8).data)
        return found


def read_into(path: Path, start: int, into: memoryview) -> None:
    """Fill a piece of memory with a file's bytes from `start` on.

    Args:
        path: the file.
        start: bytes before what is read.
        into: what to fill.

    Raises:
        OSError: the file cannot be read, or ends too early.
    """
    # A shard may have a few rows of each of many parts, and Python's own files cost more to open.
    file = os.open(path, os.O_RDONLY)
    try:
        while into:  # one read returns less than two gibibytes
            read = os.preadv(file, [into], start)
            if not read:
                raise OSError(f"{path}: ends too early")
            into, start = into[read:], start + read
    finally:
        os.close(file)


def every_nth(numbers: Numbers[Kind], step: int) -> npt.NDArray[Kind]:
    """The last one of every `step` numbers, copied; a last, incomplete step has none.

    Args:
        numbers: (n,), in memory or stored.
        step: how many of them stand for one.
    """
    block = max(1, _BLOCK // step) * step
    found = [
        np.array(numbers[begin : begin + block][step - 1 :: step]) for begin in range(0, len(numbers), block)
    ]
    return np.concatenate([numbers[:0], *found])

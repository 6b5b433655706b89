"""Rows on disk between two steps of a preparation: plain arrays, cheap to write and to read.

    spilled = write(folder, "work/parts/00000-000000.rows", blocks)
    ids = gather(folder, [(spilled, 0, 500), (other, 0, 500)], "ids")

A file holds all labels, then all dense values, then all ids, then of each column of lists where they begin (int64, one
more than rows) and their values. Nothing waits until the disk has them: after a power cut,
the CRC-32, which costs a fraction of a cryptographic digest, shows which files are damaged.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sizewise_core.files.atomic import CACHED, atomic_file
from sizewise_core.names import PlainPath
from sizewise_prep.raw.parsing.rows import ListColumn, Rows
from sizewise_prep.shards.values.stored import read_into

Part = Literal["labels", "dense", "ids"]
"""One of the arrays of `Rows`."""


class Spilled(BaseModel):
    """A file of rows: its path in the working folder, its shape and its CRC-32; `lists`: values of each list column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: PlainPath
    rows: int
    dense: int
    tokens: int
    crc32: int
    lists: list[int] = []

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.before_list(len(self.lists))

    def before_list(self, column: int) -> int:
        """Bytes before a column of lists."""
        lists = sum(8 * (self.rows + 1) + 4 * values for values in self.lists[:column])
        return self.rows * (1 + 4 * self.dense + 4 * self.tokens) + lists


def write(folder: Path, file: str, blocks: Sequence[Rows]) -> Spilled:
    """Write blocks of rows, one after another.

    Args:
        folder: the working folder.
        file: path of the file within it.
        blocks: at least one, all with the same columns.

    Raises:
        OSError: it cannot be written.
    """
    crc = 0
    arrays = (getattr(block, part) for part in get_args(Part) for block in blocks)
    lists = [
        ListColumn.concatenated(column) for column in zip(*(block.lists for block in blocks), strict=True)
    ]
    of_lists = (array for column in lists for array in column)
    with atomic_file(folder / file, durable=False) as stream:
        for array in chain(arrays, of_lists):
            data = array.reshape(-1).view(np.uint8).data
            for start in range(0, len(data), CACHED):
                stream.write(data[start : start + CACHED])
                crc = zlib.crc32(data[start : start + CACHED], crc)
    return Spilled(
        file=file,
        rows=sum(map(len, blocks)),
        dense=blocks[0].dense.shape[1],
        tokens=blocks[0].ids.shape[1],
        crc32=crc,
        lists=[len(column.values) for column in lists],
    )


def gather(folder: Path, cuts: Sequence[tuple[Spilled, int, int]], part: Part) -> npt.NDArray[Any]:
    """One array of some files' rows, read into one piece of memory.

    Args:
        folder: the working folder.
        cuts: at least one; of each file, rows `start` to `stop` (exclusive).
        part: which array.

    Returns:
        labels (rows,) uint8, dense (rows, columns) float32 or ids (rows, columns) uint32, in the order of the cuts.

    Raises:
        OSError: a file cannot be read, or ends too early.
    """
    first, total = cuts[0][0], sum(stop - start for _, start, stop in cuts)
    shape, kind = {
        "labels": ((total,), np.uint8),
        "dense": ((total, first.dense), np.float32),
        "ids": ((total, first.tokens), np.uint32),
    }[part]
    array = np.empty(shape, kind)
    left = array.reshape(-1).view(np.uint8).data
    for spilled, start, stop in cuts:
        row_bytes = array[:1].nbytes
        before = {"labels": 0, "dense": 1, "ids": 1 + 4 * first.dense}[part] * spilled.rows
        wanted = (stop - start) * row_bytes
        read_into(folder / spilled.file, before + start * row_bytes, left[:wanted])
        left = left[wanted:]
    return array


def gather_lists(folder: Path, cuts: Sequence[tuple[Spilled, int, int]], column: int) -> ListColumn:
    """One column of lists of some files' rows, read into one piece of memory.

    Args:
        folder: the working folder.
        cuts: as for `gather`.
        column: which column of lists, from 0.

    Returns:
        The lists, in the order of the cuts.

    Raises:
        OSError: a file cannot be read, or ends too early.
    """
    offsets = []
    for spilled, start, stop in cuts:
        of_cut = np.empty(stop - start + 1, np.int64)
        read_into(folder / spilled.file, spilled.before_list(column) + 8 * start, of_cut.view(np.uint8).data)
        offsets.append(of_cut)
    values = np.empty(sum(int(of_cut[-1] - of_cut[0]) for of_cut in offsets), np.uint32)
    left = values.view(np.uint8).data
    for (spilled, _, _), of_cut in zip(cuts, offsets, strict=True):
        before = spilled.before_list(column) + 8 * (spilled.rows + 1)
        wanted = 4 * int(of_cut[-1] - of_cut[0])
        read_into(folder / spilled.file, before + 4 * int(of_cut[0]), left[:wanted])
        left = left[wanted:]
    return ListColumn.of_lengths(np.concatenate([np.diff(of_cut) for of_cut in offsets]), values)


def is_intact(folder: Path, spilled: Spilled) -> bool:
    """Whether a file is there and unchanged."""
    crc, size = 0, 0
    try:
        with (folder / spilled.file).open("rb") as stream:
            while data := stream.read(CACHED):
                crc, size = zlib.crc32(data, crc), size + len(data)
    except OSError:
        return False
    return (size, crc) == (spilled.bytes, spilled.crc32)

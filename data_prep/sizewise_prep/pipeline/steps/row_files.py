"""Rows on disk between two steps of a preparation: plain arrays, cheap to write and to read.

    spilled = write(folder, "work/parts/00000-000000.rows", blocks)
    ids = gather(folder, [(spilled, 0, 500), (other, 0, 500)], "ids")

A file holds all labels, then all dense values, then all ids. Nothing waits until the disk has them: after a power cut,
the CRC-32, which costs a fraction of a cryptographic digest, shows which files are damaged.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from sizewise_core.atomic import CACHED, atomic_file
from sizewise_core.names import PlainPath
from sizewise_prep.raw.parsing.rows import Rows

Part = Literal["labels", "dense", "ids"]
"""One of the arrays of `Rows`."""


class Spilled(BaseModel):
    """A file of rows: its path in the working folder, its shape and its CRC-32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: PlainPath
    rows: int
    dense: int
    tokens: int
    crc32: int

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.rows * (1 + 4 * self.dense + 4 * self.tokens)


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
    with atomic_file(folder / file, durable=False) as stream:
        for part in get_args(Part):
            for block in blocks:
                data = getattr(block, part).reshape(-1).view(np.uint8).data
                for start in range(0, len(data), CACHED):
                    stream.write(data[start : start + CACHED])
                    crc = zlib.crc32(data[start : start + CACHED], crc)
    rows, dense, tokens = sum(map(len, blocks)), blocks[0].dense.shape[1], blocks[0].ids.shape[1]
    return Spilled(file=file, rows=rows, dense=dense, tokens=tokens, crc32=crc)


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
        with (folder / spilled.file).open("rb", buffering=0) as stream:
            stream.seek(before + start * row_bytes)
            wanted = (stop - start) * row_bytes
            while wanted:  # one read returns less than two gibibytes
                read = stream.readinto(left[:wanted])
                if not read:
                    raise OSError(f"{folder / spilled.file}: ends too early")
                left, wanted = left[read:], wanted - read
    return array


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

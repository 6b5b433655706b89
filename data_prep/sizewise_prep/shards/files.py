"""Shards: Arrow IPC files of rows, uncompressed, to be mapped into memory.

    write_shard(path, rows)                       # -> its size and digest
    rows = read_shard(path, Shape(4000, 13, 26))  # arrays mapped from the file; nothing is copied

Any Arrow reader opens them: `polars.read_ipc(path)`, `pyarrow.ipc.open_file(path)`. Each holds
one record batch with the columns label (uint8), dense (float32[13], NaN = missing) and ids (uint32[26], 0 =
missing); logs of another layout have other numbers of dense and token columns, and without dense ones no such column.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sizewise_core.atomic import hashed_file
from sizewise_core.errors import InputError
from sizewise_prep.raw.parsing.rows import Rows
from sizewise_prep.shards.arrow_files import Column, MalformedError, mapped


class Shape(NamedTuple):
    """The number of rows, dense columns and token columns that a shard must have."""

    rows: int
    dense: int
    tokens: int
    weight: bool = False


def write_shard(path: Path, rows: Rows) -> tuple[int, str]:
    """Write rows as a shard, atomically and durably; returns the file's bytes and its hexadecimal SHA-256."""
    lists: list[tuple[str, pa.DataType, npt.NDArray[Any]]] = []
    if rows.dense.shape[1]:
        lists.append(("dense", pa.float32(), rows.dense))
    lists.append(("ids", pa.uint32(), rows.ids))
    fields = [pa.field("label", pa.uint8(), nullable=False)]
    columns = [column_of(pa.uint8(), rows.labels)]
    for name, kind, values in lists:
        width = values.shape[1]
        fields.append(pa.field(name, pa.list_(kind, width), nullable=False))
        columns.append(pa.FixedSizeListArray.from_arrays(column_of(kind, values), width))
    if rows.weights is not None:
        fields.append(pa.field("weight", pa.float32(), nullable=False))
        columns.append(column_of(pa.float32(), rows.weights))
    schema = pa.schema(fields)
    with hashed_file(path) as writer, pa.ipc.new_file(pa.PythonFile(writer, "w"), schema) as file:
        file.write_batch(pa.record_batch(columns, schema=schema))
    return writer.bytes, writer.sha256


def column_of(kind: pa.DataType, values: npt.NDArray[Any]) -> pa.Array:
    """An Arrow array of NumPy's values. `pyarrow.array` would import pandas to see whether they are a series."""
    return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(values.reshape(-1))])


def read_shard(path: Path, shape: Shape) -> Rows:
    """A shard's rows, mapped into memory: read-only arrays, whose pages are read from disk when used.

    All code that reads shards uses this function. It checks the file's columns, types, widths and rows, the position of
    every buffer, and that labels are 0 or 1 (one byte a row, which training reads first anyway). Other values are not
    checked; only the file's SHA-256 shows whether they were changed (`manifest.verify`).

    Raises:
        InputError: the file is not a shard of this shape.
        OSError: it is absent or cannot be read.
    """
    columns = [Column("label", np.uint8), Column("ids", np.uint32, shape.tokens)]
    if shape.weight:
        columns.append(Column("weight", np.float32))
    if shape.dense:
        columns.insert(1, Column("dense", np.float32, shape.dense))
    try:
        labels, *lists = mapped(path, columns, shape.rows)
    except MalformedError as error:
        raise InputError(
            f"{path}: {error}, so it is not the shard of the manifest: prepare the raw files again"
        ) from None
    if len(labels) and int(labels.max()) > 1:
        row = int(np.argmax(labels > 1))
        raise InputError(
            f"{path}: row {row + 1:,} has label {int(labels[row])}, which must be 0 or 1: prepare the raw files again"
        )
    weights = lists.pop() if shape.weight else None
    if weights is not None and not (np.isfinite(weights) & (weights >= 0)).all():
        raise InputError(f"{path}: has weights that are not from 0 on: prepare the raw files again")
    dense = lists[0] if shape.dense else np.empty((len(labels), 0), np.float32)
    return Rows(labels, dense, lists[-1], weights=weights)


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Shards: Arrow IPC files of rows, uncompressed, to be mapped into memory.

    write_shard(path, rows)                 # -> its size and digest
    rows = read_shard(path)                 # arrays that lie in the file; nothing is copied

Any Arrow reader opens them as they are: `polars.read_ipc(path)`, `pyarrow.ipc.open_file(path)`. Each holds
one record batch with the columns label (uint8), dense (float32[13], NaN = missing) and ids (uint32[26], 0 =
missing); logs of another layout have other numbers of dense and token columns.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from sizewise_prep.atomic import hashed_file
from sizewise_prep.rows import Rows


def write_shard(path: Path, rows: Rows) -> tuple[int, str]:
    """Write rows as a shard, durably and at once; the file's size in bytes and its hexadecimal SHA-256."""
    dense, tokens = rows.dense.shape[1], rows.ids.shape[1]
    schema = pa.schema(
        [
            pa.field("label", pa.uint8(), nullable=False),
            pa.field("dense", pa.list_(pa.float32(), dense), nullable=False),
            pa.field("ids", pa.list_(pa.uint32(), tokens), nullable=False),
        ]
    )
    columns = [
        column_of(pa.uint8(), rows.labels),
        pa.FixedSizeListArray.from_arrays(column_of(pa.float32(), rows.dense), dense),
        pa.FixedSizeListArray.from_arrays(column_of(pa.uint32(), rows.ids), tokens),
    ]
    with hashed_file(path) as writer, pa.ipc.new_file(pa.PythonFile(writer, "w"), schema) as file:
        file.write_batch(pa.record_batch(columns, schema=schema))
    return writer.bytes, writer.sha256


def column_of(kind: pa.DataType, values: npt.NDArray[Any]) -> pa.Array:
    """The values of an array; `pyarrow.array` would import pandas, to see whether it is a series."""
    return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(values.reshape(-1))])


def read_shard(path: Path) -> Rows:
    """A shard's rows, mapped into memory: read-only arrays whose pages are read as they are touched.

    Raises OSError or pyarrow.ArrowInvalid when the file is absent or no shard.
    """
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    label, dense, ids = (batch.column(name) for name in ("label", "dense", "ids"))
    return Rows(
        label.to_numpy(),
        dense.flatten().to_numpy().reshape(-1, dense.type.list_size),
        ids.flatten().to_numpy().reshape(-1, ids.type.list_size),
    )


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

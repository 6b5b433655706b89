"""Shards: Arrow IPC files of rows, uncompressed, to be mapped into memory.

    write_shard(path, rows)                       # -> its size and digest
    rows = read_shard(path, Shape(4000, 13, 26))  # arrays mapped from the file; nothing is copied

Any Arrow reader opens them: `polars.read_ipc(path)`, `pyarrow.ipc.open_file(path)`. Each holds
one record batch with the columns label (uint8), dense (float32[13], NaN = missing) and ids (uint32[26], 0 =
missing); logs of another layout have other numbers of dense and token columns, and without any no such column. Columns
of lists (list<uint32>) come last, each under its own name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sizewise_core.errors import InputError
from sizewise_core.files.atomic import hashed_file
from sizewise_prep.raw.parsing.rows import ListColumn, Rows
from sizewise_prep.shards.arrow_files import Column, MalformedError, mapped

_SCORE = "teacher score"  # a name that no column of lists is likely to have: it came after those
_NAMES = ("label", "dense", "ids", "weight", _SCORE)
"""Of columns that are no lists."""
_LISTS = pa.list_(pa.field("item", pa.uint32(), nullable=False))
_MOST_VALUES = 2**31 - 1  # that 32-bit offsets can count


class Shape(NamedTuple):
    """The number of rows, dense columns and token columns that a shard must have, and the names of columns of lists."""

    rows: int
    dense: int
    tokens: int
    weight: bool = False
    score: bool = False
    lists: tuple[str, ...] = ()


def list_names(names: Sequence[str]) -> list[str]:
    """The names of shards' columns of lists: those of the schema, but for those that other columns of shards have."""
    made: list[str] = []
    for name in names:
        column = name
        while column in (*_NAMES, *made) or (column != name and column in names):
            column += "_list"
        made.append(column)
    return made


def write_shard(path: Path, rows: Rows, names: Sequence[str] = ()) -> tuple[int, str]:
    """Write rows as a shard, atomically and durably.

    Args:
        path: of the file.
        rows: at least one.
        names: of the columns of lists.

    Returns:
        The file's bytes and its hexadecimal SHA-256.

    Raises:
        InputError: more values in a column of lists than a file can hold.
    """
    lists: list[tuple[str, pa.DataType, npt.NDArray[Any]]] = []
    if rows.dense.shape[1]:
        lists.append(("dense", pa.float32(), rows.dense))
    if rows.ids.shape[1]:
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
    if rows.scores is not None:
        fields.append(pa.field(_SCORE, pa.float32(), nullable=False))
        columns.append(column_of(pa.float32(), rows.scores))
    for name, column in zip(names, rows.lists, strict=True):
        fields.append(pa.field(name, _LISTS, nullable=False))
        columns.append(_list_column(name, column))
    schema = pa.schema(fields)
    with hashed_file(path) as writer, pa.ipc.new_file(pa.PythonFile(writer, "w"), schema) as file:
        file.write_batch(pa.record_batch(columns, schema=schema))
    return writer.bytes, writer.sha256


def _list_column(name: str, lists: ListColumn) -> pa.Array:
    values, first = lists.used, lists.offsets[0]
    if len(values) > _MOST_VALUES:
        raise InputError(
            f"column {name:.40}: lists of one shard have {len(values):,} values, and at most {_MOST_VALUES:,} fit: "
            "lower --shard-rows or --max-list"
        )
    offsets = (lists.offsets - first).astype(np.int32)
    inner = column_of(pa.uint32(), np.ascontiguousarray(values))
    buffers = [None, pa.py_buffer(offsets)]
    return pa.Array.from_buffers(_LISTS, len(offsets) - 1, buffers, children=[inner])


def column_of(kind: pa.DataType, values: npt.NDArray[Any]) -> pa.Array:
    """An Arrow array of NumPy's values. `pyarrow.array` would import pandas to see whether they are a series."""
    return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(values.reshape(-1))])


def read_shard(path: Path, shape: Shape) -> Rows:
    """A shard's rows, mapped into memory: read-only arrays, whose pages are read from disk when used.

    All code that reads shards uses this function. It checks the file's columns, types, widths and rows, the position of
    every buffer, that lists lie one after another, and that labels are 0 or 1 (a few bytes a row, which training reads
    first anyway). Other values are not checked; only the file's SHA-256 shows whether they were changed
    (`verifying.verify`).

    Raises:
        InputError: the file is not a shard of this shape.
        OSError: it is absent or cannot be read.
    """
    columns = [Column("label", np.uint8)]
    if shape.dense:
        columns.append(Column("dense", np.float32, shape.dense))
    if shape.tokens:
        columns.append(Column("ids", np.uint32, shape.tokens))
    if shape.weight:
        columns.append(Column("weight", np.float32))
    if shape.score:
        columns.append(Column(_SCORE, np.float32))
    columns += [Column(name, np.uint32, ragged=True) for name in shape.lists]
    try:
        found = dict(zip((column.name for column in columns), mapped(path, columns, shape.rows), strict=True))
    except MalformedError as error:
        raise InputError(
            f"{path}: {error}, so it is not the shard of the manifest: prepare the raw files again"
        ) from None
    labels, rows = found["label"], len(found["label"])
    if len(labels) and int(labels.max()) > 1:
        row = int(np.argmax(labels > 1))
        raise InputError(
            f"{path}: row {row + 1:,} has label {int(labels[row])}, which must be 0 or 1: prepare the raw files again"
        )
    weights = found.get("weight")
    if weights is not None and not (np.isfinite(weights) & (weights >= 0)).all():
        raise InputError(f"{path}: has weights that are not from 0 on: prepare the raw files again")
    dense = found.get("dense", np.empty((rows, 0), np.float32))
    ids = found.get("ids", np.empty((rows, 0), np.uint32))
    lists = tuple(ListColumn(*found[name]) for name in shape.lists)
    for name, column in zip(shape.lists, lists, strict=True):
        if wrong := _no_lists(column):
            raise InputError(f"{path}: column {name:.40} {wrong}: prepare the raw files again")
    return Rows(labels, dense, ids, lists, weights, found.get(_SCORE))


def _no_lists(column: ListColumn) -> str:
    """Why offsets are not those of lists, which kernels follow without looking; empty where they are."""
    offsets = column.offsets
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(column.values):
        return "has lists that do not begin or end where its values do"
    return "has lists that end before they begin" if (offsets[1:] < offsets[:-1]).any() else ""


def digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

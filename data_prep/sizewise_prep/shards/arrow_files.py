"""Arrow IPC files of plain columns, checked before any code gets a pointer into them.

    label, dense = mapped(path, [Column("label", np.uint8), Column("dense", np.float32, width=13)], rows=4000)

An Arrow file states the position and length of its buffers, and readers trust it. These files may come from another
person, and kernels read them without checking bounds. So the file must have one record batch, with exactly the columns,
types, widths and rows that the caller expects, without nulls, dictionaries or compression, and its buffers must follow
one another as writers place them. What is returned are those bytes, mapped into memory, without Arrow's interpretation.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

_MAGIC_BYTES = 8  # "ARROW1" and padding, at the start
_CONTINUES = 0xFFFFFFFF  # before the length of every message
_MOST_METADATA = 1 << 20  # bytes of a message: ours take some hundred
_END = b"\xff\xff\xff\xff\0\0\0\0"  # an empty message after the last one
_ALIGNMENTS = (8, 64)  # of buffers, by writers of all versions


class MalformedError(ValueError):
    """An Arrow file is not what it should be; the message says why."""


class Column(NamedTuple):
    """A column: numbers of one type, with a width fixed-size lists of so many, or `ragged` lists of any number."""

    name: str
    kind: type[np.generic]
    width: int | None = None
    ragged: bool = False

    @property
    def arrow(self) -> pa.DataType:
        """Arrow's name for the type."""
        kind = pa.from_numpy_dtype(np.dtype(self.kind))
        if self.ragged:
            return pa.list_(kind)
        return kind if self.width is None else pa.list_(kind, self.width)


def mapped(path: Path, columns: Sequence[Column], rows: int | None = None) -> list[Any]:
    """The columns of an Arrow file of one record batch: read-only arrays, whose pages are read from disk when used.

    Args:
        path: the file.
        columns: exactly those that it must have, in their order.
        rows: how many it must have; None: any number.

    Returns:
        Arrays (rows,) or (rows, width), in the order of the columns; of ragged ones their offsets, int32 (rows + 1,),
        and values, as they are in the file: what offsets hold is not checked.

    Raises:
        MalformedError: the file is anything else.
        OSError: it is absent or cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        raise MalformedError("is empty" if stat.S_ISREG(status.st_mode) else "is no regular file")
    with pa.memory_map(str(path)) as source:
        content = source.read_buffer()
    try:
        layout = _layout(content, columns)
    except MalformedError:
        raise
    except Exception as error:  # Arrow raises errors of many classes for damaged files
        reason = " ".join(str(error).split())[:60]
        raise MalformedError(f"is no Arrow file that can be read ({reason})") from None
    if rows is not None and layout.rows != rows:
        raise MalformedError(f"has {layout.rows:,} rows instead of {rows:,}")
    return _arrays(content, layout, columns)


class _Layout(NamedTuple):
    """The metadata of a record batch, in Arrow's order of columns and their parts.

    Attributes:
        body: where its buffers begin in the file.
        rows: of the batch.
        nodes: of each column, and of each list column's items: how many values, how many nulls.
        buffers: of each of those nodes the bitmap of nulls, of those with numbers these: offset from `body`, bytes.
        compressed: whether the buffers are to be decompressed.
    """

    body: int
    rows: int
    nodes: list[tuple[int, int]]
    buffers: list[tuple[int, int]]
    compressed: bool


def _layout(content: pa.Buffer, columns: Sequence[Column]) -> _Layout:
    """The metadata of the only record batch of a file with these columns."""
    reader = pa.ipc.open_file(pa.BufferReader(content))
    wanted = [(column.name, column.arrow) for column in columns]
    for found, expected in zip_longest(_described(reader.schema), wanted):
        if found != expected:
            raise MalformedError(f"has {_named(found)} instead of {_named(expected)}")
    if reader.num_record_batches != 1:
        raise MalformedError(f"has {reader.num_record_batches} record batches instead of one")
    view, at = memoryview(content), _MAGIC_BYTES
    for _ in ("schema", "record batch"):
        start = at
        mark, length = struct.unpack_from("<Ii", view, at)
        if mark != _CONTINUES or not 0 < length <= _MOST_METADATA:
            raise MalformedError("does not begin with a schema and a record batch")
        at += 8 + length
    # This verifies that all positions are within the message.
    message = pa.ipc.read_message(content.slice(start))
    if message.type != "record batch":
        raise MalformedError("does not begin with a schema and a record batch")
    return _Layout(at, *_parsed(message.metadata.to_pybytes()))


def _parsed(data: bytes) -> tuple[int, list[tuple[int, int]], list[tuple[int, int]], bool]:
    """Rows, nodes, buffers and whether they are compressed, from a record batch's message.

    PyArrow uses these, but does not return them. The format is FlatBuffers: a table begins with the offset of a list of
    its fields' offsets, and the message's third field is the record batch.
    """

    def fields(table: int) -> list[int]:
        listed = table - int(struct.unpack_from("<i", data, table)[0])
        count = struct.unpack_from("<H", data, listed)[0] // 2 - 2
        offsets = struct.unpack_from(f"<{count}H", data, listed + 4)
        return [table + offset if offset else 0 for offset in offsets] + [0] * 8

    def target(at: int) -> int:
        return at + int(struct.unpack_from("<I", data, at)[0])

    def pairs(at: int) -> list[tuple[int, int]]:
        start = target(at)
        count = struct.unpack_from("<I", data, start)[0]
        return list(struct.iter_unpack("<qq", data[start + 4 : start + 4 + 16 * count]))

    length, nodes, buffers, compression, *_ = fields(target(fields(target(0))[2]))
    rows = struct.unpack_from("<q", data, length)[0] if length else 0
    return rows, pairs(nodes), pairs(buffers), bool(compression)


def _arrays(content: pa.Buffer, layout: _Layout, columns: Sequence[Column]) -> list[Any]:
    """The columns, if the file has nothing but their numbers, one column after another."""
    if layout.compressed:
        raise MalformedError("is compressed")
    items = _items(layout, columns)
    sizes = [count * np.dtype(kind).itemsize for column in items for kind, count in column]
    for alignment in _ALIGNMENTS:
        at, starts = 0, list[int]()
        for size in sizes:
            starts.append(at)
            at += -(-size // alignment) * alignment
        if _normalized(layout.buffers) == _buffers(columns, starts, sizes) and _ends(
            content, layout.body + at
        ):
            break
    else:
        raise MalformedError("does not have its columns one after another")
    left, found = iter(starts), list[Any]()
    for column, parts in zip(columns, items, strict=True):
        arrays = [np.frombuffer(content, kind, count, layout.body + next(left)) for kind, count in parts]
        shape = (layout.rows,) if column.width is None else (layout.rows, column.width)
        found.append(tuple(arrays) if column.ragged else arrays[0].reshape(shape))
    return found


def _items(layout: _Layout, columns: Sequence[Column]) -> list[list[tuple[Any, int]]]:
    """Of each column its arrays of numbers: their type, and how many there are.

    Raises MalformedError where the file's own lengths are others.
    """
    rows, given = layout.rows, iter(layout.nodes)
    nodes: list[tuple[int, int]] = []
    items: list[list[tuple[Any, int]]] = []
    for column in columns:
        nodes.append((rows, 0))
        next(given, None)
        if column.ragged:
            values = next(given, (-1, 0))[0]
            nodes.append((max(0, values), 0))
            items.append([(np.int32, rows + 1), (column.kind, max(0, values))])
        elif column.width is not None:
            next(given, None)
            nodes.append((rows * column.width, 0))
            items.append([(column.kind, rows * column.width)])
        else:
            items.append([(column.kind, rows)])
    if rows < 0 or layout.nodes != nodes:
        raise MalformedError("has nulls, or columns of other lengths than its own")
    return items


def _buffers(columns: Sequence[Column], starts: list[int], sizes: list[int]) -> list[tuple[int, int]]:
    """The buffers that a writer lists for columns at these positions: empty bitmaps before each column's numbers."""
    places, wanted = iter(zip(starts, sizes, strict=True)), list[tuple[int, int]]()
    for column in columns:
        if column.ragged:
            wanted += [(0, 0), next(places), (0, 0), next(places)]
        else:
            wanted += [(0, 0)] * (1 if column.width is None else 2) + [next(places)]
    return _normalized(wanted)


def _normalized(buffers: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Buffers, the position of empty ones set to 0."""
    return [(start if size else 0, size) for start, size in buffers]


def _ends(content: pa.Buffer, at: int) -> bool:
    """Whether the record batches of a file end there."""
    return bytes(memoryview(content)[at : at + len(_END)]) == _END


def _described(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """Names and types, without the names of lists' items and whether nulls are allowed."""
    return [
        (
            field.name,
            pa.list_(field.type.value_type, field.type.list_size)
            if pa.types.is_fixed_size_list(field.type)
            else pa.list_(field.type.value_type)
            if pa.types.is_list(field.type)
            else field.type,
        )
        for field in schema
    ]


def _named(column: tuple[str, pa.DataType] | None) -> str:
    if column is None:
        return "no column"
    name, kind = column
    listed = pa.types.is_fixed_size_list(kind)
    text = ascii(f"{name} {kind.value_type}[{kind.list_size}]" if listed else f"{name} {kind}")[1:-1]
    return f"column {text if len(text) <= 30 else text[:27] + '...'}"
